// SPDX-License-Identifier: GPL-2.0

//! The restore itself: what a checkpoint/restore tool would do.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nextid::{IPC_PRIVATE, Id, NextId};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::wait::{wait, waitpid};
use nix::unistd::{self, ForkResult, Gid, Pid, Uid, fork};

use crate::scene::{Kind, Object, Process, Scene, Thread};

/// Whose namespaces the objects are restored in.
#[derive(Clone, Copy)]
pub enum Namespaces {
    /// Those of root: a new IPC namespace is all that is needed.
    Root,
    /// Those of an unprivileged user: a new user namespace, and all others in it.
    Unprivileged,
}

/// The uid and gid of the unprivileged user, "nobody" on most systems.
pub const NOBODY: u32 = 65534;

/// How long no news may come from what is restored, in milliseconds.
const PATIENCE: u16 = 60_000;

/// A scene that stands.
pub struct Restored {
    restorer: Pid,
    /// What became of each object, by its name: the id that it sees itself, or why there is none.
    reports: HashMap<String, Result<Id, String>>,
    /// All processes and threads end when this is closed.
    release: File,
}

impl Restored {
    /// Restores `scene` from a child process.
    pub fn new(scene: &'static Scene) -> Result<Self> {
        let (reports, report) = pipe()?;
        let (held, release) = pipe()?;
        // SAFETY: This program has no other thread.
        let restorer = match unsafe { fork() }? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                drop(release);
                let crew: &'static Crew = Box::leak(Box::new(Crew { report, held }));
                if let Err(error) = crew.restore(scene) {
                    crew.report("", Err(&error));
                }
                // SAFETY: It has no preconditions.
                unsafe { libc::_exit(0) }
            }
        };
        drop((report, held));
        let reports = collect(reports, scene.len())?;
        Ok(Self { restorer, reports, release })
    }

    /// The process that restored all others.
    pub fn pid(&self) -> i32 {
        self.restorer.as_raw()
    }

    /// Whether the task called `name` came to be, and calls itself `id`.
    pub fn task(&self, name: &str, id: Id) -> Result<(), String> {
        match self.reports.get(name) {
            Some(Ok(got)) if *got == id => Ok(()),
            Some(Ok(got)) => Err(format!("{got}, as it sees itself")),
            Some(Err(why)) => Err(why.clone()),
            None => Err("no news of it".to_owned()),
        }
    }

    /// Whether the IPC object that was to have `id` came to be, and its creator was given that id.
    pub fn object(&self, id: Id) -> Result<(), String> {
        self.task(&id.to_string(), id)
    }

    /// Ends all processes; the IPC objects go with their namespace.
    pub fn take_down(self) -> Result<()> {
        drop(self.release);
        waitpid(self.restorer, None)?;
        Ok(())
    }
}

/// Reads the reports of `count` objects, or as many as come.
fn collect(reports: File, count: usize) -> Result<HashMap<String, Result<Id, String>>> {
    let mut collected = HashMap::new();
    let mut reports = BufReader::new(reports);
    while collected.len() < count {
        if reports.buffer().is_empty() {
            let mut ready = [PollFd::new(reports.get_ref().as_fd(), PollFlags::POLLIN)];
            let heard = poll(&mut ready, PollTimeout::from(PATIENCE))?;
            ensure!(heard > 0, "the restore hangs: {} of {count} objects so far", collected.len());
        }
        let mut line = String::new();
        if reports.read_line(&mut line)? == 0 {
            break;
        }
        let (name, result) = line.trim_end().split_once('\t').context("a report of no form")?;
        let result = result.parse().map_err(|_| result.to_owned());
        match result {
            Err(why) if name.is_empty() => return Err(anyhow!(why)),
            _ => collected.insert(name.to_owned(), result),
        };
    }
    Ok(collected)
}

/// What the restored processes have in common.
struct Crew {
    report: File,
    held: File,
}

impl Crew {
    /// Restores all that is in `scene`, and stays until it is to be taken down.
    fn restore(&'static self, scene: &'static Scene) -> Result<()> {
        match scene.namespaces {
            Namespaces::Root => unshare(CloneFlags::CLONE_NEWIPC)?,
            Namespaces::Unprivileged => become_unprivileged()?,
        }
        let mut next = NextId::open()?;
        for object in scene.objects {
            let made = create(&mut next, object);
            self.report(&object.id().to_string(), made.as_ref().map(|id| *id));
        }
        self.fork(&mut next, &scene.first);
        self.wait();
        Ok(())
    }

    /// Restores `process`, as a child of the calling one.
    ///
    /// A process makes a new pid namespace for its last child only, and has no threads then:
    /// after `unshare()` all later children would be in that namespace, and threads cannot be.
    fn fork(&'static self, next: &mut NextId, process: &'static Process) {
        let made = (|| -> Result<_> {
            if process.ids[0] == 1 {
                unshare(CloneFlags::CLONE_NEWPID)?;
            }
            Ok(next.arm(process.ids)?.fork(|| self.live(process))?)
        })();
        if let Err(error) = made {
            self.report(process.name, Err(&error));
            self.report_missing(process);
        }
    }

    /// The life of `process`: it restores what hangs on it, and waits for the end.
    fn live(&'static self, process: &'static Process) -> i32 {
        let made = (|| -> Result<()> {
            prctl::set_name(&CString::new(process.name)?)?;
            let mut next = NextId::open()?;
            // Children first: a process with threads is not to fork.
            for child in process.children {
                self.fork(&mut next, child);
            }
            for thread in process.threads {
                self.thread(&mut next, thread);
            }
            Ok(())
        })();
        let pid = Id::from(unistd::getpid().as_raw());
        self.report(process.name, made.as_ref().map(|()| pid));
        self.wait();
        0
    }

    /// Restores a thread of the calling process.
    fn thread(&'static self, next: &mut NextId, thread: &'static Thread) {
        let made = (|| -> Result<_> {
            let builder = thread::Builder::new().name(thread.name.to_owned());
            Ok(next.arm(thread.ids)?.thread(builder, || {
                self.report(thread.name, Ok(Id::from(unistd::gettid().as_raw())));
                self.wait();
            })?)
        })();
        if let Err(error) = made {
            self.report(thread.name, Err(&error));
        }
    }

    /// Reports all that hangs on a process that could not be made.
    fn report_missing(&self, process: &Process) {
        let why = anyhow!("not restored, since {} is not there", process.name);
        for thread in process.threads {
            self.report(thread.name, Err(&why));
        }
        for child in process.children {
            self.report(child.name, Err(&why));
            self.report_missing(child);
        }
    }

    /// Says what became of the object called `name`. A line is short enough to be written whole.
    fn report(&self, name: &str, result: Result<Id, &anyhow::Error>) {
        let line = match result {
            Ok(id) => format!("{name}\t{id}\n"),
            Err(error) => format!("{name}\t{error:#}\n"),
        };
        // Where nobody listens, nobody waits for it either.
        let _ = (&self.report).write_all(line.as_bytes());
    }

    /// Waits until the scene is taken down, and all children with it.
    fn wait(&self) {
        // All ends are the same: there is nothing to stay for.
        let _ = (&self.held).read(&mut [0]);
        while wait().is_ok() {}
    }
}

/// Becomes a user without any privilege, and root in a user namespace of its own.
fn become_unprivileged() -> Result<()> {
    unistd::setgroups(&[])?;
    unistd::setresgid(Gid::from(NOBODY), Gid::from(NOBODY), Gid::from(NOBODY))?;
    unistd::setresuid(Uid::from(NOBODY), Uid::from(NOBODY), Uid::from(NOBODY))?;
    // Else the files in /proc/self belong to root.
    prctl::set_dumpable(true)?;
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWIPC)
        .context("cannot make a user namespace as an unprivileged user")?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("0 {NOBODY} 1"))?;
    fs::write("/proc/self/uid_map", format!("0 {NOBODY} 1"))?;
    Ok(())
}

/// Creates a System V IPC object by id.
fn create(next: &mut NextId, object: &Object) -> Result<Id> {
    let armed = next.arm(&[object.id()])?;
    let id = match object.kind {
        Kind::Queue => armed.message_queue(IPC_PRIVATE, 0o600),
        Kind::Semaphores => armed.semaphore_set(IPC_PRIVATE, 3, 0o600),
        Kind::Segment => armed.shared_memory(IPC_PRIVATE, 4096, 0o600),
    };
    Ok(Id::from(id?))
}

fn pipe() -> Result<(File, File)> {
    let (read, write) = unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    Ok((read.into(), write.into()))
}
