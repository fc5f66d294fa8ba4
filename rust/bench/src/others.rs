// SPDX-License-Identifier: GPL-2.0

//! Processes beside which something is measured.

use std::fs::File;
use std::io::{self, Read, Write};

use anyhow::{Context, Result, ensure};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe};

/// Processes that do the same thing again and again until they are ended.
pub struct Others(Vec<Pid>);

impl Others {
    /// Nobody.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Starts two that take turns of their own.
    pub fn start_two(turn: impl Fn() -> io::Result<()>) -> Result<Self> {
        let mut others = Self(Vec::new());
        for _ in 0..2 {
            others.add(|| Ok(()), |()| Ok(turn()?))?;
        }
        Ok(others)
    }

    /// Starts one that prepares before its first turn. Returns when it has.
    pub fn start_prepared<T>(
        prepare: impl FnOnce() -> Result<T>,
        turn: impl Fn(&T) -> Result<()>,
    ) -> Result<Self> {
        let mut others = Self(Vec::new());
        others.add(prepare, turn)?;
        Ok(others)
    }

    fn add<T>(
        &mut self,
        prepare: impl FnOnce() -> Result<T>,
        turn: impl Fn(&T) -> Result<()>,
    ) -> Result<()> {
        let (ready, prepared) = pipe()?;
        // SAFETY: This process has no other thread.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                self.0.push(child);
                drop(prepared);
                let told = File::from(ready).read_exact(&mut [0]);
                told.context("a process to measure beside did not get ready: it says why above")
            }
            ForkResult::Child => {
                let run = || -> Result<()> {
                    let state = prepare()?;
                    File::from(prepared).write_all(&[1])?;
                    loop {
                        turn(&state)?;
                    }
                };
                if let Err(error) = run() {
                    eprintln!("bench: a process to measure beside: {error:#}");
                }
                // SAFETY: It has no preconditions.
                unsafe { libc::_exit(1) }
            }
        }
    }

    /// Lets them do nothing until they are resumed.
    pub fn suspend(&self) -> Result<()> {
        for &pid in &self.0 {
            kill(pid, Signal::SIGSTOP)?;
            let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED))?;
            ensure!(
                matches!(stopped, WaitStatus::Stopped(..)),
                "a process that others were to be measured beside ended early: {stopped:?}"
            );
        }
        Ok(())
    }

    /// Lets them go on.
    pub fn resume(&self) -> Result<()> {
        Ok(self.0.iter().try_for_each(|&pid| kill(pid, Signal::SIGCONT))?)
    }

    /// Ends them. It is an error where one had ended before: what was measured was not beside all.
    pub fn end(mut self) -> Result<()> {
        while let Some(pid) = self.0.pop() {
            let ended = end(pid)?;
            ensure!(
                matches!(ended, WaitStatus::Signaled(_, Signal::SIGKILL, _)),
                "a process that others were to be measured beside ended early: {ended:?}"
            );
        }
        Ok(())
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for &pid in &self.0 {
            // There is an error already.
            let _ = end(pid);
        }
    }
}

/// Kills a child, which may have ended by itself, and tells how it ended.
fn end(child: Pid) -> nix::Result<WaitStatus> {
    kill(child, Signal::SIGKILL)?;
    waitpid(child, None)
}
