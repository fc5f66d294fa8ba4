// SPDX-License-Identifier: GPL-2.0

//! Whether each object gets its id while others create objects too.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use nextid::IpcKind;
use nix::libc::{self, c_int};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork as fork_program};

use crate::data::Contention;
use crate::harness::Session;
use crate::keys::Group;
use crate::method::{Method, NS_LAST_PID, ipc_id, is_in_use};
use crate::sys::{self, Child, IdFile, MOST_PIDS, create, set_sysctl};

/// So many processes do nothing but create and destroy objects.
const OTHERS: usize = 2;

/// No object is tried more often.
const MAX_TRIES: usize = 100_000;

/// Counts ids that were not had at once.
pub fn measure(session: &mut Session) -> Result<()> {
    let wanted = session.effort.rounds * 5;
    set_sysctl("pid_max", MOST_PIDS)?;
    let others = Others::start(|| sys::wait(sys::fork(&[], Child::Exits)?))?;
    let methods = [
        Method::next_id()?,
        Method::SetTid,
        Method::Sysctl(IdFile::open(NS_LAST_PID)?),
        Method::SysctlOnce(NS_LAST_PID.to_owned()),
    ];
    for (method, first) in methods.into_iter().zip((1_000_000..).step_by(500_000)) {
        let create = |method: &Method, i: c_int| {
            // Not one after another: a cursor that was moved must not be right by chance.
            let pid = first + 7 * i;
            Ok((pid, method.process(&[pid], Child::Exits)?))
        };
        count(session, Group::Process, &method, wanted, create, sys::wait)?;
    }
    others.end()?;

    let others = Others::start(|| {
        create(IpcKind::MessageQueue).and_then(|id| IpcKind::MessageQueue.remove(id))
    })?;
    let first = ipc_id(1000)?;
    for method in Method::all_for_ipc(IpcKind::MessageQueue)?.into_iter().skip(1) {
        let create = |method: &Method, i: c_int| {
            Ok((first + i, method.ipc(IpcKind::MessageQueue, first + i)?))
        };
        count(session, Group::MessageQueue, &method, wanted, create, |id| {
            IpcKind::MessageQueue.remove(id)
        })?;
    }
    others.end()
}

/// Creates objects by `create`, which returns the id wanted and the id got, each until it is right.
fn count(
    session: &mut Session,
    group: Group,
    method: &Method,
    wanted: usize,
    create: impl Fn(&Method, c_int) -> Result<(c_int, c_int)>,
    remove: impl Fn(c_int) -> std::io::Result<()>,
) -> Result<()> {
    let case = method.case();
    let (mut wrong, mut refused) = (0, 0);
    let start = Instant::now();
    for i in 0..wanted {
        session.progress(&format!("{group} beside others, {case}"), i, wanted);
        for tries in 1.. {
            match create(method, c_int::try_from(i)?) {
                Ok((id, got)) => {
                    remove(got)?;
                    if id == got {
                        break;
                    }
                    wrong += 1;
                }
                Err(error) if is_in_use(&error) => refused += 1,
                Err(error) => return Err(error),
            }
            if tries == MAX_TRIES {
                bail!("{group}, {case}: no success in {tries} tries");
            }
        }
    }
    session.contention.push(Contention {
        group,
        case,
        wanted: wanted as u64,
        wrong,
        refused,
        milliseconds: start.elapsed().as_secs_f64() * 1000.0,
    });
    Ok(())
}

/// Processes that do the same thing again and again until they are ended.
struct Others(Vec<Pid>);

impl Others {
    fn start(turn: impl Fn() -> std::io::Result<()>) -> Result<Self> {
        let mut others = Self(Vec::new());
        for _ in 0..OTHERS {
            // SAFETY: This process has no other thread.
            match unsafe { fork_program() }? {
                ForkResult::Parent { child } => others.0.push(child),
                ForkResult::Child => {
                    while turn().is_ok() {}
                    // SAFETY: It has no preconditions.
                    unsafe { libc::_exit(1) }
                }
            }
        }
        Ok(others)
    }

    /// Ends them. It is an error where one had ended before: what was measured was not beside all.
    fn end(mut self) -> Result<()> {
        while let Some(pid) = self.0.pop() {
            let ended = end(pid)?;
            ensure!(
                matches!(ended, WaitStatus::Signaled(_, Signal::SIGKILL, _)),
                "a process that others were to be measured beside ended early: {ended:?}"
            );
        }
        Ok(())
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for &pid in &self.0 {
            // There is an error already.
            let _ = end(pid);
        }
    }
}

/// Kills a child, which may have ended by itself, and tells how it ended.
fn end(child: Pid) -> nix::Result<WaitStatus> {
    kill(child, Signal::SIGKILL)?;
    waitpid(child, None)
}
