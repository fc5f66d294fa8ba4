// SPDX-License-Identifier: GPL-2.0

//! Who has an id that is in use, as far as `/proc` tells.

use std::fmt;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::libc;

use crate::task::visible_levels;
use crate::{Action, Id};

/// Who has an id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holder {
    /// A process or thread: it is its own id, or that of its process group or session, whose
    /// leader may be gone.
    Task {
        /// The id that is in use.
        id: Id,
        /// What the id is to the task.
        role: Role,
        /// The id of its process, as `/proc` calls it.
        pid: i32,
        /// The name of the task.
        name: String,
    },
    /// A System V IPC object of the same kind, with the same index.
    Object {
        /// Its id.
        id: Id,
        /// Its key.
        key: i32,
        /// The user who owns it.
        uid: u32,
    },
}

/// What an id is to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its own.
    Task,
    /// The one of its process group.
    Group,
    /// The one of its session.
    Session,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task { id, role: Role::Task, pid, name } => {
                write!(f, "{id} is in use by process {pid} ({name})")
            }
            Self::Task { id, role: Role::Group, pid, name } => {
                write!(f, "{id} is in use as the process group of process {pid} ({name})")
            }
            Self::Task { id, role: Role::Session, pid, name } => {
                write!(f, "{id} is in use as the session of process {pid} ({name})")
            }
            Self::Object { id, key, uid } => {
                write!(f, "its index is in use by {id} (key {key:#010x}, owner {uid})")
            }
        }
    }
}

impl Holder {
    /// Finds out who has one of `ids`, which `action` asked for.
    pub(crate) fn find(action: Action, ids: &[Id]) -> Option<Self> {
        match action.sysvipc() {
            Some(list) => find_object(list, *ids.first()?),
            None => find_task(ids),
        }
    }
}

/// The object in the list `/proc/sysvipc/<list>` that has the index of `wanted`.
fn find_object(list: &str, wanted: Id) -> Option<Holder> {
    let list = fs::read_to_string(format!("/proc/sysvipc/{list}")).ok()?;
    let mut lines = list.lines();
    let uid = lines.next()?.split_whitespace().position(|name| name == "uid")?;
    lines.find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let id = fields.get(1)?.parse().ok()?;
        let (key, uid) = (fields.first()?.parse().ok()?, fields.get(uid)?.parse().ok()?);
        (index(id) == index(wanted)).then_some(Holder::Object { id, key, uid })
    })
}

/// The index in an IPC id, where an IPC namespace has room for 32768 objects of a kind.
fn index(id: Id) -> Id {
    id & 0x7fff
}

/// The task that has one of `ids`, which begin at the pid namespace that a child would be in.
fn find_task(ids: &[Id]) -> Option<Holder> {
    let wanted = Wanted::of_child(ids)?;
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(threads) = fs::read_dir(process.path().join("task")) else { continue };
        for thread in threads.flatten() {
            let Ok(status) = fs::read_to_string(thread.path().join("status")) else { continue };
            for (role, used) in roles(&status) {
                if let Some(wanted) = wanted.iter().find(|wanted| wanted.is_in(&used, pid)) {
                    let name = line(&status, "Name").unwrap_or_default().to_owned();
                    return Some(Holder::Task { id: wanted.id, role, pid, name });
                }
            }
        }
    }
    None
}

/// An id that is wanted in a pid namespace.
struct Wanted {
    id: Id,
    /// The level of the pid namespace, counted from that of `/proc` inwards.
    level: usize,
    /// None where the caller is too deep in to see it.
    namespace: Option<(u64, u64)>,
}

impl Wanted {
    /// The `ids` of a child, as far as their pid namespaces exist and `/proc` sees them.
    fn of_child(ids: &[Id]) -> Option<Vec<Self>> {
        let levels = visible_levels()?;
        let status = fs::read_to_string("/proc/thread-self/status").ok()?;
        let own = status_ids(&status, "NSpid")?.len();
        let levels = (0..levels).rev();
        let wanted = ids.iter().zip(levels).filter(|&(_, level)| level < own);
        let wanted = wanted.map(|(&id, level)| {
            let namespace = namespace("thread-self", own - 1 - level);
            Self { id, level, namespace }
        });
        Some(wanted.collect())
    }

    /// Whether it is one of the ids `used` by process `pid`, in the same namespace.
    fn is_in(&self, used: &[Id], pid: i32) -> bool {
        let is_same_namespace = || {
            // All that /proc shows is in the namespace of /proc.
            let theirs = || namespace(&pid.to_string(), used.len() - 1 - self.level);
            self.level == 0 || (self.namespace.is_some() && self.namespace == theirs())
        };
        used.get(self.level) == Some(&self.id) && is_same_namespace()
    }
}

/// The ids that a task uses, each from the pid namespace of `/proc` inwards.
fn roles(status: &str) -> impl Iterator<Item = (Role, Vec<Id>)> {
    [(Role::Task, "NSpid"), (Role::Group, "NSpgid"), (Role::Session, "NSsid")]
        .into_iter()
        .filter_map(|(role, name)| Some((role, status_ids(status, name)?)))
}

fn status_ids(status: &str, name: &str) -> Option<Vec<Id>> {
    line(status, name)?.split_whitespace().map(|id| id.parse().ok()).collect()
}

fn line<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// The identity of the pid namespace that is `climb` levels above that of process `pid`.
fn namespace(pid: &str, climb: usize) -> Option<(u64, u64)> {
    /// `NS_GET_PARENT` of `<linux/nsfs.h>`.
    const NS_GET_PARENT: libc::Ioctl = 0xb702;

    let mut file = File::open(format!("/proc/{pid}/ns/pid")).ok()?;
    for _ in 0..climb {
        // SAFETY: The request takes no argument.
        let parent = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_PARENT) };
        if parent < 0 {
            return None;
        }
        // SAFETY: The request returns a new descriptor.
        file = unsafe { OwnedFd::from_raw_fd(parent) }.into();
    }
    let metadata = file.metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_id() {
        let own = Id::from(std::process::id());
        let Some(Holder::Task { id, role, pid, .. }) = find_task(&[own]) else {
            panic!("{own} is in use");
        };
        assert_eq!((id, role, Id::from(pid)), (own, Role::Task, own));
    }

    #[test]
    fn an_id_that_is_not_in_use_has_no_holder() {
        assert_eq!(find_task(&[i32::MAX.into()]), None);
    }
}
