// SPDX-License-Identifier: GPL-2.0

//! System V IPC objects.

use std::ffi::c_int;
use std::{fs, io, slice};

use nix::libc;

use crate::error::{Action, Error, Result};
use crate::fallback;
use crate::kind::{IpcKind, Kind};
use crate::next_id::{Armed, Method, Request, sealed};

/// The key of an object that no key finds.
pub const IPC_PRIVATE: i32 = libc::IPC_PRIVATE;

/// How many bits of an id are its index, unless the kernel was told otherwise.
const INDEX_BITS: u32 = 15;

/// The id of an object of System V IPC, whose `index` is below 32768.
///
/// On a kernel that was booted with `ipcmni_extend` an index has 24 bits, and ids are others.
///
/// # Panics
///
/// Where `index` is not below 32768.
///
/// ```
/// assert_eq!(nextid::ipc_id(3, 9), 98313);
/// ```
#[must_use]
pub const fn ipc_id(sequence: i64, index: i64) -> i64 {
    assert!(index >> INDEX_BITS == 0, "the index is not below 32768");
    sequence << INDEX_BITS | index
}

/// The bits of an id that are its index on this kernel.
pub(crate) fn index_mask() -> i64 {
    let bits = fs::read_to_string("/proc/cmdline").map_or(INDEX_BITS, |line| index_bits_of(&line));
    (1 << bits) - 1
}

/// How many bits of an id are its index on a kernel with this command line.
fn index_bits_of(command_line: &str) -> u32 {
    let is_extended = command_line.split_whitespace().any(|word| word == "ipcmni_extend");
    if is_extended { 24 } else { INDEX_BITS }
}

/// The id of a message queue to be created.
///
/// ```
/// use nextid::{Error, IPC_PRIVATE, IpcKind, MessageQueue, NextId, ipc_id};
///
/// let id = ipc_id(3, 9);
/// let mut next = NextId::open_or_fallback()?;
/// match next.arm(MessageQueue(id)).and_then(|armed| armed.create(IPC_PRIVATE, 0o600)) {
///     Ok(queue) => {
///         assert_eq!(id, queue.into());
///         # let _ = IpcKind::MessageQueue.remove(queue);
///     }
///     Err(error @ (Error::Taken { .. } | Error::NotPermitted { .. })) => eprintln!("{error}"),
///     Err(error) => return Err(error),
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageQueue(pub i64);

/// The id of a semaphore set to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SemaphoreSet(pub i64);

/// The id of a shared memory segment to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedMemory(pub i64);

macro_rules! requests {
    ($($kind:ident)*) => {$(
        impl sealed::Request for $kind {}

        impl Request for $kind {
            fn kind(&self) -> Kind {
                IpcKind::$kind.into()
            }

            fn ids(&self) -> &[i64] {
                slice::from_ref(&self.0)
            }
        }
    )*};
}

requests! { MessageQueue SemaphoreSet SharedMemory }

impl Armed<'_, MessageQueue> {
    /// Creates a message queue with this id, `key` and permission bits `mode`. Returns the id.
    ///
    /// Bits of `mode` above `0o777` mean nothing, here as for the other kinds.
    ///
    /// # Errors
    ///
    /// [`Error::Taken`] where the index of the id is in use, [`Error::OutOfRange`] where the kernel
    /// has no such index, [`Error::KeyInUse`], [`Error::NotPermitted`], [`Error::UsedUp`] where
    /// something else got the id, and [`Error::System`] for any other reason. It is disarmed then.
    pub fn create(self, key: i32, mode: u16) -> Result<i32> {
        self.create_ipc(IpcKind::MessageQueue, key, 0, mode, 0)
    }
}

impl Armed<'_, SemaphoreSet> {
    /// Creates a set of `count` semaphores with this id, `key` and permission bits `mode`. Returns
    /// the id.
    ///
    /// # Errors
    ///
    /// As for a message queue; [`Error::OutOfRange`] also where `count` is.
    pub fn create(self, key: i32, count: u16, mode: u16) -> Result<i32> {
        self.create_ipc(IpcKind::SemaphoreSet, key, count.into(), mode, 0)
    }
}

impl Armed<'_, SharedMemory> {
    /// Creates a shared memory segment of `size` bytes with this id, `key` and permission bits
    /// `mode`. Returns the id.
    ///
    /// # Errors
    ///
    /// As for a message queue; [`Error::OutOfRange`] also where `size` is.
    pub fn create(self, key: i32, size: usize, mode: u16) -> Result<i32> {
        self.create_with_flags(key, size, mode, 0)
    }

    /// The same, with further `flags` of `shmget(2)`: `SHM_HUGETLB`, with the size of its pages.
    ///
    /// # Errors
    ///
    /// As [`Armed::create`]. With `SHM_HUGETLB`, [`Error::NotPermitted`] also for those who have
    /// neither `CAP_IPC_LOCK` nor the group in `vm.hugetlb_shm_group`.
    pub fn create_with_flags(self, key: i32, size: usize, mode: u16, flags: c_int) -> Result<i32> {
        self.create_ipc(IpcKind::SharedMemory, key, size, mode, flags)
    }
}

impl<R: Request> Armed<'_, R> {
    fn create_ipc(
        self,
        kind: IpcKind,
        key: i32,
        size: usize,
        mode: u16,
        flags: c_int,
    ) -> Result<i32> {
        // The id is not for an object that is there already, and any other bit of the mode would be
        // a flag as well.
        let flags = flags | libc::IPC_CREAT | libc::IPC_EXCL | c_int::from(mode & 0o777);
        let action = Action::Create(kind);
        let create = || kind.get(key, size, flags);
        let created = match self.next.method() {
            Method::NextId | Method::AnyKind => create(),
            Method::Fallback => fallback::ipc(kind, self.first(), create),
        };
        match created {
            Ok(id) if i64::from(id) == self.first() => {
                self.consumed();
                Ok(id)
            }
            Ok(id) => {
                // It is this process's own.
                let _ = kind.remove(id);
                Err(self.used_up(action))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::KeyInUse { kind, key })
            }
            Err(error) => Err(self.refused(action, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_tells_how_many_bits_an_index_has() {
        assert_eq!(index_bits_of("root=/dev/vda ipcmni_extend quiet\n"), 24);
        assert_eq!(index_bits_of("root=/dev/ipcmni_extend quiet\n"), 15);
    }
}
