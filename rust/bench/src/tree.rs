// SPDX-License-Identifier: GPL-2.0

//! A tree to dump: as many processes, threads and IPC objects as are wanted, which do nothing.

use std::fs::OpenOptions;
use std::io::Read;
use std::process::{Command, Stdio};
use std::ptr;
use std::sync::Barrier;

use anyhow::{Context, Result, ensure};
use clap::Args;
use nextid::IpcKind;
use nix::errno::Errno;
use nix::libc::{self, c_void};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{ForkResult, Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};

use crate::sys;

/// What a tree is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct Tree {
    /// How many processes; all but the first are its children
    #[arg(long)]
    pub processes: u64,
    /// How many threads each of them has
    #[arg(long)]
    pub threads: u64,
    /// How many IPC objects there are
    #[arg(long)]
    pub objects: u64,
}

impl Tree {
    /// Starts it in a pid and an IPC namespace of its own, by a program that is new, so that the
    /// dump has no memory of this one. Returns its first process, once all of it is there.
    pub fn start(self) -> Result<Pid> {
        let mut program = Command::new(std::env::current_exe()?)
            .arg("tree")
            .args(["--processes", &self.processes.to_string()])
            .args(["--threads", &self.threads.to_string()])
            .args(["--objects", &self.objects.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut pid = String::new();
        // Each process of the tree has it open until it is ready.
        let output = program.stdout.as_mut().context("its output is a pipe")?;
        output.read_to_string(&mut pid)?;
        ensure!(program.wait()?.success(), "the tree to dump could not be made");
        Ok(Pid::from_raw(pid.trim().parse().context("the first process of the tree to dump")?))
    }

    /// Makes it, and prints its first process.
    pub fn make(self) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC)?;
        // SAFETY: This process has no other thread.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                println!("{child}");
                Ok(())
            }
            ForkResult::Child => self.live_first(),
        }
    }

    /// The life of the first process.
    fn live_first(self) -> ! {
        let begin = || -> Result<()> {
            setsid()?;
            chdir("/tmp")?;
            for kind in IpcKind::ALL.into_iter().cycle().take(usize::try_from(self.objects)?) {
                sys::create(kind).context("an IPC object")?;
            }
            for _ in 1..self.processes {
                // SAFETY: There is no other thread yet.
                if let ForkResult::Child = unsafe { fork() }? {
                    self.live(Ok(()));
                }
            }
            Ok(())
        };
        self.live(begin())
    }

    /// Makes the threads of a process, which stays unless something has failed.
    fn live(self, begun: Result<()>) -> ! {
        let settled = begun.and_then(|()| {
            start_threads(usize::try_from(self.threads)?)?;
            let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
            dup2_stdin(&null)?;
            dup2_stderr(&null)?;
            // SAFETY: Nothing that it closes is used again: what follows never returns.
            unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
            // Whoever waits for all to be ready reads what this was.
            Ok(dup2_stdout(std::io::stdin())?)
        });
        if let Err(error) = settled {
            eprintln!("bench: the tree to dump: {error:#}");
            // SAFETY: It has no preconditions.
            unsafe { libc::_exit(1) }
        }
        loop {
            nix::unistd::pause();
        }
    }
}

/// Starts threads until there are `count`, as programs in C do.
fn start_threads(count: usize) -> Result<()> {
    let all_there: &Barrier = Box::leak(Box::new(Barrier::new(count)));
    for _ in 1..count {
        let mut thread = 0;
        let argument = ptr::from_ref(all_there).cast_mut().cast();
        // SAFETY: The barrier stays for good.
        let error = unsafe { libc::pthread_create(&raw mut thread, ptr::null(), pause, argument) };
        ensure!(error == 0, "a thread: {}", Errno::from_raw(error));
    }
    all_there.wait();
    Ok(())
}

/// The life of a thread.
extern "C" fn pause(all_there: *mut c_void) -> *mut c_void {
    // SAFETY: It is the barrier of `start_threads()`.
    unsafe { &*all_there.cast::<Barrier>() }.wait();
    loop {
        nix::unistd::pause();
    }
}
