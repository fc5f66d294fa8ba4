// SPDX-License-Identifier: GPL-2.0

//! System V IPC objects.

use std::ffi::c_int;
use std::io;

use nix::errno::Errno;
use nix::libc;

use crate::{Action, Armed, Error, Method, Result, fallback};

/// The key of an object that no key finds.
pub const IPC_PRIVATE: i32 = libc::IPC_PRIVATE;

/// An object is always a new one: the ids are not for one that is there already.
const CREATE: c_int = libc::IPC_CREAT | libc::IPC_EXCL;

impl Armed<'_> {
    /// Creates a message queue with this id, `key` and permission bits `mode`. Returns the id.
    ///
    /// # Errors
    ///
    /// [`Error::Taken`] where the index of the id is in use, [`Error::OutOfRange`] where its index or
    /// sequence number is none that the IPC namespace can have, [`Error::KeyInUse`],
    /// [`Error::NotPermitted`], and [`Error::System`] for any other reason. The id is disarmed then.
    pub fn message_queue(self, key: i32, mode: u16) -> Result<i32> {
        // SAFETY: No pointer is passed.
        let create = || unsafe { libc::msgget(key, CREATE | c_int::from(mode)) };
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
        let create = || unsafe { libc::semget(key, count.into(), CREATE | c_int::from(mode)) };
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
        let create = || unsafe { libc::shmget(key, size, CREATE | c_int::from(mode)) };
        self.create(Action::SharedMemory, key, create)
    }

    fn create(self, action: Action, key: i32, create: impl Fn() -> c_int) -> Result<i32> {
        let created = match self.next.method() {
            Method::NextId => Errno::result(create()),
            Method::Fallback => fallback::ipc(action, &self.next.ids, create),
        };
        match created {
            Ok(id) => {
                self.consumed();
                Ok(id)
            }
            Err(Errno::EEXIST) => Err(Error::KeyInUse { action, key }),
            Err(errno) => Err(self.refused(action, io::Error::from(errno))),
        }
    }
}
