// SPDX-License-Identifier: GPL-2.0

//! Single objects: `nextid run`, `msg`, `sem` and `shm`.

use std::fmt;
use std::process::ExitCode;

use anyhow::{Context, Result};
use nextid::{IpcKind, MessageQueue, NextId, Pids, SemaphoreSet, SharedMemory};
use nix::unistd::{Pid, getpid};
use serde::Serialize;

use crate::cli::{self, Object, Run, Segment};
use crate::failure::{self, Failure};
use crate::program::Program;
use crate::{method, report, reserve};

/// Runs a program in a process with chosen ids, or with ids above a limit, and returns how it
/// ended.
pub fn run(fallback: bool, run: &Run) -> Result<ExitCode> {
    if let (Some(limit), Some(&pid)) = (run.above, run.pids.first()) {
        if pid <= limit {
            let text = format!("--pid {pid} is not above the limit that --above gives, {limit}");
            return Err(Failure::new(failure::WRONG_COMMAND_LINE, text).into());
        }
    }
    let program = Program::new(&run.command)?;
    let _held = run.above.map(|limit| reserve::pids_up_to(limit, fallback)).transpose()?;
    let child = if run.pids.is_empty() {
        program.start()?
    } else {
        // Only in a namespace of its own: elsewhere, others would get the ids that are asked for
        // next.
        let is_first = getpid().as_raw() == 1;
        let mut next = method::open(fallback)?;
        let child = next.arm(Pids(&run.pids))?.fork(|| {
            if is_first {
                // Without it, ids just come in another order.
                let _ = reserve::raise_last_pid(run.pids[0]);
            }
            program.execute()
        })?;
        Pid::from_raw(child.pid())
    };
    Program::wait(child)
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
