// SPDX-License-Identifier: GPL-2.0

//! System V IPC objects.

use std::ffi::c_int;
use std::{fs, io};

use nix::errno::Errno;
use nix::libc;

use crate::{Action, Armed, Error, Id, Method, Result, fallback};

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
pub const fn ipc_id(sequence: Id, index: Id) -> Id {
    assert!(index >> INDEX_BITS == 0, "the index is not below 32768");
    sequence << INDEX_BITS | index
}

/// How many bits of an id are its index on this kernel.
pub(crate) fn index_bits() -> u32 {
    fs::read_to_string("/proc/cmdline").map_or(INDEX_BITS, |line| index_bits_of(&line))
}

/// The same on a kernel with this command line.
fn index_bits_of(command_line: &str) -> u32 {
    let is_extended = command_line.split_whitespace().any(|word| word == "ipcmni_extend");
    if is_extended { 24 } else { INDEX_BITS }
}

/// The flags for a new object with the permission bits of `mode`: the ids are not for an object that
/// is there already, and any other bit of `mode` would be a flag as well.
fn flags(mode: u16) -> c_int {
    libc::IPC_CREAT | libc::IPC_EXCL | c_int::from(mode & 0o777)
}

impl Armed<'_> {
    /// Creates a message queue with this id, `key` and permission bits `mode`. Returns the id.
    ///
    /// Bits of `mode` above `0o777` mean nothing, here as for the other kinds.
    ///
    /// ```
    /// use nextid::{Error, IPC_PRIVATE, NextId, ipc_id};
    ///
    /// let id = ipc_id(3, 9);
    /// let mut next = NextId::open_or_fallback()?;
    /// match next.arm(&[id]).and_then(|armed| armed.message_queue(IPC_PRIVATE, 0o600)) {
    ///     Ok(queue) => {
    ///         assert_eq!(id, queue.into());
    ///         # // SAFETY: IPC_RMID takes no pointer.
    ///         # unsafe { nix::libc::msgctl(queue, nix::libc::IPC_RMID, std::ptr::null_mut()) };
    ///     }
    ///     Err(error @ (Error::Taken { .. } | Error::NotPermitted { .. })) => eprintln!("{error}"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Taken`] where the index of the id is in use, [`Error::OutOfRange`] where the id is
    /// not 0 to `i32::MAX`, [`Error::KeyInUse`], [`Error::NotPermitted`], [`Error::UsedUp`] where
    /// something else got the id, and [`Error::System`] for any other reason. It is disarmed then.
    pub fn message_queue(self, key: i32, mode: u16) -> Result<i32> {
        // SAFETY: No pointer is passed.
        let create = || unsafe { libc::msgget(key, flags(mode)) };
        self.create(Action::MessageQueue, key, create)
    }

    /// Creates a set of `count` semaphores with this id, `key` and permission bits `mode`. Returns
    /// the id.
    ///
    /// # Errors
    ///
    /// As [`Armed::message_queue`]; [`Error::OutOfRange`] also where `count` is.
    pub fn semaphore_set(self, key: i32, count: u16, mode: u16) -> Result<i32> {
        // SAFETY: No pointer is passed.
        let create = || unsafe { libc::semget(key, count.into(), flags(mode)) };
        self.create(Action::SemaphoreSet, key, create)
    }

    /// Creates a shared memory segment of `size` bytes with this id, `key` and permission bits
    /// `mode`. Returns the id.
    ///
    /// # Errors
    ///
    /// As [`Armed::message_queue`]; [`Error::OutOfRange`] also where `size` is.
    pub fn shared_memory(self, key: i32, size: usize, mode: u16) -> Result<i32> {
        // SAFETY: No pointer is passed.
        let create = || unsafe { libc::shmget(key, size, flags(mode)) };
        self.create(Action::SharedMemory, key, create)
    }

    fn create(self, action: Action, key: i32, create: impl Fn() -> c_int) -> Result<i32> {
        let created = match self.next.method() {
            Method::NextId => Errno::result(create()).map_err(io::Error::from),
            Method::Fallback => fallback::ipc(action, &self.next.ids, create),
        };
        match created {
            Ok(id) if Id::from(id) == self.first() => {
                self.consumed();
                Ok(id)
            }
            Ok(id) => {
                fallback::remove(action, id);
                Err(self.used_up(action))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::KeyInUse { action, key })
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
