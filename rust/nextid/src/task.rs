// SPDX-License-Identifier: GPL-2.0

//! Processes and threads.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{self, Command, ExitStatus};
use std::sync::mpsc;
use std::thread::{self, Builder, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{ForkResult, Pid, fork, getpid, gettid};

use crate::error::{Action, Error, Feature, Result};
use crate::fallback;
use crate::kind::Kind;
use crate::namespace::{levels_below, may_have, visible_levels};
use crate::next_id::{Armed, Method, Request, sealed};

/// What a forked child exits with where its code panics, as a Rust program does.
const PANIC_STATUS: i32 = 101;

/// A forked process.
#[derive(Debug)]
#[must_use = "a child that is not waited for stays as a zombie"]
pub struct Child {
    pid: Pid,
}

impl Child {
    /// Its id in the caller's pid namespace.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Waits until it ends.
    ///
    /// # Errors
    ///
    /// [`Error::System`] where it was waited for already, by `wait(2)` for any child, or where
    /// `SIGCHLD` is ignored, which a program can inherit.
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

/// The ids of a process or thread to be created: the first is its id in its own (innermost) pid
/// namespace, the second the one in the namespace above, and so on. Ids further out are left to the
/// kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pids<'a>(pub &'a [i64]);

impl sealed::Request for Pids<'_> {}

impl Request for Pids<'_> {
    fn kind(&self) -> Kind {
        Kind::Task
    }

    fn ids(&self) -> &[i64] {
        self.0
    }
}

impl Armed<'_, Pids<'_>> {
    /// Forks a process with these ids, which runs `child` and exits with what it returns.
    ///
    /// The child does not run the parent's exit handlers, nor flush its buffers. It exits with 101
    /// where `child` panics, or where something else used the ids up (`child` then does not run).
    /// The parent's `next_id` file is closed in it.
    ///
    /// The id in the caller's own pid namespace is not the first where `unshare(CLONE_NEWPID)` or
    /// `setns(2)` came before: `ids[0]` then is the one in the namespace chosen for children. In a
    /// new one the first child must be 1.
    ///
    /// A thread that was joined still takes a moment to be gone, which this waits for; where a
    /// tracer keeps it, as `wait(2)` does, until the tracer lets it go.
    ///
    /// # Errors
    ///
    /// [`Error::Threaded`] where this process has other threads: the child would have only this
    /// one, and any lock that another held would stay locked. The first thread counts though it has
    /// ended: it stays as long as its process. [`Error::Taken`], [`Error::OutOfRange`],
    /// [`Error::TooManyLevels`], [`Error::NotPermitted`] where the ids cannot be had,
    /// [`Error::UsedUp`] where something else got them, and [`Error::System`] for any other reason.
    /// The ids are disarmed then.
    pub fn fork(self, child: impl FnOnce() -> i32) -> Result<Child> {
        if !is_single_threaded().map_err(|error| Error::system(Action::Fork, error))? {
            return Err(Error::Threaded);
        }
        let forked = match self.next.method() {
            // SAFETY: No other thread exists, and none but this one could create any: in the child
            // no lock is held by a thread that it does not have.
            Method::NextId | Method::AnyKind => unsafe { fork() }.map_err(io::Error::from),
            // SAFETY: As above.
            Method::Fallback => unsafe { fallback::fork(self.request.0) },
        };
        match forked {
            Ok(ForkResult::Parent { child: pid }) => {
                let child = Child { pid };
                if !may_have(child.pid(), self.request.0) {
                    // It has seen that, too, and ends.
                    let _ = child.wait();
                    return Err(self.used_up(Action::Fork));
                }
                self.consumed();
                Ok(child)
            }
            Ok(ForkResult::Child) => {
                self.next.close();
                let status = if i64::from(getpid().as_raw()) == self.first() {
                    catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANIC_STATUS)
                } else {
                    PANIC_STATUS
                };
                // SAFETY: It has no preconditions.
                unsafe { libc::_exit(status) }
            }
            Err(error) => Err(self.not_created(Action::Fork, error)),
        }
    }

    /// Starts a program in a process with these ids.
    ///
    /// # Errors
    ///
    /// As [`Armed::fork`], but for [`Error::Threaded`]. [`Error::System`] where the process got its
    /// ids and the program could not be executed. [`Error::NotSupported`] with
    /// [`Method::Fallback`].
    pub fn spawn(self, command: &mut Command) -> Result<process::Child> {
        self.needs_file()?;
        match command.spawn() {
            Ok(mut child) => {
                if !child.id().try_into().is_ok_and(|pid| may_have(pid, self.request.0)) {
                    // It may have ended by itself.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(self.used_up(Action::Spawn));
                }
                self.consumed();
                Ok(child)
            }
            // One errno stands for two steps: the kernel tells which one failed by what it still
            // has armed, where that can be read.
            Err(error) if self.next.armed().is_ok_and(|armed| armed.is_none()) => {
                self.consumed();
                Err(Error::system(Action::Spawn, error))
            }
            Err(error) => Err(self.not_created(Action::Spawn, error)),
        }
    }

    /// Creates a thread with these ids, made by `builder`, which runs `run`.
    ///
    /// # Errors
    ///
    /// As [`Armed::fork`], but for [`Error::Threaded`]. [`Error::NotSupported`] with
    /// [`Method::Fallback`] and more than one id. No thread can be created where `unshare(2)` or
    /// `setns(2)` chose another pid namespace for children.
    ///
    /// A thread with another id is ended by unwinding: where panics abort, it ends the process.
    pub fn thread<T, F>(self, builder: Builder, run: F) -> Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let is_fallback = self.next.method() == Method::Fallback;
        let turn = match *self.request.0 {
            _ if !is_fallback => Ok(None),
            [id] => fallback::next_thread(id).map(Some),
            _ => return Err(Error::NotSupported(Feature::File)),
        };
        match turn.and_then(|_turn| thread_with_id(self.first(), builder, run)) {
            Ok(Some(thread)) => {
                self.consumed();
                Ok(thread)
            }
            Ok(None) if is_fallback => Err(self.not_created(Action::Thread, Errno::EBUSY.into())),
            Ok(None) => Err(self.used_up(Action::Thread)),
            Err(error) => Err(self.not_created(Action::Thread, error)),
        }
    }

    /// Creates a thread with these ids by `create`, for threads that the standard library does not
    /// make. It returns the id of the thread, or the error of the kernel.
    ///
    /// # Errors
    ///
    /// As [`Armed::thread`]; [`Error::NotSupported`] with [`Method::Fallback`]. A thread with
    /// another id goes on: [`Error::UsedUp`] tells of it.
    pub fn thread_by(self, create: impl FnOnce() -> io::Result<i32>) -> Result<i32> {
        self.needs_file()?;
        match create() {
            Ok(tid) if i64::from(tid) == self.first() => {
                self.consumed();
                Ok(tid)
            }
            Ok(_) => Err(self.used_up(Action::Thread)),
            Err(error) => Err(self.not_created(Action::Thread, error)),
        }
    }

    /// Why `action` failed, which it did with `error`. The ids are disarmed.
    fn not_created(self, action: Action, error: io::Error) -> Error {
        let ids = self.request.0;
        if error.raw_os_error() != Some(Errno::EINVAL as i32) {
            return self.refused(action, error);
        }
        if action == Action::Thread && levels_below() != 0 {
            let why = "none can be, since unshare(2) or setns(2) chose another pid namespace for \
                       children";
            return Error::System { action, ids: ids.into(), source: io::Error::other(why) };
        }
        match visible_levels() {
            Some(levels) if levels < ids.len() => {
                Error::TooManyLevels { action, ids: ids.into(), levels }
            }
            _ => self.refused(action, error),
        }
    }
}

/// Creates a thread that runs `run` if it came out with `id`, and returns it then.
fn thread_with_id<T, F>(id: i64, builder: Builder, run: F) -> io::Result<Option<JoinHandle<T>>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let (tell, told) = mpsc::channel();
    let thread = builder.spawn(move || {
        let right = i64::from(gettid().as_raw()) == id;
        // It is waited for.
        let _ = tell.send(right);
        if right { run() } else { resume_unwind(Box::new(())) }
    })?;
    if told.recv() == Ok(true) {
        return Ok(Some(thread));
    }
    let _ = thread.join();
    Ok(None)
}

/// Whether the calling thread is the only one of its process, where need be after those that have
/// ended are gone.
fn is_single_threaded() -> io::Result<bool> {
    loop {
        // A directory has a link for itself, one for its name, and one for each directory in it:
        // here a directory for each thread.
        if fs::metadata("/proc/self/task")?.nlink() == 3 {
            return Ok(true);
        }
        if other_thread_stays()? {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether `/proc` shows a thread of this process, other than the calling one, that has not ended,
/// or is the first one, which is there until all have ended.
fn other_thread_stays() -> io::Result<bool> {
    // As `/proc` has it: its pid namespace may be another.
    let first = fs::read_link("/proc/self")?;
    let mut staying = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?;
        // One that is gone meanwhile has ended.
        let stat = fs::read(thread.path().join("stat"));
        let is_first = *thread.file_name() == *first;
        staying += usize::from(is_first || stat.is_ok_and(|stat| !has_ended(&stat)));
    }
    Ok(staying > 1)
}

/// Whether the thread with this `stat` has ended, which is so before another can have joined it.
fn has_ended(stat: &[u8]) -> bool {
    /// `PF_EXITING` of the kernel's `<linux/sched.h>`.
    const EXITING: u64 = 0x4;

    // The name, in parentheses, may hold anything. The flags are the seventh field after it.
    let fields = stat.rsplit(|&byte| byte == b')').next().unwrap_or_default();
    let flags = String::from_utf8_lossy(fields).split_whitespace().nth(6).map(str::parse::<u64>);
    matches!(flags, Some(Ok(flags)) if flags & EXITING != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_runs_has_not_ended() {
        let stat = fs::read("/proc/thread-self/stat").expect("to read");
        assert!(!has_ended(&stat));
    }

    #[test]
    fn a_thread_that_exits_has_ended_whatever_its_name() {
        assert!(has_ended(b"42 (a) S 1 \xff) R 1 42 42 0 -1 4194372 0 0"));
        assert!(!has_ended(b"42 (a) S 1 \xff) R 1 42 42 0 -1 4194368 4 4"));
    }
}
