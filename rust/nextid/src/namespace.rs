// SPDX-License-Identifier: GPL-2.0

//! The pid namespaces of the caller, and of its children.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::libc;

use crate::status::Status;

/// The caller's pid namespace, in `/proc`.
const OWN: &str = "thread-self/ns/pid";

/// The pid namespace that a child would be in, in `/proc`.
const FOR_CHILDREN: &str = "thread-self/ns/pid_for_children";

/// What tells a namespace from another one.
pub type Identity = (u64, u64);

/// In how many nested pid namespaces a child would be, as far as `/proc` shows: those from the one
/// that `/proc` was mounted in inwards.
pub fn visible_levels() -> Option<usize> {
    Some(own_levels()? + levels_below())
}

/// In how many nested pid namespaces the caller is, as far as `/proc` shows.
fn own_levels() -> Option<usize> {
    let levels = Status::read("/proc/thread-self").ok()?.ids("NSpid").len();
    (levels > 0).then_some(levels)
}

/// How many levels below the caller's pid namespace a child would be: none unless `unshare(2)` or
/// `setns(2)` chose another one for children.
pub fn levels_below() -> usize {
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
pub fn may_have(pid: i32, ids: &[i64]) -> bool {
    let pid = i64::from(pid);
    ids.first() == Some(&pid)
        || identity(OWN, 0).is_none()
        || ids.get(levels_below()).is_none_or(|&id| id == pid)
}

/// A pid namespace that a child of the caller would be in.
pub struct Namespace {
    /// Its level, counted from that of `/proc` inwards.
    level: usize,
    /// None where the caller is too deep in to see it, or it is too new to be seen.
    identity: Option<Identity>,
}

impl Namespace {
    /// Those that a child would be in, innermost first, as far as `/proc` sees them.
    pub fn of_child() -> impl Iterator<Item = Self> {
        let own = own_levels().unwrap_or_default();
        let all = if own > 0 { own + levels_below() } else { 0 };
        let at = move |level| {
            let identity = if level < own {
                identity(OWN, own - 1 - level)
            } else {
                identity(FOR_CHILDREN, all - 1 - level)
            };
            Self { level, identity }
        };
        (0..all).rev().map(at)
    }

    /// The id that process `pid` has in this namespace, if it is one of `wanted`. `/proc` shows the
    /// process with the ids `used`.
    pub fn find(&self, wanted: &HashSet<i64>, used: &[i64], pid: i32) -> Option<i64> {
        let is_same = || {
            let theirs = || identity(&format!("{pid}/ns/pid"), used.len() - 1 - self.level);
            // All that /proc shows is in the namespace of /proc.
            self.level == 0 || (self.identity.is_some() && self.identity == theirs())
        };
        used.get(self.level).copied().filter(|id| wanted.contains(id) && is_same())
    }
}

/// The identity of the namespace that is `climb` levels above that of `link` in `/proc`. The kernel
/// lets nobody climb above their own.
pub fn identity(link: &str, climb: usize) -> Option<Identity> {
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
