// SPDX-License-Identifier: GPL-2.0

//! What the rest of the system sees of the objects that were restored.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result};
use nextid::Id;
use nix::sched::{CloneFlags, setns};

use crate::scene::Kind;

/// The processes and threads below process `root`, by name: their ids, innermost first.
pub fn tasks_below(root: i32) -> Result<HashMap<String, Vec<Id>>> {
    let mut parents = HashMap::new();
    let mut tasks = Vec::new();
    for tgid in numbered(Path::new("/proc"))? {
        // Processes that end meanwhile are none of ours.
        let Ok(threads) = numbered(Path::new(&format!("/proc/{tgid}/task"))) else { continue };
        for tid in threads {
            let path = format!("/proc/{tgid}/task/{tid}/status");
            let Ok(status) = fs::read_to_string(path) else { continue };
            parents.insert(tgid, field(&status, "PPid")?);
            let ids = line(&status, "NSpid")?.split_whitespace().rev().map(Id::from_str);
            let ids = ids.collect::<Result<Vec<_>, _>>()?;
            tasks.push((tgid, line(&status, "Name")?.to_owned(), ids));
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
pub fn ipc_objects(pid: i32) -> Result<HashSet<(Kind, Id)>> {
    let own = File::open("/proc/self/ns/ipc")?;
    let theirs = File::open(format!("/proc/{pid}/ns/ipc"))?;
    setns(&theirs, CloneFlags::CLONE_NEWIPC)?;
    let lists = [Kind::Queue, Kind::Semaphores, Kind::Segment]
        .map(|kind| (kind, fs::read_to_string(kind.list())));
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

/// The entries of a folder in `/proc` that are numbers.
fn numbered(folder: &Path) -> Result<Vec<i32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(numbers)
}

fn line<'a>(status: &'a str, name: &str) -> Result<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
        .with_context(|| format!("/proc/<pid>/status has no line {name}"))
}

fn field(status: &str, name: &str) -> Result<i32> {
    Ok(line(status, name)?.parse()?)
}
