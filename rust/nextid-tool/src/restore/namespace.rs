// SPDX-License-Identifier: GPL-2.0

//! New namespaces.

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use crate::failure::{self, Failure};

/// Moves this process to an IPC namespace of its own.
pub fn enter_new_ipc() -> Result<(), Failure> {
    enter_new("an IPC", CloneFlags::CLONE_NEWIPC, "user.max_ipc_namespaces")
}

/// Moves the children of this process to a pid namespace of their own.
pub fn enter_new_pid() -> Result<(), Failure> {
    let limit = "user.max_pid_namespaces, and no more than 32 of them in each other";
    enter_new("a pid", CloneFlags::CLONE_NEWPID, limit)
}

fn enter_new(kind: &str, flag: CloneFlags, limit: &str) -> Result<(), Failure> {
    unshare(flag).map_err(|error| {
        let text = format!("cannot make {kind} namespace: {error}");
        match error {
            Errno::EPERM => Failure::new(
                failure::NOT_PERMITTED,
                text + "; that takes CAP_SYS_ADMIN: be root, or run it by unshare --user \
                        --map-root-user",
            ),
            Errno::ENOSPC => {
                Failure::new(failure::OTHER, format!("{text}: see the limits {limit}"))
            }
            _ => Failure::new(failure::OTHER, text),
        }
    })
}
