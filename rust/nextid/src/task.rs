// SPDX-License-Identifier: GPL-2.0

//! Processes and threads.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{self, Command, ExitStatus};
use std::thread::{Builder, JoinHandle};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{ForkResult, Pid, fork};

use crate::{Action, Armed, Error, Method, Result, peers};

/// What a forked child exits with where its code panics, as a Rust program does.
const PANIC_STATUS: i32 = 101;

/// A forked process.
#[derive(Debug)]
#[must_use = "a child that is not waited for stays as a zombie"]
pub struct Child {
    pid: Pid,
}

impl Child {
    /// Its id in the caller's pid namespace, or 0 where it has none there.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Waits until it ends.
    ///
    /// # Errors
    ///
    /// [`Error::System`] where it was waited for already, by `wait(2)` for any child.
    pub fn wait(self) -> Result<ExitStatus> {
        let mut status = 0;
        loop {
            // SAFETY: `status` is valid for a write of an `int`.
            let pid = unsafe { libc::waitpid(self.pid.as_raw(), &raw mut status, libc::__WALL) };
            match Errno::result(pid) {
                Ok(_) => return Ok(ExitStatus::from_raw(status)),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::system(Action::Wait, errno.into())),
            }
        }
    }
}

impl Armed<'_> {
    /// Forks a process with these ids, which runs `child` and exits with what it returns.
    ///
    /// The child does not run the parent's exit handlers, nor flush its buffers; it exits with 101
    /// where `child` panics.
    ///
    /// The id in the caller's own pid namespace is not the first where `unshare(CLONE_NEWPID)` came
    /// before: the child then is the first of a new pid namespace, so that `ids[0]` must be 1.
    ///
    /// # Errors
    ///
    /// [`Error::Threaded`] where this process has other threads: the child would have only this
    /// one, and any lock that another held would stay locked. [`Error::Taken`],
    /// [`Error::OutOfRange`], [`Error::TooManyLevels`], [`Error::NotPermitted`] where the ids cannot
    /// be had, and [`Error::System`] for any other reason. The ids are disarmed then.
    pub fn fork(self, child: impl FnOnce() -> i32) -> Result<Child> {
        if !is_single_threaded().map_err(|error| Error::system(Action::Fork, error))? {
            return Err(Error::Threaded);
        }
        let forked = match self.next.method() {
            // SAFETY: No other thread exists, and none but this one could create any: in the child
            // no lock is held by a thread that it does not have.
            Method::NextId => unsafe { fork() },
            // SAFETY: As above.
            Method::Peers => unsafe { peers::fork(&self.next.ids) },
        };
        match forked {
            Ok(ForkResult::Parent { child }) => {
                self.consumed();
                Ok(Child { pid: child })
            }
            Ok(ForkResult::Child) => {
                let status = catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANIC_STATUS);
                // SAFETY: It has no preconditions.
                unsafe { libc::_exit(status) }
            }
            Err(errno) => Err(self.refused(Action::Fork, errno.into())),
        }
    }

    /// Starts a program in a process with these ids.
    ///
    /// # Errors
    ///
    /// As [`Armed::fork`], but for [`Error::Threaded`]. [`Error::System`] where the process got its
    /// ids and the program could not be executed. [`Error::NotSupported`] with [`Method::Peers`].
    pub fn spawn(self, command: &mut Command) -> Result<process::Child> {
        self.needs_file()?;
        match command.spawn() {
            Ok(child) => {
                self.consumed();
                Ok(child)
            }
            // One errno stands for two steps: the kernel tells which one failed by what it still
            // has armed.
            Err(error) if self.next.armed()?.is_empty() => {
                self.consumed();
                Err(Error::system(Action::Spawn, error))
            }
            Err(error) => Err(self.refused(Action::Spawn, error)),
        }
    }

    /// Creates a thread with these ids, made by `builder`, which runs `run`.
    ///
    /// # Errors
    ///
    /// As [`Armed::fork`], but for [`Error::Threaded`]. [`Error::NotSupported`] with
    /// [`Method::Peers`] and more than one id.
    pub fn thread<T, F>(self, builder: Builder, run: F) -> Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let created = match (self.next.method(), &*self.next.ids) {
            (Method::NextId, _) => builder.spawn(run),
            (Method::Peers, &[id]) => peers::thread(id, builder, run),
            (Method::Peers, _) => return Err(Error::NotSupported),
        };
        match created {
            Ok(thread) => {
                self.consumed();
                Ok(thread)
            }
            Err(error) => Err(self.refused(Action::Thread, error)),
        }
    }
}

/// Whether the calling thread is the only one of its process.
fn is_single_threaded() -> io::Result<bool> {
    // A directory has a link for itself, one for its name, and one for each directory in it: here
    // a directory for each thread.
    Ok(fs::metadata("/proc/self/task")?.nlink() == 3)
}

/// In how many nested pid namespaces a child would be, as far as `/proc` shows: those from the one
/// that `/proc` was mounted in inwards.
pub(crate) fn visible_levels() -> Option<usize> {
    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    let own =
        status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().count();
    Some(own + usize::from(is_in_new_namespace()))
}

/// Whether a child would be the first process of a new pid namespace.
pub(crate) fn is_in_new_namespace() -> bool {
    // The link leads nowhere until the first process is there.
    fs::read_link("/proc/thread-self/ns/pid_for_children").is_err()
}
