// SPDX-License-Identifier: GPL-2.0

//! What the rest of the system sees of the objects that were created.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};

use anyhow::{Context, Result};
use nextid::IpcKind;
use nix::sched::{CloneFlags, setns};
use procfs::process::all_processes;

/// The processes and threads below process `root`, by name: their ids, innermost first.
pub fn tasks_below(root: i32) -> Result<HashMap<String, Vec<i64>>> {
    let mut parents = HashMap::new();
    let mut tasks = Vec::new();
    // Processes that end meanwhile are none of ours.
    for process in all_processes()?.flatten() {
        for task in process.tasks().into_iter().flatten().flatten() {
            let Ok(status) = task.status() else { continue };
            parents.insert(process.pid, status.ppid);
            let ids = status.nspid.context("/proc/<pid>/status has no line NSpid")?;
            tasks.push((process.pid, status.name, ids.into_iter().rev().map(i64::from).collect()));
        }
    }
    let is_below = |mut pid| {
        while pid != root {
            match parents.get(&pid) {
                Some(&parent) => pid = parent,
                None => return false,
            }
        }
        true
    };
    tasks.retain(|(tgid, ..)| *tgid != root && is_below(*tgid));
    Ok(tasks.into_iter().map(|(_, name, ids)| (name, ids)).collect())
}

/// The System V IPC objects in the IPC namespace of process `pid`.
pub fn ipc_objects(pid: i32) -> Result<HashSet<(IpcKind, i64)>> {
    let own = File::open("/proc/self/ns/ipc")?;
    let theirs = File::open(format!("/proc/{pid}/ns/ipc"))?;
    setns(&theirs, CloneFlags::CLONE_NEWIPC)?;
    let lists = IpcKind::ALL.map(|kind| (kind, fs::read_to_string(kind.list())));
    setns(&own, CloneFlags::CLONE_NEWIPC)?;

    let mut objects = HashSet::new();
    for (kind, list) in lists {
        let list = list.with_context(|| format!("cannot read {}", kind.list()))?;
        for object in list.lines().skip(1) {
            let id = object.split_whitespace().nth(1).context("a line without an id")?;
            objects.insert((kind, id.parse()?));
        }
    }
    Ok(objects)
}
