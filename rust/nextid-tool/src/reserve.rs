// SPDX-License-Identifier: GPL-2.0

//! Ids that are held while a program runs: `nextid reserve`, and `nextid run --above`.

use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use criu_images::{Dump, Process};
use nextid::{Error, Kind, Reservation};

use crate::cli::{Join, Reserve};
use crate::program::Program;
use crate::report::{self, NOTE};
use crate::restore;

/// The pid that the kernel chose last.
pub const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

/// Holds the ids of `options` while their program runs, and returns how that ended.
pub fn reserve(options: &Reserve) -> Result<ExitCode> {
    let mut ids: Vec<(Kind, i64)> = options.ids.all().collect();
    if let Some(path) = &options.dump {
        let dump = restore::read(path, &options.reading)?;
        ids.extend(pids(&dump).into_iter().map(|pid| (Kind::Task, pid.into())));
        if let (Some(ipc), true) = (&dump.ipc, options.reading.join.contains(&Join::Ipc)) {
            ids.extend(restore::objects(ipc).map(|(kind, it)| (kind.into(), it.id.into())));
        }
    }
    ensure!(
        !ids.is_empty(),
        "nothing is to be reserved: what the dump has is restored in namespaces of its own, where \
         nothing else is; --join pid or --join ipc says otherwise"
    );
    // One that is told twice is meant once.
    let lists = Kind::ALL.map(|kind| {
        let ids: BTreeSet<i64> = ids.iter().filter(|it| it.0 == kind).map(|it| it.1).collect();
        (kind, Vec::from_iter(ids))
    });
    let program = Program::new(&options.command)?;
    let _held = Reservation::new(lists.iter().map(|(kind, ids)| (*kind, &**ids)))?;
    // The program does not inherit it. Else each daemon that it leaves would keep the ids.
    Program::wait(program.start()?)
}

/// The ids that the tasks of a dump take in the pid namespace of who restores it: also those of
/// groups and sessions whose leader has ended.
fn pids(dump: &Dump) -> BTreeSet<i32> {
    let first = &dump.processes[0];
    if dump.own_pid_namespace {
        return BTreeSet::new();
    }
    let tasks = dump.processes.iter().flat_map(Process::tids);
    // Those of the first process are those of who restores it, where nothing in the tree leads
    // them.
    let outer = [0, first.group, first.session];
    let led = dump.processes.iter().flat_map(|process| [process.group, process.session]);
    tasks.chain(led.filter(|id| !outer.contains(id))).collect()
}

/// Sees to it that the kernel chooses no pid up to `limit`, as long as what is returned is there.
pub fn pids_up_to(limit: i64, fallback: bool) -> Result<Option<Reservation>> {
    // Nothing gets 1.
    let held = match Reservation::of_free_pids(2..=limit) {
        Err(Error::NotSupported(_)) if fallback => raise_last_pid(limit).map(|()| None),
        held @ Err(Error::NotSupported(_)) => {
            held.map(Some).context("without --fallback, this takes reservations")
        }
        held => held.map(Some).map_err(Into::into),
    };
    let held = held.with_context(|| format!("cannot keep to ids above {limit}"))?;
    if held.is_none() {
        report::tell(format_args!(
            "{NOTE}nextid:{NOTE:#} this kernel has no reservations; using ns_last_pid: when the ids \
             of the pid namespace wrap around, what is started gets lower ones"
        ));
    }
    Ok(held)
}

/// Has the kernel choose the next pids above `pid`, unless it is there already.
pub fn raise_last_pid(pid: i64) -> Result<()> {
    let last = fs::read_to_string(LAST_PID).with_context(|| format!("cannot read {LAST_PID}"))?;
    let last: i64 = last.trim().parse().with_context(|| format!("{LAST_PID} is no number"))?;
    if last < pid {
        fs::write(LAST_PID, pid.to_string())
            .with_context(|| format!("cannot write {pid} to {LAST_PID}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use criu_images::Thread;

    use super::*;
    use crate::sample::{self, process};

    fn with_threads(process: Process, threads: &[i32]) -> Process {
        let thread = |&tid| Thread { tid, name: Vec::new() };
        Process { threads: threads.iter().map(thread).collect(), ..process }
    }

    #[test]
    fn ids_of_threads_and_of_leaders_that_have_ended_are_taken() {
        let first = with_threads(process(50, None, 40, 40), &[55]);
        let processes = vec![first, process(51, Some(0), 53, 52), process(60, Some(0), 0, 0)];
        let dump = Dump { own_pid_namespace: false, ..sample::dump(processes) };
        assert_eq!(pids(&dump), BTreeSet::from([50, 51, 52, 53, 55, 60]));
    }

    #[test]
    fn nothing_is_taken_by_a_tree_with_a_pid_namespace_of_its_own() {
        assert!(pids(&sample::dump(vec![process(1, None, 1, 1)])).is_empty());
    }
}
