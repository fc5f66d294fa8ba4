// SPDX-License-Identifier: GPL-2.0

//! Arming ids.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::marker::PhantomData;

use nix::errno::Errno;

use crate::error::{Action, Error, Feature, Result};
use crate::file::{self, Pending};
use crate::kind::Kind;

/// The most ids that an object can have: as deep as pid namespaces nest.
pub const MAX_LEVELS: usize = 33;

/// How the kernel is told the ids of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// By the thread's `next_id` file, for the kind of object that is asked for and no other.
    NextId,
    /// By the `next_id` file of an older kernel, which knows no kinds: what the thread creates next
    /// gets the ids, or fails because of them, though it be a System V IPC object that a library
    /// makes before the process that they are for.
    AnyKind,
    /// By what kernels without that file have: `set_tid` of `clone3(2)` for processes, the sysctls
    /// `ns_last_pid` for threads and `{msg,sem,shm}_next_id` for System V IPC objects.
    ///
    /// The sysctls belong to a namespace, so that any other task in it may use up what was written.
    /// The id that comes out is checked: one that is not as asked is undone, and an error. So it
    /// may fail where the id is free, and for a moment another task may meet the wrong object.
    /// Those who create threads by this library do not disturb each other: they take turns, by a
    /// lock on the file `ns_last_pid` (`flock(2)`).
    Fallback,
}

/// What it is, and what is lost by it.
impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NextId => "/proc/thread-self/next_id",
            Self::AnyKind => {
                "/proc/thread-self/next_id for objects of any kind: another one that the thread \
                 creates in between may use up what is asked for (which is found out, and an error)"
            }
            Self::Fallback => {
                "clone3 with set_tid, and sysctls that another task may use up in between \
                 (which is found out, and an error)"
            }
        })
    }
}

/// What can be asked for: [`Pids`](crate::Pids) of a process or thread, the id of a
/// [`MessageQueue`](crate::MessageQueue), a [`SemaphoreSet`](crate::SemaphoreSet) or
/// [`SharedMemory`](crate::SharedMemory), or the index of a [`Pty`](crate::Pty).
pub trait Request: sealed::Request {
    /// The kind of the object.
    fn kind(&self) -> Kind;

    /// Its ids.
    fn ids(&self) -> &[i64];
}

pub(crate) mod sealed {
    /// No other crate can ask for what this one cannot create.
    pub trait Request {}
}

/// The calling thread's `next_id` file, kept open.
///
/// It serves the thread that opened it and no other. A child of [`Armed::fork`] opens its own: its
/// parent's is closed there.
#[derive(Debug)]
pub struct NextId {
    method: Method,
    /// None for [`Method::Fallback`].
    file: Option<File>,
    /// The text of a command, in a buffer that is used again.
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
        let file = file::open()?;
        let knows_kinds = file::knows(&file, Kind::Task.word());
        let method = if knows_kinds { Method::NextId } else { Method::AnyKind };
        Ok(Self::new(method, Some(file)))
    }

    /// Opens the file of the calling thread, or goes without where the kernel has none:
    /// [`NextId::method`] tells which.
    ///
    /// Without the file [`Armed::leave_armed`] and [`Armed::spawn`] are not supported, nor is a
    /// [`Pty`](crate::Pty), a thread can be given one id only, and a missing capability shows when
    /// an object is created.
    ///
    /// # Errors
    ///
    /// [`Error::NoProc`] where `/proc` cannot tell; [`Error::System`] where there is such a file,
    /// and it cannot be opened.
    pub fn open_or_fallback() -> Result<Self> {
        match Self::open() {
            Err(Error::NotSupported(_)) => Ok(Self::new(Method::Fallback, None)),
            opened => opened,
        }
    }

    fn new(method: Method, file: Option<File>) -> Self {
        Self { method, file, text: Vec::new(), thread: PhantomData }
    }

    /// How ids are asked for.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// Arms ids for the next object of a kind that this thread creates, in one system call. What is
    /// returned creates it.
    ///
    /// ```no_run
    /// use nextid::{IPC_PRIVATE, MessageQueue, NextId, Pids};
    ///
    /// let mut next = NextId::open()?;
    /// let child = next.arm(Pids(&[7, 512]))?.fork(|| 0)?;
    /// let queue = next.arm(MessageQueue(98313))?.create(IPC_PRIVATE, 0o600)?;
    /// # Ok::<(), nextid::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] where the capability is missing, or was as the file was opened, or
    /// where this is another process: a child opens its own. [`Error::OutOfRange`] where no such
    /// object can have such an id; [`Error::Count`] unless a task has 1 to [`MAX_LEVELS`] ids;
    /// [`Error::NotSupported`] for a [`Pty`](crate::Pty) with another method than
    /// [`Method::NextId`]; [`Error::System`] for any other reason. What was armed before stays
    /// armed.
    pub fn arm<R: Request>(&mut self, request: R) -> Result<Armed<'_, R>> {
        let (kind, ids) = (request.kind(), request.ids());
        let action = Action::Arm(kind);
        let count = ids.len();
        if count == 0 || count > MAX_LEVELS {
            return Err(Error::Count { action, count, max: MAX_LEVELS });
        }
        // An older kernel would find out later, and the fallback never.
        if !ids.iter().all(|&id| is_possible(kind, id)) {
            return Err(Error::OutOfRange { action, ids: ids.into() });
        }
        let word = match self.method {
            Method::NextId => kind.word(),
            _ if kind == Kind::Pty => return Err(Error::NotSupported(Feature::Kinds)),
            _ => "LONG",
        };
        let armed = match (&self.file, count) {
            (None, _) => Ok(()),
            (Some(file), 1) => file::write(file, &mut self.text, format_args!("{word}"), ids),
            (Some(file), _) => {
                file::write(file, &mut self.text, format_args!("{word}{count}"), ids)
            }
        };
        match armed {
            Ok(()) => Ok(Armed { next: self, request }),
            Err(error) => Err(match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EPERM) => Error::NotPermitted { action, ids: ids.into() },
                _ => Error::System { action, ids: ids.into(), source: error },
            }),
        }
    }

    /// Returns what is armed.
    ///
    /// # Errors
    ///
    /// [`Error::NotPermitted`] where this process is not dumpable, as one that has changed its user
    /// id, or has capabilities of its file: what it has armed can be read again once it has called
    /// `prctl(PR_SET_DUMPABLE, 1)`, or executed a program. [`Error::System`] where the file cannot
    /// be read for any other reason.
    pub fn armed(&self) -> Result<Option<Pending>> {
        match self.method {
            Method::NextId | Method::AnyKind => file::read_own(),
            Method::Fallback => Ok(None),
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

    /// Closes the file, in a child whose parent it serves: a process deep in a tree would have one
    /// of each ancestor.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }
}

/// Whether an object can have this id in some namespace.
fn is_possible(kind: Kind, id: i64) -> bool {
    i32::try_from(id).is_ok_and(|id| id >= i32::from(kind == Kind::Task))
}

/// Ids that are armed, waiting for the one object that is to get them.
///
/// Each method that creates an object consumes it. Where the creation fails, or none is asked for,
/// the ids are disarmed again, so that no later object gets them by accident.
#[derive(Debug)]
#[must_use = "the ids are disarmed at once where no object is created with them"]
pub struct Armed<'a, R: Request> {
    pub(crate) next: &'a mut NextId,
    pub(crate) request: R,
}

impl<R: Request> Armed<'_, R> {
    /// Leaves the ids armed for an object that this thread creates by other means, before it
    /// executes a program: that disarms.
    ///
    /// # Errors
    ///
    /// [`Error::NotSupported`] with [`Method::Fallback`].
    pub fn leave_armed(self) -> Result<()> {
        self.needs_file()?;
        self.consumed();
        Ok(())
    }

    pub(crate) fn needs_file(&self) -> Result<()> {
        match self.next.method {
            Method::NextId | Method::AnyKind => Ok(()),
            Method::Fallback => Err(Error::NotSupported(Feature::File)),
        }
    }

    /// The first id, which is the object's own in its innermost namespace.
    pub(crate) fn first(&self) -> i64 {
        self.request.ids()[0]
    }

    /// Something else has the ids that `action` was to have.
    pub(crate) fn used_up(self, action: Action) -> Error {
        Error::UsedUp { action, ids: self.request.ids().into() }
    }

    /// The kernel has used the ids up: there is nothing to disarm.
    pub(crate) fn consumed(self) {
        std::mem::forget(self);
    }

    /// Why `action` failed, which it did with `error`. The ids are disarmed.
    pub(crate) fn refused(self, action: Action, error: io::Error) -> Error {
        Error::refused(action, self.request.ids(), error)
    }
}

impl<R: Request> Drop for Armed<'_, R> {
    fn drop(&mut self) {
        // It cannot fail on a file that has just been written to by the same thread.
        let _ = self.next.reset();
    }
}
