// SPDX-License-Identifier: GPL-2.0

//! Whether each object gets its id while others create objects too.

use std::time::Instant;

use anyhow::{Result, bail};
use nextid::IpcKind;
use nix::libc::c_int;

use crate::data::Contention;
use crate::harness::Session;
use crate::keys::Group;
use crate::method::{Method, NS_LAST_PID, ipc_id, is_in_use};
use crate::others::Others;
use crate::sys::{self, Child, IdFile, MOST_PIDS, create, set_sysctl};

/// No object is tried more often.
const MAX_TRIES: usize = 100_000;

/// Counts ids that were not had at once.
pub fn measure(session: &mut Session) -> Result<()> {
    let wanted = session.effort.rounds * 5;
    set_sysctl("pid_max", MOST_PIDS)?;
    let others = Others::start_two(|| sys::wait(sys::fork(&[], Child::Exits)?))?;
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

    let others = Others::start_two(|| {
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
