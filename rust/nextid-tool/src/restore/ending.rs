// SPDX-License-Identifier: GPL-2.0

//! How a process ended, bit by bit as `wait(2)` tells it.

use std::fs;
use std::mem::zeroed;
use std::path::{Path, PathBuf};
use std::ptr;

use anyhow::{Context, Result, ensure};
use criu_images::{Dump, State};
use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{ForkResult, chdir, chroot, fork, getpid};
use tempfile::TempDir;

use crate::failure::{Failure, OTHER};

/// What is set in a status where core was dumped.
const CORE: c_int = 0x80;

/// Where the cores of processes go that dumped one when they ended. It is gone with this.
pub struct Cores(Option<TempDir>);

impl Cores {
    /// A folder, if any process of `dump` needs it.
    pub fn new(dump: &Dump) -> Result<Self> {
        let folder = dumped_core(dump).map(|_| TempDir::new()).transpose();
        Ok(Self(folder.context("cannot make a folder for cores")?))
    }

    /// Ends this process with `status`, or returns what it is to exit with.
    pub fn end(&self, status: c_int) -> c_int {
        let signal = status & 0x7f;
        if signal == 0 {
            return status >> 8;
        }
        // Where that fails, whoever waits for it sees another status.
        let _ = match &self.0 {
            // One for each: the kernel makes no core while another one of that name is being made.
            Some(folder) if status & CORE != 0 => {
                allow_core(&folder.path().join(getpid().to_string()))
            }
            // It is no news for whoever collects cores.
            _ => prctl::set_dumpable(false).map_err(Into::into),
        };
        raise_default(signal);
        libc::EXIT_FAILURE
    }
}

/// The first process of `dump` that dumped core when it ended.
fn dumped_core(dump: &Dump) -> Option<i32> {
    let has = |state| matches!(state, State::Zombie { status } if status & CORE != 0);
    dump.processes.iter().find(|process| has(process.state)).map(|process| process.pid)
}

/// Checks that processes dump core here, if one of `dump` did.
pub fn hindrance(dump: &Dump) -> Result<Option<Failure>> {
    let Some(pid) = dumped_core(dump) else { return Ok(None) };
    // A program that collects cores does, and one more is not for it.
    if core_pattern()?.starts_with(['|', '@']) {
        return Ok(None);
    }
    let cores = Cores::new(dump)?;
    // SAFETY: This process has no other thread.
    let status = match unsafe { fork() }.context("cannot fork a process")? {
        ForkResult::Child => {
            let status = cores.end(libc::SIGABRT | CORE);
            // SAFETY: It has no preconditions.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => wait_to_end(child.as_raw(), 0)?,
    };
    Ok((status & CORE == 0).then(|| Failure {
        status: OTHER,
        text: format!(
            "process {pid} dumped core when it ended, and here a process that tries does not: see \
             kernel.core_pattern, the hard limit of core files (ulimit -Hc), and CONFIG_ELF_CORE"
        ),
    }))
}

/// Checks that the child `pid`, which ends, does so with `status`. It stays a zombie.
pub fn check(pid: i32, status: c_int) -> Result<()> {
    let found = wait_to_end(pid, libc::WNOWAIT)?;
    ensure!(found == status, "child {pid} ended with {found:#x}, not {status:#x}");
    Ok(())
}

/// Waits for a child, and returns how it ended. The library knows no real-time signals.
fn wait_to_end(pid: i32, flags: c_int) -> Result<c_int> {
    // SAFETY: All-zero bytes are a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { zeroed() };
    let id = libc::id_t::try_from(pid)?;
    loop {
        // SAFETY: `info` is valid to be filled.
        let waited = unsafe { libc::waitid(libc::P_PID, id, &raw mut info, libc::WEXITED | flags) };
        match Errno::result(waited) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot wait for {pid}")),
        }
    }
    // SAFETY: A child ended.
    let status = unsafe { info.si_status() };
    Ok(match info.si_code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | CORE,
        _ => status,
    })
}

fn core_pattern() -> Result<String> {
    const PATH: &str = "/proc/sys/kernel/core_pattern";
    fs::read_to_string(PATH).with_context(|| format!("cannot read {PATH}"))
}

/// Sees to it that this process dumps core into `folder`, which is made, unless a program collects
/// it: as little as the kernel takes for a core.
fn allow_core(folder: &Path) -> Result<()> {
    const SIZE: u64 = 1 << 16;

    let pattern = PathBuf::from(core_pattern()?.trim_end());
    fs::write("/proc/self/coredump_filter", "0")?;
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    setrlimit(Resource::RLIMIT_CORE, SIZE, hard.max(SIZE))?;
    prctl::set_dumpable(true)?;
    fs::create_dir(folder)?;
    if let (true, Some(parent)) = (pattern.is_absolute(), pattern.parent()) {
        fs::create_dir_all(folder.join(parent.strip_prefix("/")?))?;
        chroot(folder)?;
        return Ok(chdir("/")?);
    }
    Ok(chdir(folder)?)
}

/// Sends a signal to this thread, whatever is done about it: not by the C library, which keeps two
/// signals to itself.
fn raise_default(signal: c_int) {
    let (action, mask) = ([0_u64; 4], 1_u64 << (signal - 1));
    // SAFETY: All-zero bytes are the default action, a set of signals has eight bytes.
    unsafe {
        let nothing = ptr::null_mut::<u64>();
        libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), nothing, size_of::<u64>());
        let unblock = libc::SIG_UNBLOCK;
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            unblock,
            &raw const mask,
            nothing,
            size_of::<u64>(),
        );
        libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), signal);
    }
}
