// SPDX-License-Identifier: GPL-2.0

//! Who has an id that is in use, as far as `/proc` tells.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

use crate::error::{Action, Error};
use crate::ipc::index_mask;
use crate::kind::{IpcKind, Kind};
use crate::namespace::{Namespace, identity};
use crate::status::Status;

/// Who has an id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder {
    /// A process or thread: it is its own id, or that of its process group or session, whose
    /// leader may be gone.
    Task {
        /// The id that is in use.
        id: i64,
        /// What the id is to the task.
        role: Role,
        /// The id of its process, as `/proc` calls it.
        pid: i32,
        /// The name of the task.
        name: String,
    },
    /// A System V IPC object with the same index.
    Object {
        /// The id that was asked about.
        id: i64,
        /// The kind of both.
        kind: IpcKind,
        /// The id of the object.
        object: i64,
        /// Its key.
        key: i32,
        /// The user who owns it.
        uid: u32,
    },
    /// A reservation, which whoever names the id can use all the same.
    Reservation {
        /// The id that is reserved.
        id: i64,
        /// What it is an id of.
        kind: Kind,
        /// A process that has the reservation, as `/proc` calls it.
        pid: i32,
        /// The name of that process.
        name: String,
    },
}

/// What an id is to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// That of a process.
    Task,
    /// That of a thread which is not the first of its process.
    Thread,
    /// The one of its process group.
    Group,
    /// The one of its session.
    Session,
}

impl Role {
    /// What the ids in a line of a `status` file are to a process.
    const LINES: [(Self, &'static str); 3] =
        [(Self::Task, "NSpid"), (Self::Group, "NSpgid"), (Self::Session, "NSsid")];
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task { id, role: Role::Task, pid, name } => {
                write!(f, "{id} is in use by process {pid} ({name})")
            }
            Self::Task { id, role: Role::Thread, pid, name } => {
                write!(f, "{id} is in use by a thread ({name}) of process {pid}")
            }
            Self::Task { id, role: Role::Group, pid, name } => {
                write!(f, "{id} is in use as the process group of process {pid} ({name})")
            }
            Self::Task { id, role: Role::Session, pid, name } => {
                write!(f, "{id} is in use as the session of process {pid} ({name})")
            }
            Self::Object { id, kind, object, key, uid } => {
                write!(
                    f,
                    "the index of {id} is in use by {kind} {object} (key {key:#010x}, owner {uid})"
                )
            }
            Self::Reservation { id, kind: Kind::Task, pid, name } => {
                write!(f, "{id} is reserved by process {pid} ({name})")
            }
            Self::Reservation { id, kind, pid, name } => {
                write!(f, "{kind} {id} is reserved by process {pid} ({name})")
            }
        }
    }
}

impl Holder {
    /// The id that was asked about.
    #[must_use]
    pub fn id(&self) -> i64 {
        match *self {
            Self::Task { id, .. } | Self::Object { id, .. } | Self::Reservation { id, .. } => id,
        }
    }
}

/// Returns who has one of `ids` in the caller's IPC namespace, or in the pid namespace of the
/// caller's children, as far as `/proc` shows: for each id one of those who have it, if any.
/// Nothing is known of a pseudoterminal.
#[must_use]
pub fn holders(kind: Kind, ids: &[i64]) -> Vec<Holder> {
    let mut wanted: HashSet<i64> = ids.iter().copied().collect();
    if wanted.is_empty() {
        // All of /proc would be read for nothing.
        return Vec::new();
    }
    let mut holders = match kind {
        Kind::Task => tasks(&mut Namespace::of_child().take(1).map(|it| (it, wanted.clone()))),
        Kind::Ipc(kind) => objects(kind, &wanted),
        Kind::Pty => Vec::new(),
    };
    for holder in &holders {
        wanted.remove(&holder.id());
    }
    holders.append(&mut reservations(kind, wanted));
    holders
}

impl Error {
    /// Finds out who has the ids that are in use, where the error is [`Error::Taken`]: as far as
    /// `/proc` shows, and by now. It looks at each process, and so it is for who asks.
    #[must_use]
    pub fn holders(&self) -> Vec<Holder> {
        let Self::Taken { action, ids } = self else {
            return Vec::new();
        };
        match (action, action.kind()) {
            (Action::Reserve(kind), _) => holders(*kind, ids),
            (_, Some(Kind::Task)) => {
                let wanted = ids.iter().map(|&id| HashSet::from([id]));
                tasks(&mut Namespace::of_child().zip(wanted))
            }
            // No reservation is in the way of who names the id.
            (_, Some(Kind::Ipc(kind))) => objects(kind, &ids.iter().copied().collect()),
            _ => Vec::new(),
        }
    }
}

/// The objects of a kind that have the index of one of `ids`.
fn objects(kind: IpcKind, ids: &HashSet<i64>) -> Vec<Holder> {
    let list = fs::read_to_string(kind.list()).unwrap_or_default();
    let mask = index_mask();
    let mut lines = list.lines();
    let columns = lines.next().unwrap_or_default();
    let Some(uid) = columns.split_whitespace().position(|name| name == "uid") else {
        return Vec::new();
    };
    let holder = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let object: i64 = fields.get(1)?.parse().ok()?;
        let (key, uid) = (fields.first()?.parse().ok()?, fields.get(uid)?.parse().ok()?);
        let &id = ids.iter().find(|&id| id & mask == object & mask)?;
        Some(Holder::Object { id, kind, object, key, uid })
    };
    lines.filter_map(holder).collect()
}

/// The tasks that have one of the ids wanted in a pid namespace, one task for each id.
fn tasks(wanted: &mut dyn Iterator<Item = (Namespace, HashSet<i64>)>) -> Vec<Holder> {
    let mut wanted: Vec<_> = wanted.collect();
    let mut holders = Vec::new();
    for pid in processes() {
        // A task may end meanwhile.
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for status in threads.filter_map(|thread| Status::read(thread.path()).ok()) {
            let is_thread = status.field("Pid") != status.field("Tgid");
            for (role, line) in Role::LINES {
                let role = if is_thread && role == Role::Task { Role::Thread } else { role };
                let used = status.ids(line);
                for (namespace, wanted) in &mut wanted {
                    if let Some(id) = namespace.find(wanted, &used, pid) {
                        wanted.remove(&id);
                        holders.push(Holder::Task { id, role, pid, name: printable(&status) });
                    }
                }
            }
        }
    }
    holders
}

/// The reservations that have one of `ids`, as far as they are held in the namespaces of those who
/// have them.
fn reservations(kind: Kind, mut ids: HashSet<i64>) -> Vec<Holder> {
    let (link, mask) = match kind {
        Kind::Task => ("ns/pid_for_children", i64::MAX),
        // An index is reserved, whatever the sequence number.
        Kind::Ipc(_) => ("ns/ipc", index_mask()),
        Kind::Pty => return Vec::new(),
    };
    let own = identity(&format!("thread-self/{link}"), 0);
    let mut holders = Vec::new();
    for pid in processes() {
        if ids.is_empty() {
            break;
        }
        if own.is_none() || identity(&format!("{pid}/{link}"), 0) != own {
            continue;
        }
        let ranges: Vec<_> = reserved_by(pid, kind);
        let mut found = Vec::new();
        ids.retain(|&id| {
            let is_held = ranges
                .iter()
                .any(|range| (range.start() & mask..=range.end() & mask).contains(&(id & mask)));
            if is_held {
                found.push(id);
            }
            !is_held
        });
        found.sort_unstable();
        if found.is_empty() {
            continue;
        }
        let name = Status::read(format!("/proc/{pid}")).map_or(String::new(), |it| printable(&it));
        let holder = |id| Holder::Reservation { id, kind, pid, name: name.clone() };
        holders.extend(found.into_iter().map(holder));
    }
    holders
}

/// What the descriptors of process `pid` reserve of a kind.
fn reserved_by(pid: i32, kind: Kind) -> Vec<RangeInclusive<i64>> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let is_next_id = |link: &Path| fs::read_link(link).is_ok_and(|to| to.ends_with("next_id"));
    descriptors
        .filter(|descriptor| is_next_id(&descriptor.path()))
        .filter_map(|descriptor| {
            let number = descriptor.file_name().into_string().ok()?;
            fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()
        })
        .flat_map(|info| parse_reserved(&info, kind))
        .collect()
}

/// Reads the line `reserved: PID 42-44,512` of a kind; of IPC objects, it has the indexes.
fn parse_reserved(info: &str, kind: Kind) -> Vec<RangeInclusive<i64>> {
    let of_kind = |line: &str| {
        let (word, list) = line.strip_prefix("reserved:")?.trim().split_once(' ')?;
        (word == kind.word()).then(|| list.to_owned())
    };
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    let lists: Vec<String> = info.lines().filter_map(of_kind).collect();
    lists.iter().flat_map(|list| list.split(',').filter_map(range)).collect()
}

/// All processes that `/proc` shows.
fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The name of a task, which may hold what a terminal would obey.
fn printable(status: &Status) -> String {
    status.name().replace(char::is_control, "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> i64 {
        std::process::id().into()
    }

    #[test]
    fn a_process_is_found_by_its_id() {
        let holders = holders(Kind::Task, &[own(), i32::MAX.into()]);
        let [Holder::Task { id, role, pid, .. }] = *holders else { panic!("{holders:?}") };
        assert_eq!((id, role, i64::from(pid)), (own(), Role::Task, own()));
    }

    #[test]
    fn a_thread_is_found_by_its_id() {
        let thread =
            std::thread::spawn(|| holders(Kind::Task, &[nix::unistd::gettid().as_raw().into()]));
        let holders = thread.join().expect("to end");
        let [Holder::Task { role, pid, .. }] = *holders else { panic!("{holders:?}") };
        assert_eq!((role, i64::from(pid)), (Role::Thread, own()));
    }

    #[test]
    fn a_task_is_found_whatever_its_name() {
        fs::write("/proc/thread-self/comm", b"caf\xc3").expect("to write");
        let tid = nix::unistd::gettid().as_raw().into();
        let ids = (&[tid][..]).into();
        let refused = Error::Taken { action: Action::Fork, ids };
        for found in [holders(Kind::Task, &[tid]), refused.holders()] {
            let [Holder::Task { id, name, .. }] = &*found else { panic!("{found:?}") };
            assert_eq!((*id, &**name), (tid, "caf\u{fffd}"));
        }
    }

    #[test]
    fn an_id_that_is_not_in_use_has_no_holder() {
        assert_eq!(holders(Kind::Task, &[i32::MAX.into()]), []);
    }

    #[test]
    fn what_a_descriptor_reserves_is_read() {
        let info = "pos:\t0\nflags:\t02000001\nreserved: PID 42-44,512\nreserved: SHM 9\n";
        assert_eq!(parse_reserved(info, Kind::Task), [42..=44, 512..=512]);
        assert_eq!(parse_reserved(info, IpcKind::SharedMemory.into()), [9..=9]);
        assert_eq!(parse_reserved(info, IpcKind::MessageQueue.into()), []);
    }
}
