// SPDX-License-Identifier: GPL-2.0

//! Programs that are run on behalf of the caller, as a shell runs them.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, Pid, fork};

use crate::report::{self, BAD};

/// A program and its arguments, which is to be run in a child.
pub struct Program<'a> {
    command: &'a [OsString],
    /// What the caller does about SIGCHLD, which the program inherits.
    inherited: SigHandler,
}

impl<'a> Program<'a> {
    pub fn new(command: &'a [OsString]) -> Result<Self> {
        Ok(Self { command, inherited: reset_sigchld()? })
    }

    /// Becomes the program, or returns what to exit with.
    pub fn execute(&self) -> i32 {
        // SAFETY: A program begins with no handlers, so this is none.
        let _ = unsafe { signal(Signal::SIGCHLD, self.inherited) };
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
}

/// Waits until the program in process `child` ends, and returns how it ended.
pub fn wait(child: Pid) -> Result<ExitCode> {
    // As a shell does: what the terminal sends is for the program.
    for interrupt in [Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: No handler is set.
        unsafe { signal(interrupt, SigHandler::SigIgn) }?;
    }
    exit_code(child)
}

/// Waits until `child` ends, and returns what a shell makes of how it ended.
pub fn exit_code(child: Pid) -> Result<ExitCode> {
    let mut status = 0;
    // SAFETY: `status` is valid for a write of an `int`.
    while unsafe { libc::waitpid(child.as_raw(), &raw mut status, 0) } < 0 {
        let error = Errno::last();
        ensure!(error == Errno::EINTR, "cannot wait for process {child}: {error}");
    }
    let status = ExitStatus::from_raw(status);
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Lets this process wait for children, and returns what it inherited: who ignores SIGCHLD, as a
/// program may from its start, cannot.
pub fn reset_sigchld() -> nix::Result<SigHandler> {
    // SAFETY: No handler is set.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }
}
