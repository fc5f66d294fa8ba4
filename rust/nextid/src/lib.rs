// SPDX-License-Identifier: GPL-2.0

//! Create processes, threads and System V IPC objects with chosen ids.
//!
//! A kernel with `CONFIG_NEXT_ID=y` has a file `/proc/thread-self/next_id`. What a thread writes
//! there are the ids that its next object gets, or its next creation fails and says why: it never
//! gets another id. A checkpoint/restore tool needs just that.
//!
//! [`NextId`] is that file, [`NextId::arm`] writes to it, and [`Armed`] makes the object:
//!
//! ```no_run
//! use std::thread::Builder;
//!
//! use nextid::{IPC_PRIVATE, NextId, ipc_id};
//!
//! // The calling thread's file, kept open.
//! let mut next = NextId::open()?;
//!
//! // A process that is 7 in its own pid namespace and 512 in the one above.
//! let child = next.arm(&[7, 512])?.fork(|| 0)?;
//! assert_eq!(child.pid(), 7);
//! child.wait()?;
//!
//! // A thread, which is 8 and 513 there.
//! let thread = next.arm(&[8, 513])?.thread(Builder::new(), || "done")?;
//! assert_eq!(thread.join().unwrap(), "done");
//!
//! // A message queue: sequence number 3, index 9.
//! let queue = next.arm(&[ipc_id(3, 9)])?.message_queue(IPC_PRIVATE, 0o600)?;
//! assert_eq!(queue, 98313);
//! # Ok::<(), nextid::Error>(())
//! ```
//!
//! Ids belong to the thread that armed them. So neither type can leave its thread: arming on one
//! thread and creating on another does not compile.
//!
//! ```compile_fail,E0277
//! # let mut next = nextid::NextId::open()?;
//! let armed = next.arm(&[7])?;
//! std::thread::spawn(move || armed.fork(|| 0));
//! # Ok::<(), nextid::Error>(())
//! ```
//!
//! The kernel gives them to whatever the thread creates next, so nothing should come between arming
//! and creating. Where something does (a second [`NextId`], a signal handler, a library function that
//! forks) the object that comes out is not as asked: it is undone, and [`Error::UsedUp`] says so.
//!
//! # Permission
//!
//! Arming takes `CAP_CHECKPOINT_RESTORE` or `CAP_SYS_ADMIN` in the caller's user namespace, both now
//! and when the file was opened. Creating takes one of them in the user namespace that owns each pid
//! namespace, or the IPC namespace, for which an id is given. Root in a user namespace can restore
//! inside it.

mod error;
mod fallback;
mod holder;
mod ipc;
mod task;

use std::ffi::c_long;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::marker::PhantomData;
use std::path::Path;

use nix::errno::Errno;

pub use error::{Action, Error, Ids};
pub use holder::{Holder, Role, pids_in_use};
pub use ipc::{IPC_PRIVATE, ipc_id};
pub use task::Child;

/// An id, C's `long`.
pub type Id = c_long;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The most ids that can be armed at once.
pub const MAX_IDS: usize = 65536;

/// The calling thread, in `/proc`.
const THREAD: &str = "/proc/thread-self";

const PATH: &str = "/proc/thread-self/next_id";

/// How the kernel is told the ids of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By the thread's `next_id` file.
    NextId,
    /// By what kernels without that file have: `set_tid` of `clone3(2)` for processes, the sysctls
    /// `ns_last_pid` for threads and `{msg,sem,shm}_next_id` for System V IPC objects.
    ///
    /// The sysctls belong to a namespace, so that any other task in it may use up what was written.
    /// The id that comes out is checked: one that is not as asked is undone, and an error. So it
    /// may fail where the id is free, and for a moment another task may meet the wrong object.
    Fallback,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NextId => "/proc/thread-self/next_id",
            Self::Fallback => {
                "clone3 with set_tid, and sysctls that another task may use up in between \
                 (which is found out, and an error)"
            }
        })
    }
}

/// The calling thread's `next_id` file, kept open.
///
/// It serves the thread that opened it and no other. A child of [`Armed::fork`] opens its own: its
/// parent's is closed there.
#[derive(Debug)]
pub struct NextId {
    /// None for [`Method::Fallback`].
    file: Option<File>,
    /// What was armed last, and the command for it, in buffers that are reused.
    ids: Vec<Id>,
    text: Vec<u8>,
    /// Neither `Send` nor `Sync`: ids belong to a thread.
    thread: PhantomData<*const ()>,
}

impl NextId {
    /// Opens the file of the calling thread.
    ///
    /// # Errors
    ///
    /// [`Error::NotSupported`] where this kernel has no such file; [`Error::NoProc`] where `/proc`
    /// does not show this thread; [`Error::System`] where it cannot be opened for any other reason.
    pub fn open() -> Result<Self> {
        // Anybody may open it to write, its owner alone to read: a process that is not dumpable
        // does not own it.
        let file = OpenOptions::new().write(true).open(PATH);
        let file = file.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT) if Path::new(THREAD).exists() => Error::NotSupported,
            Some(Errno::ENOENT) => Error::NoProc,
            _ => Error::system(Action::Open, error),
        })?;
        Ok(Self::new(Some(file)))
    }

    /// Opens the file of the calling thread, or goes without where the kernel has none:
    /// [`NextId::method`] tells which.
    ///
    /// Without the file [`Armed::keep`] and [`Armed::spawn`] are not supported, a thread can be
    /// given one id only, and a missing capability shows when an object is created.
    ///
    /// # Errors
    ///
    /// [`Error::NoProc`] where `/proc` cannot tell; [`Error::System`] where there is such a file, and
    /// it cannot be opened.
    pub fn open_or_fallback() -> Result<Self> {
        match Self::open() {
            Err(Error::NotSupported) => Ok(Self::new(None)),
            opened => opened,
        }
    }

    fn new(file: Option<File>) -> Self {
        Self { file, ids: Vec::new(), text: Vec::new(), thread: PhantomData }
    }

    /// How ids are asked for.
    #[must_use]
    pub fn method(&self) -> Method {
        if self.file.is_some() { Method::NextId } else { Method::Fallback }
    }

    /// Arms `ids` for the next object that this thread creates, in one system call.
    ///
    /// For a process or a thread `ids[0]` is its id in its own (innermost) pid namespace, `ids[1]`
    /// the one in the namespace above, and so on; ids further out are left to the kernel. A System V
    /// IPC object takes one id.
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] where the capability is missing, or was as the file was opened, or
    /// where this is another process: a child opens its own. [`Error::Count`] unless there are 1 to
    /// [`MAX_IDS`] ids; [`Error::System`] where memory is short. What was armed before stays armed.
    pub fn arm(&mut self, ids: &[Id]) -> Result<Armed<'_>> {
        if ids.is_empty() || ids.len() > MAX_IDS {
            return Err(Error::Count(ids.len()));
        }
        match self.write_ids(ids) {
            Ok(()) => {
                self.ids.clear();
                self.ids.extend_from_slice(ids);
                Ok(Armed { next: self })
            }
            Err(error) => Err(match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EPERM) => Error::NotPermitted { action: Action::Arm, ids: ids.into() },
                _ => Error::system(Action::Arm, error),
            }),
        }
    }

    fn write_ids(&mut self, ids: &[Id]) -> io::Result<()> {
        let Some(mut file) = self.file.as_ref() else {
            return Ok(());
        };
        self.text.clear();
        write!(self.text, "LONG{}", ids.len())?;
        for id in ids {
            write!(self.text, " {id}")?;
        }
        file.write_all(&self.text)
    }

    /// Returns the ids that are armed, none where none are.
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] where this process is not dumpable, as one that has changed its user
    /// id, or has capabilities of its file: what it has armed can be read again once it has called
    /// `prctl(PR_SET_DUMPABLE, 1)`, or executed a program. [`Error::System`] where the file cannot
    /// be read for any other reason.
    pub fn armed(&self) -> Result<Vec<Id>> {
        match self.method() {
            Method::NextId => read_state(THREAD),
            Method::Fallback => Ok(Vec::new()),
        }
    }

    /// Disarms. It is no error where nothing is armed.
    ///
    /// # Errors
    ///
    /// [`Error::System`] where the file cannot be written.
    pub fn reset(&mut self) -> Result<()> {
        let Some(mut file) = self.file.as_ref() else {
            return Ok(());
        };
        file.write_all(b"RESET").map_err(|error| Error::system(Action::Reset, error))
    }
}

/// Returns the ids that thread `tid` of process `pid` has armed, none where it has none.
///
/// # Errors
///
/// [`Error::NotSupported`] where this kernel has no `next_id` file; [`Error::NotPermitted`] where the
/// caller may not trace the process; [`Error::System`] where there is no such thread, and for any
/// other reason.
pub fn armed_by(pid: i32, tid: i32) -> Result<Vec<Id>> {
    read_state(&format!("/proc/{pid}/task/{tid}"))
}

/// What the thread whose folder in `/proc` is `folder` has armed.
fn read_state(folder: &str) -> Result<Vec<Id>> {
    let error = |error: io::Error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) if Path::new(folder).exists() => Error::NotSupported,
        Some(Errno::EACCES | Errno::EPERM) => {
            Error::NotPermitted { action: Action::Read, ids: Ids::default() }
        }
        _ => Error::system(Action::Read, error),
    };
    let state = fs::read(format!("{folder}/next_id")).map_err(error)?;
    parse_state(&state).ok_or_else(|| {
        let state = format!("unknown state {:?}", String::from_utf8_lossy(&state));
        Error::system(Action::Read, io::Error::other(state))
    })
}

/// Reads `UNSET\n` or `LONGS (n) X0 ... X<n-1>\n`.
fn parse_state(text: &[u8]) -> Option<Vec<Id>> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    if text == "UNSET" {
        return Some(Vec::new());
    }
    let (count, ids) = text.strip_prefix("LONGS (")?.split_once(") ")?;
    let ids: Vec<Id> =
        ids.split(' ').map(str::parse).collect::<std::result::Result<_, _>>().ok()?;
    (count.parse() == Ok(ids.len())).then_some(ids)
}

/// Ids that are armed, waiting for the one object that is to get them.
///
/// Each method that creates an object consumes it. Where the creation fails, or none is asked for,
/// the ids are disarmed again, so that no later object gets them by accident.
#[derive(Debug)]
#[must_use = "the ids are disarmed at once where no object is created with them"]
pub struct Armed<'a> {
    next: &'a mut NextId,
}

impl Armed<'_> {
    /// Leaves the ids armed for an object that this thread creates by other means.
    ///
    /// # Errors
    ///
    /// [`Error::NotSupported`] with [`Method::Fallback`].
    pub fn keep(self) -> Result<()> {
        self.needs_file()?;
        self.consumed();
        Ok(())
    }

    fn needs_file(&self) -> Result<()> {
        match self.next.method() {
            Method::NextId => Ok(()),
            Method::Fallback => Err(Error::NotSupported),
        }
    }

    /// The first id, which is the object's own in its innermost namespace.
    fn first(&self) -> Id {
        self.next.ids[0]
    }

    /// Something else has the ids that `action` was to have.
    fn used_up(self, action: Action) -> Error {
        Error::UsedUp { action, ids: self.next.ids.as_slice().into() }
    }

    /// The kernel has used the ids up: there is nothing to disarm.
    fn consumed(self) {
        std::mem::forget(self);
    }

    /// Why `action` failed, which it did with `error`. The ids are disarmed.
    fn refused(self, action: Action, error: io::Error) -> Error {
        Error::refused(action, self.next.ids.as_slice().into(), error)
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        // It cannot fail on a file that has just been written to by the same thread.
        let _ = self.next.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_read_back() {
        assert_eq!(parse_state(b"UNSET\n"), Some(vec![]));
        assert_eq!(parse_state(b"LONGS (1) 4242\n"), Some(vec![4242]));
        assert_eq!(parse_state(b"LONGS (3) 7 -512 9001\n"), Some(vec![7, -512, 9001]));
    }

    #[test]
    fn state_that_is_not_the_kernels_is_refused() {
        for text in ["", "UNSET", "LONGS (2) 7\n", "LONGS (1) 7 \n", "LONGS (0) \n", "LONGS () 7\n"]
        {
            assert_eq!(parse_state(text.as_bytes()), None, "{text:?}");
        }
    }
}
