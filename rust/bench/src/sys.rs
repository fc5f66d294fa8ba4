// SPDX-License-Identifier: GPL-2.0

//! System calls, as thin as they can be.

use std::arch::asm;
use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Context, Result, ensure};
use nextid::{IPC_PRIVATE, IpcKind};
use nix::errno::Errno;
use nix::libc::{self, c_int, c_long, clone_args, pid_t};

/// What a child does.
#[derive(Clone, Copy, Debug)]
pub enum Child {
    /// Ends at once.
    Exits,
    /// Ends after a millisecond.
    Sleeps,
    /// Waits for a signal that ends it.
    Pauses,
}

/// Calls clone3(2). The child touches no memory, so that it needs no stack of its own.
fn clone3(args: &clone_args, child: Child) -> io::Result<pid_t> {
    const MILLISECOND: &libc::timespec = &libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };

    let (system_call, argument) = match child {
        Child::Exits => (libc::SYS_exit, std::ptr::null()),
        Child::Sleeps => (libc::SYS_nanosleep, std::ptr::from_ref(MILLISECOND)),
        Child::Pauses => (libc::SYS_pause, std::ptr::null()),
    };
    let result: c_long;
    // SAFETY: The kernel reads `args` and `argument`, and no more than that. The child uses its
    // registers alone, and does not get out of the loop; for the parent it is a system call as any
    // other.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 3f",
            "mov rax, r8",
            "mov rdi, r9",
            "xor esi, esi",
            "syscall",
            "2:",
            "mov eax, {exit}",
            "xor edi, edi",
            "syscall",
            "jmp 2b",
            "3:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw const *args,
            in("rsi") size_of::<clone_args>(),
            in("r8") system_call,
            in("r9") argument,
            exit = const libc::SYS_exit,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result_of(result).map(|pid| pid_t::try_from(pid).expect("pids are of type int"))
}

/// What a raw system call returned.
fn result_of(result: c_long) -> io::Result<c_long> {
    if result < 0 {
        let errno = i32::try_from(-result).expect("an errno is at most 4095");
        return Err(io::Error::from_raw_os_error(errno));
    }
    Ok(result)
}

/// Arguments for a process or thread that has `set_tid`, if any, as its ids.
fn arguments(set_tid: &[pid_t]) -> clone_args {
    // SAFETY: All of its fields are integers, for which zero is a value.
    let mut args: clone_args = unsafe { std::mem::zeroed() };
    if !set_tid.is_empty() {
        args.set_tid = set_tid.as_ptr() as u64;
        args.set_tid_size = set_tid.len() as u64;
    }
    args
}

/// Forks a process, with the ids `set_tid` unless that is empty.
pub fn fork(set_tid: &[pid_t], child: Child) -> io::Result<pid_t> {
    let args =
        clone_args { exit_signal: libc::SIGCHLD.unsigned_abs().into(), ..arguments(set_tid) };
    clone3(&args, child)
}

/// Waits for the end of a process.
pub fn wait(pid: pid_t) -> io::Result<()> {
    // SAFETY: No status is asked for.
    Errno::result(unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) })?;
    Ok(())
}

/// Ends a process that pauses, and waits for its end.
pub fn kill(pid: pid_t) -> io::Result<()> {
    // SAFETY: It has no preconditions.
    Errno::result(unsafe { libc::kill(pid, libc::SIGKILL) })?;
    wait(pid)
}

/// Creates a thread that ends at once, with the ids `set_tid` unless that is empty, and waits for
/// its end. Returns its id.
pub fn thread(set_tid: &[pid_t]) -> io::Result<pid_t> {
    const FLAGS: c_int = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID;

    let word = AtomicI32::new(0);
    let address = word.as_ptr() as u64;
    let args = clone_args {
        flags: FLAGS.unsigned_abs().into(),
        parent_tid: address,
        child_tid: address,
        ..arguments(set_tid)
    };
    let tid = clone3(&args, Child::Exits)?;
    loop {
        let value = word.load(Ordering::Acquire);
        if value == 0 {
            return Ok(tid);
        }
        let no_time_limit = std::ptr::null::<libc::timespec>();
        // SAFETY: The word lives until the thread has cleared it.
        unsafe {
            libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, no_time_limit)
        };
    }
}

/// Does as little as a system call can.
pub fn getpid() {
    // SAFETY: It has no preconditions.
    unsafe { libc::syscall(libc::SYS_getpid) };
}

/// A file to write ids to.
#[derive(Debug)]
pub struct IdFile {
    file: File,
    path: CString,
}

impl IdFile {
    /// Opens `path`.
    pub fn open(path: &CStr) -> Result<Self> {
        let name = OsStr::from_bytes(path.to_bytes());
        let file = OpenOptions::new().write(true).open(name);
        let file = file.with_context(|| path.to_string_lossy().into_owned())?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Writes all of `text` in one system call.
    pub fn write(&self, text: &[u8]) -> Result<()> {
        check((&self.file).write(text), text, &self.path)
    }

    /// The same at the start of the file, where a sysctl wants it.
    pub fn write_at_start(&self, text: &[u8]) -> Result<()> {
        check(self.file.write_at(text, 0), text, &self.path)
    }
}

/// An error unless all of `text` was `written` to `path`.
fn check(written: io::Result<usize>, text: &[u8], path: &CStr) -> Result<()> {
    let written = written
        .with_context(|| format!("writing {:?} to {path:?}", String::from_utf8_lossy(text)))?;
    ensure!(written == text.len(), "{path:?}: wrote {written} of {} bytes", text.len());
    Ok(())
}

/// Opens `path`, writes `text`, and closes it again.
pub fn write_once(path: &CStr, text: &[u8]) -> Result<()> {
    // SAFETY: `path` ends with NUL.
    let fd = Errno::result(unsafe { libc::open(path.as_ptr(), libc::O_RDWR) })
        .with_context(|| path.to_string_lossy().into_owned())?;
    // SAFETY: `text` is valid.
    let written = unsafe { libc::write(fd, text.as_ptr().cast(), text.len()) };
    // Before another call sets errno.
    let written = Errno::result(written);
    // SAFETY: `fd` is ours.
    unsafe { libc::close(fd) };
    check(written.map(isize::unsigned_abs).map_err(io::Error::from), text, path)
}

/// As many pids as the kernel allows.
pub const MOST_PIDS: u64 = 1 << 22;

/// Sets one of the sysctls of the kernel itself.
pub fn set_sysctl(name: &str, value: u64) -> Result<()> {
    let path = format!("/proc/sys/kernel/{name}");
    fs::write(&path, value.to_string()).with_context(|| format!("writing {value} to {path}"))
}

/// Looks `path` up.
pub fn stat(path: &CStr) -> Result<(), Errno> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `path` ends with NUL, `stat` has room.
    Errno::result(unsafe { libc::stat(path.as_ptr(), stat.as_mut_ptr()) }).map(drop)
}

/// Reads the names of all entries of a directory, and returns how many bytes they take.
pub fn list(directory: &File) -> Result<usize> {
    let mut buffer = [0_u8; 16384];
    let mut total = 0;
    // SAFETY: Neither call is given a pointer but `buffer`, whose size is told.
    unsafe {
        libc::lseek(directory.as_raw_fd(), 0, libc::SEEK_SET);
        loop {
            let read = libc::syscall(
                libc::SYS_getdents64,
                directory.as_raw_fd(),
                buffer.as_mut_ptr(),
                buffer.len(),
            );
            match usize::try_from(Errno::result(read)?)? {
                0 => return Ok(total),
                read => total += read,
            }
        }
    }
}

/// The sysctl that chooses the next id of an object.
pub fn sysctl(kind: IpcKind) -> CString {
    CString::new(kind.next_id_sysctl()).expect("a path has no NUL")
}

/// Creates a small object for its creator alone, and returns its id.
pub fn create(kind: IpcKind) -> io::Result<c_int> {
    kind.get(IPC_PRIVATE, 1, libc::IPC_CREAT | 0o600)
}
