// SPDX-License-Identifier: GPL-2.0

//! What it costs to create an object with a chosen id.

use anyhow::Result;
use nextid::IpcKind;
use nix::libc::pid_t;

use crate::data::Measurement;
use crate::harness::{Competitor, Session};
use crate::keys::Group;
use crate::method::{Method, ipc_id};
use crate::nest::nested;
use crate::sys::{Child, wait};

/// In how many nested pid namespaces a process is created. The kernel allows 33.
const LEVELS: [usize; 5] = [1, 2, 4, 8, 32];

/// Ids that nothing else has here.
const FREE_ID: pid_t = 20_000;

/// How many ids each method has for itself. After `ns_last_pid`, the kernel's own threads get the
/// ids that follow; and a thread may still have its id for a moment after its end, so that the ids
/// take turns.
const IDS_PER_METHOD: usize = 2000;

/// Measures processes, threads and IPC objects.
pub fn measure(session: &mut Session) -> Result<()> {
    for levels in LEVELS {
        let measurements = nested(levels - 1, || processes(session, levels))?;
        session.measurements.extend(measurements);
    }
    threads(session)?;
    for kind in IpcKind::ALL {
        ipc(session, kind)?;
    }
    Ok(())
}

/// Forks in `levels` pid namespaces, and returns what was measured there.
fn processes(session: &mut Session, levels: usize) -> Result<Vec<Measurement>> {
    let ids = (FREE_ID..).step_by(IDS_PER_METHOD);
    let competitors = Method::all_for_tasks(levels)?.into_iter().zip(ids).map(|(method, id)| {
        let (case, ids) = (method.case(), vec![id; levels]);
        Competitor::new(case, move || {
            let pid = method.process(&ids, Child::Exits)?;
            method.check(ids[0], pid)?;
            Ok(wait(pid)?)
        })
    });
    session.measurements.clear();
    session.compare(Group::Process, Some(levels as u64), competitors.collect())?;
    Ok(std::mem::take(&mut session.measurements))
}

fn threads(session: &mut Session) -> Result<()> {
    let ranges = (FREE_ID..).step_by(IDS_PER_METHOD);
    let competitors = Method::all_for_tasks(1)?.into_iter().zip(ranges).map(|(method, first)| {
        let case = method.case();
        let mut ids = (first..).take(IDS_PER_METHOD).cycle();
        Competitor::new(case, move || {
            let id = ids.next().expect("a cycle has no end");
            let tid = method.thread(&[id])?;
            method.check(id, tid)
        })
    });
    session.compare(Group::Thread, None, competitors.collect())
}

fn ipc(session: &mut Session, kind: IpcKind) -> Result<()> {
    let first = ipc_id(0)?;
    let competitors = Method::all_for_ipc(kind)?.into_iter().map(|method| {
        let case = method.case();
        let create = move |i| {
            let wanted = first + i32::try_from(i)?;
            let id = method.ipc(kind, wanted)?;
            method.check(wanted, id)?;
            Ok(id)
        };
        Competitor::creation(case, create, move |id| Ok(kind.remove(id)?))
    });
    session.compare(Group::of(kind), None, competitors.collect())
}
