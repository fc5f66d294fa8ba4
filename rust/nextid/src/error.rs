// SPDX-License-Identifier: GPL-2.0

//! What can go wrong, told apart.

use std::{fmt, io};

use nix::errno::Errno;

use crate::holder::{levels_below, visible_levels};
use crate::{Holder, Id, MAX_IDS};

/// What was being done when something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Opening the file.
    Open,
    /// Arming ids.
    Arm,
    /// Reading what is armed.
    Read,
    /// Disarming.
    Reset,
    /// Forking a process.
    Fork,
    /// Waiting for a process.
    Wait,
    /// Starting a program in a process of its own.
    Spawn,
    /// Creating a thread.
    Thread,
    /// Creating a message queue.
    MessageQueue,
    /// Creating a semaphore set.
    SemaphoreSet,
    /// Creating a shared memory segment.
    SharedMemory,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open /proc/thread-self/next_id",
            Self::Arm => "arm ids",
            Self::Read => "read what is armed",
            Self::Reset => "disarm",
            Self::Fork => "fork a process",
            Self::Wait => "wait for a process",
            Self::Spawn => "start a program",
            Self::Thread => "create a thread",
            Self::MessageQueue => "create a message queue",
            Self::SemaphoreSet => "create a semaphore set",
            Self::SharedMemory => "create a shared memory segment",
        })
    }
}

impl Action {
    /// How the kernel calls its kind of object in `/proc/sysvipc` and in sysctls, where it is one of
    /// System V IPC.
    pub(crate) fn sysvipc(self) -> Option<&'static str> {
        match self {
            Self::MessageQueue => Some("msg"),
            Self::SemaphoreSet => Some("sem"),
            Self::SharedMemory => Some("shm"),
            _ => None,
        }
    }

    fn is_ipc(self) -> bool {
        self.sysvipc().is_some()
    }
}

/// A list of ids, innermost pid namespace first. Displayed as the kernel writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids(pub Vec<Id>);

impl From<&[Id]> for Ids {
    fn from(ids: &[Id]) -> Self {
        Self(ids.to_vec())
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for id in &self.0 {
            write!(f, "{separator}{id}")?;
            separator = " ";
        }
        Ok(())
    }
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel has no `next_id` file.
    #[error(
        "/proc/thread-self/next_id does not exist: this kernel is built without CONFIG_NEXT_ID"
    )]
    NotSupported,

    /// `/proc` does not show the calling thread, and so cannot tell whether there is such a file.
    #[error(
        "/proc does not show this thread: it is not mounted, or shows a pid namespace that this \
         process is not in; mount -t proc proc /proc"
    )]
    NoProc,

    /// A capability is missing (`EPERM`), or the right to read what is armed.
    #[error("not permitted to {action}{}: {}", with_ids(ids), missing_capability(*action))]
    NotPermitted {
        /// What was refused.
        action: Action,
        /// The ids asked for.
        ids: Ids,
    },

    /// An id is in use (`EBUSY`).
    #[error("cannot {action} with id {ids}: {}", in_use(holder.as_ref()))]
    Taken {
        /// What was refused.
        action: Action,
        /// The ids asked for, of which at least one is in use.
        ids: Ids,
        /// Who has one of them.
        holder: Option<Holder>,
    },

    /// An id is one that no such object can have, or the object itself is none that can be
    /// (`EINVAL`).
    #[error("cannot {action} with id {ids}: {}", range(*action, &ids.0))]
    OutOfRange {
        /// What was refused.
        action: Action,
        /// The ids asked for.
        ids: Ids,
    },

    /// More ids were given than there are pid namespaces around the new task (`EINVAL`).
    #[error(
        "cannot {action} with id {ids}: {} ids, and it would be in {levels} pid namespaces",
        ids.0.len()
    )]
    TooManyLevels {
        /// What was refused.
        action: Action,
        /// The ids asked for.
        ids: Ids,
        /// How many pid namespaces the new task would be in, as far as `/proc` shows.
        levels: usize,
    },

    /// Something else that the thread created has the ids. What came out instead is undone.
    #[error(
        "cannot {action} with id {ids}: something else that this thread created since it armed \
         them has used them up, or another NextId of the thread has armed others"
    )]
    UsedUp {
        /// What came out with another id.
        action: Action,
        /// The ids asked for.
        ids: Ids,
    },

    /// No ids, or more than can be armed at once.
    #[error("cannot arm {0} ids: it must be 1 to {MAX_IDS}")]
    Count(usize),

    /// A System V IPC key is already in use (`EEXIST`).
    #[error("cannot {action}: key {key:#x} is in use already")]
    KeyInUse {
        /// What was refused.
        action: Action,
        /// The key.
        key: i32,
    },

    /// This process has other threads, and so cannot fork safely.
    #[error(
        "cannot fork: this process has more than one thread; fork before creating threads, or \
         start a program instead"
    )]
    Threaded,

    /// Any other failure of a system call.
    #[error("cannot {action}{}: {error}", with_ids(ids))]
    System {
        /// What failed.
        action: Action,
        /// The ids asked for, none where it was not about ids.
        ids: Ids,
        /// Why.
        error: io::Error,
    },
}

fn with_ids(ids: &Ids) -> String {
    if ids.0.is_empty() { String::new() } else { format!(" with id {ids}") }
}

fn missing_capability(action: Action) -> &'static str {
    if action == Action::Read {
        "that takes the right to trace the process; to read its own, a process must be dumpable \
         (PR_SET_DUMPABLE in prctl(2))"
    } else if action == Action::Arm {
        "that takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN, both now and when the file was opened; \
         and the file must be this thread's own: a child has to open its own"
    } else if action.is_ipc() {
        "that takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the user namespace that owns the \
         IPC namespace"
    } else {
        "that takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the user namespaces that own the \
         pid namespaces of all ids given"
    }
}

fn in_use(holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) => holder.to_string(),
        None => "in use, and /proc does not show by whom".to_owned(),
    }
}

fn range(action: Action, ids: &[Id]) -> &'static str {
    match (action, ids) {
        (_, &[id]) if action.is_ipc() && i32::try_from(id).is_ok_and(|id| id >= 0) => {
            if action == Action::SemaphoreSet {
                "the number of semaphores must be 1 or more, and within kernel.sem"
            } else {
                "the size of the segment must be 1 or more, and within kernel.shmmax"
            }
        }
        (_, [_]) if action.is_ipc() => "it must be 0 to 2147483647",
        _ if action.is_ipc() => "it takes one id",
        _ => {
            "each must be 1 or more and below the pid_max of its pid namespace, and a pid namespace \
             begins with pid 1"
        }
    }
}

impl Error {
    pub(crate) fn system(action: Action, error: io::Error) -> Self {
        Self::System { action, ids: Ids::default(), error }
    }

    /// Why the kernel refused `action` with `ids`, which it did with `error`.
    pub(crate) fn refused(action: Action, ids: Ids, error: io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM) => Self::NotPermitted { action, ids },
            Some(Errno::EBUSY) => {
                let holder = Holder::find(action, &ids.0);
                Self::Taken { action, ids, holder }
            }
            Some(Errno::EINVAL) if action.is_ipc() => Self::OutOfRange { action, ids },
            Some(Errno::EINVAL) if action == Action::Thread && levels_below() != 0 => {
                let why = "none can be, since unshare(2) or setns(2) chose another pid namespace for \
                           children";
                Self::System { action, ids, error: io::Error::other(why) }
            }
            Some(Errno::EINVAL) => match visible_levels() {
                Some(levels) if levels < ids.0.len() => Self::TooManyLevels { action, ids, levels },
                _ => Self::OutOfRange { action, ids },
            },
            _ => Self::System { action, ids, error },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_told() {
        let text = |action, ids: &[Id], errno: Errno| {
            Error::refused(action, ids.into(), errno.into()).to_string()
        };
        assert_eq!(
            text(Action::SharedMemory, &[98313], Errno::ENOMEM),
            "cannot create a shared memory segment with id 98313: Cannot allocate memory (os error \
             12)"
        );
        assert_eq!(
            text(Action::MessageQueue, &[22, 23], Errno::EINVAL),
            "cannot create a message queue with id 22 23: it takes one id"
        );
        assert_eq!(
            text(Action::SemaphoreSet, &[-1], Errno::EINVAL),
            "cannot create a semaphore set with id -1: it must be 0 to 2147483647"
        );
    }
}
