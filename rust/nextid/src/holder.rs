// SPDX-License-Identifier: GPL-2.0

//! Who has an id that is in use, as far as `/proc` tells.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::libc;

use crate::ipc::index_bits;
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
    fn task(id: Id, role: Role, pid: i32, status: &str) -> Self {
        // It may hold what a terminal would obey.
        let name = line(status, "Name").unwrap_or_default().replace(char::is_control, "?");
        Self::Task { id, role, pid, name }
    }

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
    let mask = (1 << index_bits()) - 1;
    let mut lines = list.lines();
    let uid = lines.next()?.split_whitespace().position(|name| name == "uid")?;
    lines.find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let id = fields.get(1)?.parse().ok()?;
        let (key, uid) = (fields.first()?.parse().ok()?, fields.get(uid)?.parse().ok()?);
        (id & mask == wanted & mask).then_some(Holder::Object { id, key, uid })
    })
}

/// Which of `ids` are in use in the caller's pid namespace, as far as `/proc` shows, each with one
/// of those who have it.
#[must_use]
pub fn pids_in_use(ids: &[Id]) -> Vec<Holder> {
    let mut holders = Vec::new();
    let mut wanted: HashSet<Id> = ids.iter().copied().collect();
    let Some(namespace) = Namespace::own() else {
        return holders;
    };
    let _ = for_each_task(|pid, status| {
        for (role, used) in roles(status) {
            let Some(&id) = used.get(namespace.level) else { continue };
            if wanted.contains(&id) && namespace.has(id, &used, pid) {
                wanted.remove(&id);
                holders.push(Holder::task(id, role, pid, status));
            }
        }
        ControlFlow::<()>::Continue(())
    });
    holders
}

/// The task that has one of `ids`, which begin at the pid namespace that a child would be in.
fn find_task(ids: &[Id]) -> Option<Holder> {
    let wanted: Vec<_> = ids.iter().copied().zip(Namespace::of_child()?).collect();
    let found = for_each_task(|pid, status| {
        for (role, used) in roles(status) {
            if let Some((id, _)) = wanted.iter().find(|(id, ns)| ns.has(*id, &used, pid)) {
                return ControlFlow::Break(Holder::task(*id, role, pid, status));
            }
        }
        ControlFlow::Continue(())
    });
    found.break_value()
}

/// Calls `visit` with each task that `/proc` shows: the id of its process, and its status.
fn for_each_task<T>(mut visit: impl FnMut(i32, &str) -> ControlFlow<T>) -> ControlFlow<T> {
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A task may end meanwhile.
        for thread in fs::read_dir(process.path().join("task")).into_iter().flatten().flatten() {
            if let Some(status) = read_status(&thread.path()) {
                visit(pid, &status)?;
            }
        }
    }
    ControlFlow::Continue(())
}

/// In how many nested pid namespaces a child would be, as far as `/proc` shows: those from the one
/// that `/proc` was mounted in inwards.
pub(crate) fn visible_levels() -> Option<usize> {
    Some(own_levels()? + levels_below())
}

/// In how many nested pid namespaces the caller is, as far as `/proc` shows.
fn own_levels() -> Option<usize> {
    Some(status_ids(&read_status(Path::new("/proc/thread-self"))?, "NSpid")?.len())
}

/// How many levels below the caller's pid namespace a child would be: none unless `unshare(2)` or
/// `setns(2)` chose another one for children.
pub(crate) fn levels_below() -> usize {
    /// How deep the kernel nests pid namespaces.
    const MAX_LEVEL: usize = 32;

    let own = identity(OWN, 0);
    let is_below = |&climb: &usize| match identity(FOR_CHILDREN, climb) {
        // Kernels before 7.2 show none that is new and empty, which is one level below.
        None => climb == 0,
        namespace => namespace != own,
    };
    (0..MAX_LEVEL).take_while(is_below).count()
}

/// Whether a child that the caller knows as `pid` may be the one that is to have `ids`. It is what
/// `/proc` tells; none of the ids need be one in the caller's namespace.
pub(crate) fn may_have(pid: i32, ids: &[Id]) -> bool {
    let pid = Id::from(pid);
    ids.first() == Some(&pid)
        || identity(OWN, 0).is_none()
        || ids.get(levels_below()).is_none_or(|&id| id == pid)
}

/// The caller's pid namespace, in `/proc`.
const OWN: &str = "thread-self/ns/pid";

/// The pid namespace that a child would be in, in `/proc`.
const FOR_CHILDREN: &str = "thread-self/ns/pid_for_children";

/// A pid namespace that the caller is in, or a child would be.
struct Namespace {
    /// Its level, counted from that of `/proc` inwards.
    level: usize,
    /// None where the caller is too deep in to see it, or it is too new to be seen.
    identity: Option<(u64, u64)>,
}

impl Namespace {
    /// The caller's, if `/proc` sees it.
    fn own() -> Option<Self> {
        Some(Self { level: own_levels()?.checked_sub(1)?, identity: identity(OWN, 0) })
    }

    /// Those that a child would be in, innermost first, as far as `/proc` sees them.
    fn of_child() -> Option<impl Iterator<Item = Self>> {
        let own = own_levels()?;
        let all = own + levels_below();
        let at = move |level| {
            let identity = if level < own {
                identity(OWN, own - 1 - level)
            } else {
                identity(FOR_CHILDREN, all - 1 - level)
            };
            Self { level, identity }
        };
        Some((0..all).rev().map(at))
    }

    /// Whether `id` is one of the ids `used` by process `pid`, in this namespace.
    fn has(&self, id: Id, used: &[Id], pid: i32) -> bool {
        let is_same = || {
            let theirs = || identity(&format!("{pid}/ns/pid"), used.len() - 1 - self.level);
            // All that /proc shows is in the namespace of /proc.
            self.level == 0 || (self.identity.is_some() && self.identity == theirs())
        };
        used.get(self.level) == Some(&id) && is_same()
    }
}

/// The ids that a task uses, each from the pid namespace of `/proc` inwards.
fn roles(status: &str) -> impl Iterator<Item = (Role, Vec<Id>)> {
    [(Role::Task, "NSpid"), (Role::Group, "NSpgid"), (Role::Session, "NSsid")]
        .into_iter()
        .filter_map(|(role, name)| Some((role, status_ids(status, name)?)))
}

/// The status of the task in this folder of `/proc`. The name in it need not be UTF-8: the kernel
/// cuts it off after 15 bytes.
fn read_status(task: &Path) -> Option<String> {
    let status = fs::read(task.join("status")).ok()?;
    Some(String::from_utf8_lossy(&status).into_owned())
}

fn status_ids(status: &str, name: &str) -> Option<Vec<Id>> {
    line(status, name)?.split_whitespace().map(|id| id.parse().ok()).collect()
}

fn line<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// The identity of the pid namespace that is `climb` levels above that of `link` in `/proc`. The
/// kernel lets nobody climb above their own.
fn identity(link: &str, climb: usize) -> Option<(u64, u64)> {
    /// `NS_GET_PARENT` of `<linux/nsfs.h>`.
    const NS_GET_PARENT: libc::Ioctl = 0xb702;

    let mut file = File::open(format!("/proc/{link}")).ok()?;
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
    fn pids_in_use_are_those_of_tasks() {
        let own = Id::from(std::process::id());
        let holders = pids_in_use(&[own, i32::MAX.into()]);
        let [Holder::Task { id, .. }] = &*holders else { panic!("{holders:?}") };
        assert_eq!(*id, own);
    }

    #[test]
    fn a_task_is_found_whatever_its_name() {
        fs::write("/proc/thread-self/comm", b"caf\xc3").expect("to write");
        let own = Id::from(nix::unistd::gettid().as_raw());
        for found in [find_task(&[own]), pids_in_use(&[own]).pop()] {
            let Some(Holder::Task { id, name, .. }) = found else { panic!("{own} is in use") };
            assert_eq!((id, &*name), (own, "caf\u{fffd}"));
        }
    }

    #[test]
    fn an_id_that_is_not_in_use_has_no_holder() {
        assert_eq!(find_task(&[i32::MAX.into()]), None);
    }
}
