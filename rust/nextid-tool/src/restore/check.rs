// SPDX-License-Identifier: GPL-2.0

//! What can be known to fail, before anything is made.

use std::collections::BTreeSet;
use std::{fmt, fs};

use anyhow::{Context, Error, Result};
use criu_images::{Dump, Ipc, Permissions, State};
use nextid::Status;
use nix::sys::utsname::uname;
use nix::unistd::getpid;

use super::ipc::{self, Place};
use super::plan::Plan;
use super::{ending, huge_pages};
use crate::failure::{self, Failure};

/// What stands in the way of making `plan` of `dump`, but for ids in use.
pub fn hindrances(dump: &Dump, plan: &Plan, place: Place) -> Result<Vec<Error>> {
    let mut found: Vec<Error> = Vec::new();
    found.extend(pid_max(dump, plan)?.map(Error::new));
    found.extend(levels(dump, plan)?.map(Error::new));
    found.extend(ending::hindrance(dump)?.map(Error::new));
    let Some(ipc) = &dump.ipc else { return Ok(found) };
    found.extend(owners(dump, ipc)?.map(Error::new));
    if place == Place::Current {
        found.extend(ipc::exceeded_limits(ipc)?.into_iter().map(Error::new));
        found.extend(ipc::keys_in_use(ipc)?.map(Error::new));
        found.extend(ipc::forced_removal(ipc)?.map(Error::new));
    }
    found.extend(huge_pages::hindrances(ipc).into_iter().map(Error::new));
    found.extend(ipc.segments.iter().filter_map(|segment| Some(segment.check().err()?.into())));
    Ok(found)
}

/// Why nextid cannot leave the tree of `dump` running.
pub fn detaching(dump: &Dump) -> Option<Failure> {
    if getpid().as_raw() == 1 {
        return Some(Failure::new(
            failure::OTHER,
            "nextid is the first process of its pid namespace, all of which ends with it: run it \
             without --detach, or below an init",
        ));
    }
    // The kernel lets stopped processes go on when the end of their parent orphans their group.
    let first = &dump.processes[0];
    let stopped_init = dump.own_pid_namespace && first.state == State::Stopped;
    (stopped_init && first.session != first.pid).then(|| {
        Failure::new(
            failure::OTHER,
            "process 1 of the dump is stopped, and in the session of who restores it, at whose end \
             the kernel lets it go on: run nextid without --detach",
        )
    })
}

/// The ids that are too large.
fn pid_max(dump: &Dump, plan: &Plan) -> Result<Option<Failure>> {
    let mut ids = plan.outer_ids(dump);
    if !dump.own_pid_namespace || !has_limit_of_its_own() {
        ids.extend(plan.ids(dump));
    }
    if ids.is_empty() {
        return Ok(None);
    }
    let limit = fs::read_to_string("/proc/sys/kernel/pid_max").context("cannot read pid_max")?;
    let limit: i64 = limit.trim().parse().context("kernel.pid_max is no number")?;
    let ids: BTreeSet<i64> = ids.into_iter().filter(|&id| id >= limit).collect();
    Ok(ids.last().map(|last| Failure {
        status: failure::OUT_OF_RANGE,
        text: format!(
            "ids must be below kernel.pid_max, which is {limit}, and {} not: {}; \
             sysctl kernel.pid_max={} raises it",
            if ids.len() == 1 { "one is" } else { "some are" },
            list(&ids),
            last + 1
        ),
    }))
}

/// Ids further out than there are pid namespaces.
fn levels(dump: &Dump, plan: &Plan) -> Result<Option<Failure>> {
    let Some((pid, outer)) = plan.outer.iter().max_by_key(|(_, outer)| outer.len()) else {
        return Ok(None);
    };
    let own = Status::read("/proc/thread-self").context("cannot read /proc/thread-self/status")?;
    let around = own.ids("NSpid").len() - usize::from(!dump.own_pid_namespace);
    Ok((outer.len() > around).then(|| {
        Failure::new(
            failure::OUT_OF_RANGE,
            format!(
                "--outer-pid gives {pid} {} ids further out, and there are {around} pid namespaces \
                 around that of the tree, as far as /proc shows",
                outer.len()
            ),
        )
    }))
}

/// Whether a new pid namespace begins with the largest limit, whatever it is here: since Linux
/// 6.14.
fn has_limit_of_its_own() -> bool {
    uname().is_ok_and(|it| since(&it.release().to_string_lossy(), (6, 14)))
}

/// Whether the kernel `release` is `version`, or a later one.
fn since(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(|it: char| !it.is_ascii_digit()).map(str::parse);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= version)
}

/// The first of `items`, and how many more there are.
fn list<T: ToString>(items: &BTreeSet<T>) -> String {
    const MOST: usize = 10;

    let text = items.iter().take(MOST).map(T::to_string).collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(MOST) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// The owners of objects that are nobody here: a number means what it means in a user namespace.
fn owners(dump: &Dump, ipc: &Ipc) -> Result<Option<Failure>> {
    let objects: Vec<Permissions> = ipc::objects(ipc).map(|(_, it)| it).collect();
    if objects.is_empty() {
        return Ok(None);
    }
    let (users, groups) = (Map::read("uid_map")?, Map::read("gid_map")?);
    let hindrance = |text| Ok(Some(Failure { status: failure::OUT_OF_RANGE, text }));
    if dump.own_user_namespace && users.is_initial() {
        return hindrance(
            "the dump has a user namespace of its own, which says who owns its IPC objects, and \
             which this tool does not make: run it inside one"
                .to_owned(),
        );
    }
    let unknown = |map: &Map, owner: fn(&Permissions) -> u32| -> BTreeSet<u32> {
        objects.iter().map(owner).filter(|&id| !map.has(id)).collect()
    };
    let (uids, gids) = (unknown(&users, |it| it.uid), unknown(&groups, |it| it.gid));
    let told = [("users", &uids, &users), ("groups", &gids, &groups)];
    let told = told.into_iter().filter(|(_, ids, _)| !ids.is_empty());
    let told = told.map(|(what, ids, map)| format!("{what} {}, where {map}", list(ids)));
    let told = told.collect::<Vec<_>>().join("; and ");
    if told.is_empty() {
        return Ok(None);
    }
    hindrance(format!(
        "IPC objects belong to {told}: run it in a user namespace that has them, too"
    ))
}

/// Which users or groups the user namespace of this process has.
struct Map {
    file: &'static str,
    /// The first id, the one outside that it is, and how many follow each other.
    ranges: Vec<[u32; 3]>,
}

impl Map {
    fn read(file: &'static str) -> Result<Self> {
        let path = format!("/proc/self/{file}");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let range = |line: &str| {
            let numbers: Option<Vec<u32>> =
                line.split_whitespace().map(|it| it.parse().ok()).collect();
            numbers?.try_into().ok()
        };
        let ranges: Option<Vec<[u32; 3]>> = text.lines().map(range).collect();
        Ok(Self { file, ranges: ranges.with_context(|| format!("{path} has no ranges"))? })
    }

    /// The initial user namespace has all ids, each as itself.
    fn is_initial(&self) -> bool {
        self.ranges == [[0, 0, u32::MAX]]
    }

    fn has(&self, id: u32) -> bool {
        self.ranges.iter().any(|&[first, _, count]| id.wrapping_sub(first) < count)
    }
}

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/proc/self/{} has", self.file)?;
        for (i, &[first, _, count]) in self.ranges.iter().enumerate() {
            let last = u64::from(first) + u64::from(count) - 1;
            let comma = if i == 0 { "" } else { "," };
            if count == 1 {
                write!(f, "{comma} {first}")?;
            } else {
                write!(f, "{comma} {first} to {last}")?;
            }
        }
        if self.ranges.is_empty() { f.write_str(" none") } else { f.write_str(" only") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_kernels() {
        assert!(since("6.14.0-rc1", (6, 14)) && since("7.3.4", (6, 14)) && since("7.0", (6, 14)));
        assert!(!since("6.13.12+deb", (6, 14)) && !since("5.15", (6, 14)) && !since("?", (6, 14)));
    }

    #[test]
    fn a_map_has_its_ranges_only() {
        let map = Map { file: "uid_map", ranges: vec![[0, 1000, 1], [5, 100_000, 10]] };
        let has: Vec<u32> = (0..20).filter(|&id| map.has(id)).collect();
        assert_eq!(has, [0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
        assert_eq!(map.to_string(), "/proc/self/uid_map has 0, 5 to 14 only");
    }

    #[test]
    fn a_long_list_is_cut() {
        let items: BTreeSet<u32> = (1..=12).collect();
        assert_eq!(list(&items), "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more");
    }
}
