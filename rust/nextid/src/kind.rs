// SPDX-License-Identifier: GPL-2.0

//! The kinds of objects that have ids.

use std::ffi::c_int;
use std::{fmt, io, ptr};

use nix::errno::Errno;
use nix::libc;

/// A kind of object that can be asked for by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A process or a thread.
    Task,
    /// A System V IPC object.
    Ipc(IpcKind),
    /// A pseudoterminal, whose index is its name in `/dev/pts`.
    Pty,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 5] = [
        Self::Task,
        Self::Ipc(IpcKind::MessageQueue),
        Self::Ipc(IpcKind::SemaphoreSet),
        Self::Ipc(IpcKind::SharedMemory),
        Self::Pty,
    ];

    /// The kernel's word for it in a `next_id` file.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Task => "PID",
            Self::Ipc(IpcKind::MessageQueue) => "MSG",
            Self::Ipc(IpcKind::SemaphoreSet) => "SEM",
            Self::Ipc(IpcKind::SharedMemory) => "SHM",
            Self::Pty => "PTY",
        }
    }

    /// The kind that the kernel calls `word`.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task => f.write_str("process or thread"),
            Self::Ipc(kind) => kind.fmt(f),
            Self::Pty => f.write_str("pseudoterminal"),
        }
    }
}

impl From<IpcKind> for Kind {
    fn from(kind: IpcKind) -> Self {
        Self::Ipc(kind)
    }
}

/// A kind of System V IPC object. There will be no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpcKind {
    /// A message queue.
    MessageQueue,
    /// A semaphore set.
    SemaphoreSet,
    /// A shared memory segment.
    SharedMemory,
}

impl IpcKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::MessageQueue, Self::SemaphoreSet, Self::SharedMemory];

    /// Its name in system calls, sysctls and `/proc/sysvipc`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MessageQueue => "msg",
            Self::SemaphoreSet => "sem",
            Self::SharedMemory => "shm",
        }
    }

    /// The file that lists the objects of this kind in the caller's IPC namespace.
    #[must_use]
    pub const fn list(self) -> &'static str {
        match self {
            Self::MessageQueue => "/proc/sysvipc/msg",
            Self::SemaphoreSet => "/proc/sysvipc/sem",
            Self::SharedMemory => "/proc/sysvipc/shm",
        }
    }

    /// The sysctl that proposes the id of the next object of this kind, on kernels with
    /// `CONFIG_CHECKPOINT_RESTORE`.
    #[must_use]
    pub const fn next_id_sysctl(self) -> &'static str {
        match self {
            Self::MessageQueue => "/proc/sys/kernel/msg_next_id",
            Self::SemaphoreSet => "/proc/sys/kernel/sem_next_id",
            Self::SharedMemory => "/proc/sys/kernel/shm_next_id",
        }
    }

    /// Calls `msgget(2)`, `semget(2)` or `shmget(2)`, and returns the id. `size` is the number of
    /// semaphores, or the bytes of a segment; a queue has none. `flags` are `IPC_CREAT` and its
    /// kind, and the permission bits.
    ///
    /// # Errors
    ///
    /// That of the system call, `EINVAL` where `size` does not fit it.
    pub fn get(self, key: i32, size: usize, flags: c_int) -> io::Result<i32> {
        // SAFETY: No pointer is passed.
        let id = unsafe {
            match self {
                Self::MessageQueue => libc::msgget(key, flags),
                Self::SemaphoreSet => {
                    let count = c_int::try_from(size).map_err(|_| Errno::EINVAL)?;
                    libc::semget(key, count, flags)
                }
                Self::SharedMemory => libc::shmget(key, size, flags),
            }
        };
        Ok(Errno::result(id)?)
    }

    /// Removes the object with this id, a segment when nobody has it attached any more.
    ///
    /// # Errors
    ///
    /// That of the system call.
    pub fn remove(self, id: i32) -> io::Result<()> {
        // SAFETY: IPC_RMID takes no pointer.
        let result = unsafe {
            match self {
                Self::MessageQueue => libc::msgctl(id, libc::IPC_RMID, ptr::null_mut()),
                Self::SemaphoreSet => libc::semctl(id, 0, libc::IPC_RMID),
                Self::SharedMemory => libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()),
            }
        };
        Errno::result(result)?;
        Ok(())
    }
}

impl fmt::Display for IpcKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MessageQueue => "message queue",
            Self::SemaphoreSet => "semaphore set",
            Self::SharedMemory => "shared memory segment",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_known_by_its_word() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of_word(kind.word()), Some(kind));
        }
        assert_eq!(Kind::of_word("LONG"), None);
    }
}
