// SPDX-License-Identifier: GPL-2.0

//! What can go wrong, told apart.

use std::collections::HashSet;
use std::{fmt, io};

use nix::errno::Errno;

use crate::ids::Ids;
use crate::kind::{IpcKind, Kind};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What was being done when something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Opening the file.
    Open,
    /// Arming ids for an object of this kind.
    Arm(Kind),
    /// Reading what is armed.
    Read,
    /// Disarming.
    Reset,
    /// Reserving ids for objects of this kind.
    Reserve(Kind),
    /// Forking a process.
    Fork,
    /// Waiting for a process.
    Wait,
    /// Starting a program in a process of its own.
    Spawn,
    /// Creating a thread.
    Thread,
    /// Creating a System V IPC object.
    Create(IpcKind),
    /// Opening a pseudoterminal.
    OpenPty,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("open /proc/thread-self/next_id"),
            Self::Arm(kind) => write!(f, "ask for a {kind}"),
            Self::Read => f.write_str("read what is armed"),
            Self::Reset => f.write_str("disarm"),
            Self::Reserve(kind) => write!(f, "reserve {kind}"),
            Self::Fork => f.write_str("fork a process"),
            Self::Wait => f.write_str("wait for a process"),
            Self::Spawn => f.write_str("start a program"),
            Self::Thread => f.write_str("create a thread"),
            Self::Create(kind) => write!(f, "create a {kind}"),
            Self::OpenPty => f.write_str("open a pseudoterminal"),
        }
    }
}

impl Action {
    /// What it makes or asks for, where it is about ids.
    #[must_use]
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::Arm(kind) | Self::Reserve(kind) => Some(kind),
            Self::Fork | Self::Spawn | Self::Thread => Some(Kind::Task),
            Self::Create(kind) => Some(kind.into()),
            Self::OpenPty => Some(Kind::Pty),
            Self::Open | Self::Read | Self::Reset | Self::Wait => None,
        }
    }
}

/// What a kernel may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Feature {
    /// The file `next_id`.
    File,
    /// Requests for one kind of object, and so for a pseudoterminal.
    Kinds,
    /// Reservations.
    Reservations,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => {
                "/proc/thread-self/next_id does not exist: this kernel is built without \
                 CONFIG_NEXT_ID"
            }
            Self::Kinds => {
                "this kernel cannot be asked for a pseudoterminal: its next_id, if it has one, is \
                 older than requests by kind"
            }
            Self::Reservations => {
                "this kernel cannot reserve such ids: its next_id, if it has one, is older than \
                 reservations"
            }
        })
    }
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel lacks something.
    #[error("{0}")]
    NotSupported(Feature),

    /// `/proc` does not show the calling thread, and so cannot tell whether there is such a file.
    #[error(
        "/proc does not show this thread: it is not mounted, or shows a pid namespace that this \
         process is not in; mount -t proc proc /proc"
    )]
    NoProc,

    /// A capability is missing (`EPERM`), or the right to read what is armed.
    #[error("not permitted to {action}{}: {}", with_ids(*action, ids), missing_capability(*action))]
    NotPermitted {
        /// What was refused.
        action: Action,
        /// The ids asked for.
        ids: Ids,
    },

    /// An id is in use, or reserved where it was to be reserved (`EBUSY`). [`Error::holders`] finds
    /// out by whom.
    #[error("cannot {action}{}: {}", with_ids(*action, ids), in_use(*action, ids))]
    Taken {
        /// What was refused.
        action: Action,
        /// The ids asked for, of which at least one is in use.
        ids: Ids,
    },

    /// An id is one that no such object can have, or the object itself is none that can be
    /// (`EINVAL`).
    #[error("cannot {action}{}: {}", with_ids(*action, ids), range(*action, ids))]
    OutOfRange {
        /// What was refused.
        action: Action,
        /// The ids asked for.
        ids: Ids,
    },

    /// More ids were given than there are pid namespaces around the new task (`EINVAL`).
    #[error(
        "cannot {action} with id {ids}: {} ids, and it would be in {levels} pid namespaces",
        ids.len()
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

    /// No ids, or more than there can be.
    #[error("cannot {action} with {count} ids: it must be 1 to {max}")]
    Count {
        /// What was refused.
        action: Action,
        /// How many ids were given.
        count: usize,
        /// How many there can be.
        max: usize,
    },

    /// More than half of the initial pid namespace would be reserved (`ENOSPC`).
    #[error("cannot {action} ids: half of the initial pid namespace at most can be reserved")]
    TooManyReserved {
        /// What was refused.
        action: Action,
        /// The ids asked for.
        ids: Ids,
    },

    /// A System V IPC key is already in use (`EEXIST`).
    #[error("cannot create a {kind}: key {key:#x} is in use already")]
    KeyInUse {
        /// What was to be created.
        kind: IpcKind,
        /// The key.
        key: i32,
    },

    /// This process has other threads, and so cannot fork safely.
    #[error(
        "cannot fork: this process has more than one thread; fork before creating threads, or \
         start a program instead"
    )]
    Threaded,

    /// Any other failure of a system call, which the source tells.
    #[error("cannot {action}{}", with_ids(*action, ids))]
    System {
        /// What failed.
        action: Action,
        /// The ids asked for, none where it was not about ids.
        ids: Ids,
        /// Why.
        source: io::Error,
    },
}

fn with_ids(action: Action, ids: &Ids) -> String {
    match action {
        _ if ids.is_empty() => String::new(),
        Action::Reserve(_) => format!(" id {ids}"),
        _ => format!(" with id {ids}"),
    }
}

fn missing_capability(action: Action) -> &'static str {
    match (action, action.kind()) {
        (Action::Read, _) => {
            "that takes the right to trace the process; to read its own, a process must be \
             dumpable (PR_SET_DUMPABLE in prctl(2))"
        }
        (Action::Arm(_), _) => {
            "that takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN, both now and when the file was \
             opened; and the file must be this thread's own: a child has to open its own"
        }
        (Action::Create(IpcKind::SharedMemory), _) => {
            "that takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the user namespace that owns \
             the IPC namespace; with SHM_HUGETLB, CAP_IPC_LOCK or a group in vm.hugetlb_shm_group, \
             too"
        }
        (_, Some(Kind::Ipc(_))) => {
            "that takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the user namespace that owns \
             the IPC namespace"
        }
        (_, Some(Kind::Pty)) => {
            "that takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the user namespace that owns \
             this instance of devpts"
        }
        (Action::Reserve(_), _) => {
            "that takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the user namespace that owns \
             the pid namespace"
        }
        _ => {
            "that takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the user namespaces that own \
             the pid namespaces of all ids given"
        }
    }
}

fn in_use(action: Action, ids: &Ids) -> &'static str {
    let is_reserving = matches!(action, Action::Reserve(_));
    match ids.len() {
        1 => "in use",
        count if is_reserving && ids.iter().collect::<HashSet<_>>().len() < count => {
            "one of them is given twice"
        }
        _ => "one of them is in use",
    }
}

fn range(action: Action, ids: &Ids) -> &'static str {
    let are_possible = || ids.iter().all(|&id| i32::try_from(id).is_ok_and(|id| id >= 0));
    match (action, action.kind()) {
        (Action::Create(IpcKind::SemaphoreSet), _) if are_possible() => {
            "the number of semaphores must be 1 or more, and within kernel.sem"
        }
        (Action::Create(IpcKind::SharedMemory), _) if are_possible() => {
            "the size of the segment must be 1 or more, and within kernel.shmmax"
        }
        (Action::Reserve(Kind::Task), _) => {
            "each must be 2 or more and below the pid_max of the pid namespace"
        }
        (_, Some(Kind::Ipc(_))) => "it must be 0 to 2147483647",
        (_, Some(Kind::Pty)) => {
            "it must be 0 or more, and below the option max= of this instance of devpts"
        }
        _ => {
            "each must be 1 or more and below the pid_max of its pid namespace, and a pid namespace \
             begins with pid 1"
        }
    }
}

impl Error {
    pub(crate) fn system(action: Action, source: io::Error) -> Self {
        Self::System { action, ids: Ids::default(), source }
    }

    /// Why the kernel refused `action` with `ids`, which it did with `error`.
    pub(crate) fn refused(action: Action, ids: &[i64], error: io::Error) -> Self {
        let ids = ids.into();
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EPERM) => Self::NotPermitted { action, ids },
            Some(Errno::EBUSY) => Self::Taken { action, ids },
            Some(Errno::EINVAL) => Self::OutOfRange { action, ids },
            Some(Errno::ENOSPC) if matches!(action, Action::Reserve(_)) => {
                Self::TooManyReserved { action, ids }
            }
            _ => Self::System { action, ids, source: error },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn refused(action: Action, id: i64, errno: Errno) -> Error {
        Error::refused(action, &[id], errno.into())
    }

    #[test]
    fn what_was_asked_for_is_told() {
        let create = Action::Create(IpcKind::SemaphoreSet);
        assert_eq!(
            refused(create, -1, Errno::EINVAL).to_string(),
            "cannot create a semaphore set with id -1: it must be 0 to 2147483647"
        );
        assert_eq!(
            refused(create, 1, Errno::EINVAL).to_string(),
            "cannot create a semaphore set with id 1: the number of semaphores must be 1 or more, \
             and within kernel.sem"
        );
    }

    #[test]
    fn an_id_that_is_reserved_twice_is_told() {
        let action = Action::Reserve(Kind::Task);
        let refused = |ids: &[i64]| Error::Taken { action, ids: ids.into() }.to_string();
        assert_eq!(refused(&[7]), "cannot reserve process or thread id 7: in use");
        let message = "cannot reserve process or thread id 7 8 7: one of them is given twice";
        assert_eq!(refused(&[7, 8, 7]), message);
    }

    #[test]
    fn too_many_reserved_ids_are_told() {
        let error = refused(Action::Reserve(Kind::Task), 7, Errno::ENOSPC).to_string();
        let message = "cannot reserve process or thread ids: half of the initial pid namespace at \
                       most can be reserved";
        assert_eq!(error, message);
        let error = refused(Action::OpenPty, 7, Errno::ENOSPC);
        assert!(matches!(error, Error::System { .. }));
    }

    #[test]
    fn the_error_of_the_system_is_the_source() {
        let error = refused(Action::Create(IpcKind::SharedMemory), 98313, Errno::ENOMEM);
        assert_eq!(error.to_string(), "cannot create a shared memory segment with id 98313");
        let source = error.source().expect("a source").to_string();
        assert_eq!(source, "Cannot allocate memory (os error 12)");
    }
}
