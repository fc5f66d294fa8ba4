// SPDX-License-Identifier: GPL-2.0

//! Single objects: `nextid run`, `msg`, `sem` and `shm`.

use std::fmt;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use nextid::{IpcKind, MessageQueue, NextId, Pids, SemaphoreSet, SharedMemory};
use nix::sys::signal::{SigHandler, Signal, signal};
use serde::Serialize;

use crate::cli::{self, Object, Run, Segment};
use crate::{BAD, report};

/// Runs a program in a process with chosen ids, and returns how it ended.
pub fn run(mut next: NextId, run: &Run) -> Result<ExitCode> {
    let inherited = crate::heed_children()?;
    let child = next.arm(Pids(&run.pids))?.fork(|| {
        // SAFETY: A program begins with no handlers, so this is none.
        let _ = unsafe { signal(Signal::SIGCHLD, inherited) };
        execute(run)
    })?;
    // As a shell does: what the terminal sends is for the program.
    for interrupt in [Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: No handler is set.
        unsafe { signal(interrupt, SigHandler::SigIgn) }?;
    }
    let status = child.wait()?;
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Becomes the program, or returns what to exit with.
fn execute(run: &Run) -> i32 {
    let (program, arguments) = run.command.split_first().expect("it is a required argument");
    let error = Command::new(program).args(arguments).exec();
    report::tell(format_args!(
        "{BAD}nextid:{BAD:#} cannot run {}: {error}",
        program.to_string_lossy()
    ));
    if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
}

/// A System V IPC object that was created.
#[derive(Serialize)]
pub struct Created {
    #[serde(skip)]
    kind: IpcKind,
    id: i32,
}

impl Created {
    /// Prints its id, or removes it where that cannot be done: nobody would know of it.
    pub fn report(&self, json: bool) -> Result<()> {
        let Self { kind, id } = *self;
        report::print(self, json).with_context(|| match kind.remove(id) {
            Ok(()) => format!("cannot print the id {id}, so the object is removed"),
            Err(error) => format!("cannot print the id {id}, nor remove the object: {error}"),
        })
    }
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.id)
    }
}

pub fn queue(mut next: NextId, queue: &Object) -> Result<Created> {
    let id = next.arm(MessageQueue(queue.id))?.create(queue.key, queue.mode)?;
    Ok(Created { kind: IpcKind::MessageQueue, id })
}

pub fn semaphores(mut next: NextId, set: &cli::SemaphoreSet) -> Result<Created> {
    let armed = next.arm(SemaphoreSet(set.object.id))?;
    let id = armed.create(set.object.key, set.count, set.object.mode)?;
    Ok(Created { kind: IpcKind::SemaphoreSet, id })
}

pub fn segment(mut next: NextId, segment: &Segment) -> Result<Created> {
    let size = usize::try_from(segment.size)?;
    let armed = next.arm(SharedMemory(segment.object.id))?;
    let id = armed.create(segment.object.key, size, segment.object.mode)?;
    Ok(Created { kind: IpcKind::SharedMemory, id })
}
