// SPDX-License-Identifier: GPL-2.0

//! What it costs to create an object with a chosen id.

use anyhow::Result;
use nix::libc::pid_t;

use crate::data::Measurement;
use crate::harness::{Case, Session};
use crate::ids::{Method, ipc_id};
use crate::nest::nested;
use crate::sys::{Child, Kind, wait};

/// How many nested pid namespaces a process is restored in. The kernel allows 33.
const LEVELS: [usize; 5] = [1, 2, 4, 8, 32];

/// Ids that nothing else has here.
const FREE_ID: pid_t = 20_000;

/// Each method has ids of its own, so far apart: after `ns_last_pid`, the kernel's own threads get the
/// ids that follow. A thread may still have its id when it has told that it ends: so many take turns.
const APART: usize = 2000;

/// Measures processes, threads and IPC objects.
pub fn measure(session: &mut Session) -> Result<()> {
    for levels in LEVELS {
        let measurements = nested(levels - 1, || processes(session, levels))?;
        session.measurements.extend(measurements);
    }
    threads(session)?;
    for kind in Kind::ALL {
        ipc(session, kind)?;
    }
    Ok(())
}

/// Forks in `levels` pid namespaces, and returns what was measured there.
fn processes(session: &mut Session, levels: usize) -> Result<Vec<Measurement>> {
    let ids = (FREE_ID..).step_by(APART);
    let cases = Method::all_for_tasks(levels)?.into_iter().zip(ids).map(|(method, id)| {
        let (name, ids) = (method.name(), vec![id; levels]);
        Case::new(name, move || {
            let pid = method.process(&ids, Child::Exits)?;
            method.check(ids[0], pid)?;
            Ok(wait(pid)?)
        })
    });
    session.measurements.clear();
    session.compare("fork, exit and wait", Some(levels as u64), cases.collect())?;
    Ok(std::mem::take(&mut session.measurements))
}

fn threads(session: &mut Session) -> Result<()> {
    let ranges = (FREE_ID..).step_by(APART);
    let cases = Method::all_for_tasks(1)?.into_iter().zip(ranges).map(|(method, first)| {
        let name = method.name();
        let mut ids = (first..).take(APART).cycle();
        Case::new(name, move || {
            let id = ids.next().expect("a cycle has no end");
            let tid = method.thread(&[id])?;
            method.check(id, tid)
        })
    });
    session.compare("thread", None, cases.collect())
}

fn ipc(session: &mut Session, kind: Kind) -> Result<()> {
    let first = ipc_id(0)?;
    let cases = Method::all_for_ipc(kind)?.into_iter().map(|method| {
        let name = method.name();
        let create = move |i| {
            let wanted = first + i32::try_from(i)?;
            let id = method.ipc(kind, wanted)?;
            method.check(wanted, id)?;
            Ok(id)
        };
        Case::creation(name, create, move |id| Ok(kind.remove(id)?))
    });
    session.compare(kind.name(), None, cases.collect())
}
