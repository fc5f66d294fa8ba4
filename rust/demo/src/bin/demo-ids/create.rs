// SPDX-License-Identifier: GPL-2.0

//! Creates the objects of a scenario, as a checkpoint/restore tool would.

use std::collections::HashMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nextid::{IPC_PRIVATE, IpcKind, MessageQueue, NextId, Pids, SemaphoreSet, SharedMemory};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::wait::{wait, waitpid};
use nix::unistd::{self, ForkResult, Gid, Pid, Uid, fork};

use crate::scenario::{Namespaces, Object, Process, Scenario, Thread};

/// The uid and gid of the unprivileged user, "nobody" on most systems.
pub const NOBODY: u32 = 65534;

/// How long none of the objects may be reported, in milliseconds.
const TIME_LIMIT: u16 = 60_000;

/// The objects of a scenario.
pub struct Created {
    creator: Pid,
    /// What became of each object, by its name: the id that it sees itself, or why there is none.
    reports: HashMap<String, Result<i64, String>>,
    /// All processes and threads end when this is closed.
    release: File,
}

impl Created {
    /// Creates the objects of `scenario` from a child process.
    pub fn new(scenario: &'static Scenario) -> Result<Self> {
        let (reports, report) = pipe()?;
        let (hold, release) = pipe()?;
        // SAFETY: This program has no other thread.
        let creator = match unsafe { fork() }? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                drop(release);
                let pipes: &'static Pipes = Box::leak(Box::new(Pipes { report, hold }));
                if let Err(error) = pipes.create_all(scenario) {
                    pipes.report("", Err(&error));
                }
                // SAFETY: It has no preconditions.
                unsafe { libc::_exit(0) }
            }
        };
        drop((report, hold));
        let reports = collect(reports, scenario.len())?;
        Ok(Self { creator, reports, release })
    }

    /// The process that created all others.
    pub fn pid(&self) -> i32 {
        self.creator.as_raw()
    }

    /// Whether the task called `name` came to be, and calls itself `id`.
    pub fn task(&self, name: &str, id: i64) -> Result<(), String> {
        match self.reports.get(name) {
            Some(Ok(got)) if *got == id => Ok(()),
            Some(Ok(got)) => Err(format!("{got}, as it sees itself")),
            Some(Err(why)) => Err(why.clone()),
            None => Err("not reported".to_owned()),
        }
    }

    /// Whether the IPC object that was to have `id` came to be, and its creator was given that id.
    pub fn object(&self, id: i64) -> Result<(), String> {
        self.task(&id.to_string(), id)
    }

    /// Ends all processes; the IPC objects go with their namespace.
    pub fn remove(self) -> Result<()> {
        drop(self.release);
        waitpid(self.creator, None)?;
        Ok(())
    }
}

/// Reads the reports of `count` objects, or as many as come.
fn collect(reports: File, count: usize) -> Result<HashMap<String, Result<i64, String>>> {
    let mut collected = HashMap::new();
    let mut reports = BufReader::new(reports);
    while collected.len() < count {
        if reports.buffer().is_empty() {
            let mut ready = [PollFd::new(reports.get_ref().as_fd(), PollFlags::POLLIN)];
            let ready_count = poll(&mut ready, PollTimeout::from(TIME_LIMIT))?;
            ensure!(
                ready_count > 0,
                "no object was reported for {} s: {} of {count} so far",
                TIME_LIMIT / 1000,
                collected.len()
            );
        }
        let mut line = String::new();
        if reports.read_line(&mut line)? == 0 {
            break;
        }
        let (name, result) = line.trim_end().split_once('\t').context("a report without a tab")?;
        let result = result.parse().map_err(|_| result.to_owned());
        match result {
            Err(why) if name.is_empty() => return Err(anyhow!(why)),
            _ => collected.insert(name.to_owned(), result),
        };
    }
    Ok(collected)
}

/// The pipes that all processes of a scenario share.
struct Pipes {
    /// Each object is reported here.
    report: File,
    /// It ends when all processes are to end.
    hold: File,
}

impl Pipes {
    /// Creates all objects of `scenario`, and waits for the end.
    fn create_all(&'static self, scenario: &'static Scenario) -> Result<()> {
        match scenario.namespaces {
            Namespaces::Root => unshare(CloneFlags::CLONE_NEWIPC)?,
            Namespaces::Unprivileged => become_unprivileged()?,
        }
        let mut next = NextId::open()?;
        for object in scenario.objects {
            let made = create_object(&mut next, object);
            self.report(&object.id().to_string(), made.as_ref().map(|id| *id));
        }
        self.create_process(&mut next, &scenario.first);
        self.wait();
        Ok(())
    }

    /// Creates `process`, as a child of the calling one.
    ///
    /// A process makes a new pid namespace for its last child only, and has no threads then:
    /// after `unshare()` all later children would be in that namespace, and threads cannot be.
    fn create_process(&'static self, next: &mut NextId, process: &'static Process) {
        let made = (|| -> Result<_> {
            if process.ids[0] == 1 {
                unshare(CloneFlags::CLONE_NEWPID)?;
            }
            Ok(next.arm(Pids(process.ids))?.fork(|| self.run(process))?)
        })();
        if let Err(error) = made {
            self.report(process.name, Err(&error));
            self.report_missing(process);
        }
    }

    /// What `process` does: it creates its children and threads, and waits for the end.
    fn run(&'static self, process: &'static Process) -> i32 {
        let made = (|| -> Result<()> {
            prctl::set_name(&CString::new(process.name)?)?;
            let mut next = NextId::open()?;
            // Children first: a process with threads is not to fork.
            for child in process.children {
                self.create_process(&mut next, child);
            }
            for thread in process.threads {
                self.create_thread(&mut next, thread);
            }
            Ok(())
        })();
        let pid = i64::from(unistd::getpid().as_raw());
        self.report(process.name, made.as_ref().map(|()| pid));
        self.wait();
        0
    }

    /// Creates a thread of the calling process.
    fn create_thread(&'static self, next: &mut NextId, thread: &'static Thread) {
        let made = (|| -> Result<_> {
            let builder = thread::Builder::new().name(thread.name.to_owned());
            Ok(next.arm(Pids(thread.ids))?.thread(builder, || {
                self.report(thread.name, Ok(i64::from(unistd::gettid().as_raw())));
                self.wait();
            })?)
        })();
        if let Err(error) = made {
            self.report(thread.name, Err(&error));
        }
    }

    /// Reports the threads and children of a process that could not be created.
    fn report_missing(&self, process: &Process) {
        let why = anyhow!("not created, because {} was not", process.name);
        for thread in process.threads {
            self.report(thread.name, Err(&why));
        }
        for child in process.children {
            self.report(child.name, Err(&why));
            self.report_missing(child);
        }
    }

    /// Says what became of the object called `name`. A line is short enough to be written whole.
    fn report(&self, name: &str, result: Result<i64, &anyhow::Error>) {
        let line = match result {
            Ok(id) => format!("{name}\t{id}\n"),
            Err(error) => format!("{name}\t{error:#}\n"),
        };
        // If the reader is gone, the report is not needed.
        let _ = (&self.report).write_all(line.as_bytes());
    }

    /// Waits until the objects are to be removed, and for the end of all children.
    fn wait(&self) {
        // An error is an end as well.
        let _ = (&self.hold).read(&mut [0]);
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
fn create_object(next: &mut NextId, object: &Object) -> Result<i64> {
    let (id, key, mode) = (object.id(), IPC_PRIVATE, 0o600);
    let id = match object.kind {
        IpcKind::MessageQueue => next.arm(MessageQueue(id))?.create(key, mode),
        IpcKind::SemaphoreSet => next.arm(SemaphoreSet(id))?.create(key, 3, mode),
        IpcKind::SharedMemory => next.arm(SharedMemory(id))?.create(key, 4096, mode),
    };
    Ok(i64::from(id?))
}

fn pipe() -> Result<(File, File)> {
    let (read, write) = unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    Ok((read.into(), write.into()))
}
