// SPDX-License-Identifier: GPL-2.0

//! Programs that are run on behalf of the caller, as a shell runs them.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, kill, signal};
use nix::unistd::{ForkResult, Pid, fork};

use crate::report::{self, BAD};

/// A program and its arguments, which is to be run in a child.
pub struct Program<'a> {
    command: &'a [OsString],
    /// What the caller does about SIGCHLD, and which signals it blocks: the program inherits both.
    sigchld: SigHandler,
    blocked: SigSet,
}

impl<'a> Program<'a> {
    /// From here on, signals that are for the program wait for [`Program::wait`].
    pub fn new(command: &'a [OsString]) -> Result<Self> {
        let sigchld = reset_sigchld()?;
        let blocked = awaited().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { command, sigchld, blocked })
    }

    /// Becomes the program, or returns what to exit with.
    pub fn execute(&self) -> i32 {
        // SAFETY: A program begins with no handlers, so this is none.
        let _ = unsafe { signal(Signal::SIGCHLD, self.sigchld) };
        let _ = self.blocked.thread_set_mask();
        let (program, arguments) = self.command.split_first().expect("it is a required argument");
        let error = Command::new(program).args(arguments).exec();
        report::tell(format_args!(
            "{BAD}nextid:{BAD:#} cannot run {}: {error}",
            program.to_string_lossy()
        ));
        if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
    }

    /// Starts it in a process whose id the kernel chooses.
    pub fn start(&self) -> Result<Pid> {
        // SAFETY: This process has no other thread.
        match unsafe { fork() }.context("cannot fork a process")? {
            ForkResult::Parent { child } => Ok(child),
            // SAFETY: It has no preconditions.
            ForkResult::Child => unsafe { libc::_exit(self.execute()) },
        }
    }

    /// Waits until the program in process `child` ends, and returns how it ended. Who wants nextid
    /// to end wants the program to.
    pub fn wait(child: Pid) -> Result<ExitCode> {
        // As a shell does: what the terminal sends is for the program.
        for interrupt in [Signal::SIGINT, Signal::SIGQUIT] {
            // SAFETY: No handler is set.
            unsafe { signal(interrupt, SigHandler::SigIgn) }?;
        }
        loop {
            if let Some(code) = reap(child, libc::WNOHANG)? {
                return Ok(code);
            }
            match awaited().wait()? {
                Signal::SIGCHLD => {}
                // It may have ended meanwhile.
                signal => drop(kill(child, signal)),
            }
        }
    }
}

/// The signals that are waited for.
fn awaited() -> SigSet {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD])
}

/// Waits until `child` ends, and returns what a shell makes of how it ended.
pub fn exit_code(child: Pid) -> Result<ExitCode> {
    Ok(reap(child, 0)?.unwrap_or(ExitCode::FAILURE))
}

/// Waits for processes that have ended until one is `child`, and returns what a shell makes of how
/// that ended. The first process of a pid namespace inherits others.
fn reap(child: Pid, flags: c_int) -> Result<Option<ExitCode>> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for a write of an `int`.
        match Errno::result(unsafe { libc::waitpid(-1, &raw mut status, flags) }) {
            Ok(0) => return Ok(None),
            Ok(pid) if pid == child.as_raw() => {
                let status = ExitStatus::from_raw(status);
                let code = status.code().or(status.signal().map(|signal| 128 + signal));
                let code = code.and_then(|code| u8::try_from(code).ok());
                return Ok(Some(code.map_or(ExitCode::FAILURE, ExitCode::from)));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => bail!("cannot wait for process {child}: {error}"),
        }
    }
}

/// Lets this process wait for children, and returns what it inherited: who ignores SIGCHLD, as a
/// program may from its start, cannot.
pub fn reset_sigchld() -> nix::Result<SigHandler> {
    // SAFETY: No handler is set.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }
}
