// SPDX-License-Identifier: GPL-2.0

//! Whether the cost of an object stays flat where there are many.

use anyhow::{Context, Result};
use nextid::IpcKind;

use crate::harness::{Competitor, Session, per_operation};
use crate::keys::{Case, Group};
use crate::method::{Method, NEXT_ID, ipc_id, write_command};
use crate::sys::{Child, IdFile, MOST_PIDS, kill, set_sysctl, sysctl};

/// So many objects are timed together.
const BATCH: u64 = 10;

/// At most so many batches are kept of those before each size.
const BATCHES: usize = 100;

/// The counts of ids at which lists are timed: powers of ten, and what just fits the kernel's list
/// inline or in whole pages.
const LISTS: [usize; 11] = [1, 10, 32, 33, 100, 512, 1_000, 4_096, 10_000, 32_768, 65_536];

/// Pids from here up are free, once there are more than 32768.
const FIRST_PID: i32 = 1 << 20;

/// Measures IPC objects, processes and lists of ids.
pub fn measure(session: &mut Session) -> Result<()> {
    messages(session)?;
    processes(session)?;
    lists(session)
}

fn messages(session: &mut Session) -> Result<()> {
    const KIND: IpcKind = IpcKind::MessageQueue;

    let most = session.effort.objects;
    set_sysctl("msgmni", most)?;
    let first = ipc_id(0)?;
    let methods = [Method::None, Method::next_id()?, Method::Sysctl(IdFile::open(&sysctl(KIND))?)];
    for method in methods {
        let case = method.case();
        let create = |n| {
            let wanted = first + i32::try_from(n)?;
            let id = method.ipc(KIND, wanted)?;
            method.check(wanted, id)?;
            Ok(id)
        };
        let ids = grow(session, Group::ManyQueues, case, most, create)?;
        ids.into_iter().rev().try_for_each(|id| KIND.remove(id))?;
    }
    Ok(())
}

fn processes(session: &mut Session) -> Result<()> {
    let most = session.effort.processes;
    set_sysctl("pid_max", MOST_PIDS)?;
    set_sysctl("threads-max", 2 * most)?;
    for method in [Method::None, Method::next_id()?, Method::SetTid] {
        let case = method.case();
        let create = |n| {
            let wanted = FIRST_PID + i32::try_from(n)?;
            let pid = method.process(&[wanted], Child::Pauses)?;
            method.check(wanted, pid)?;
            Ok(pid)
        };
        let pids = grow(session, Group::ManyProcesses, case, most, create)?;
        pids.into_iter().try_for_each(kill)?;
    }
    Ok(())
}

/// Creates `most` objects. For each power of ten on the way, what one of the last objects took is
/// kept.
fn grow<T>(
    session: &mut Session,
    group: Group,
    case: Case,
    most: u64,
    mut create: impl FnMut(u64) -> Result<T>,
) -> Result<Vec<T>> {
    let clock = session.clock;
    let mut objects = Vec::new();
    let mut rounds = Vec::new();
    let mut size = BATCH;
    while (objects.len() as u64) < most {
        let done = objects.len() as u64;
        session.progress(&format!("{group}, {case}"), objects.len(), usize::try_from(most)?);
        let start = clock.now();
        for n in done..done + BATCH {
            objects.push(create(n).with_context(|| format!("{group}: {case}, number {n}"))?);
        }
        rounds.push(per_operation(clock.now() - start, usize::try_from(BATCH)?));
        let done = done + BATCH;
        if done == size || done == most {
            let last = (rounds.len() / 2).max(rounds.len().saturating_sub(BATCHES));
            session.record(group, case, Some(done), rounds.split_off(last));
            rounds.clear();
            size *= 10;
        }
    }
    Ok(objects)
}

/// Arms lists, each in place of the one before. The time is that of one id.
fn lists(session: &mut Session) -> Result<()> {
    let next_id = IdFile::open(NEXT_ID)?;
    let most = usize::try_from(session.effort.objects)?;
    for size in LISTS.into_iter().filter(|&size| size <= most) {
        let command = list_command(size);
        let competitor = Competitor::new(Case::NextId, || next_id.write(&command));
        session.compare_each(Group::List, size, vec![competitor])?;
    }
    next_id.write(b"RESET")
}

/// Asks for `size` ids, as long as pids commonly are.
pub fn list_command(size: usize) -> Vec<u8> {
    let ids: Vec<u32> = (10_000..).take(size).collect();
    let mut command = vec![0; "LONG65536".len() + size * " 75535".len()];
    let len = write_command(&mut command, &ids);
    command.truncate(len);
    command
}
