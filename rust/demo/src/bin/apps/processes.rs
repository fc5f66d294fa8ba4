// SPDX-License-Identifier: GPL-2.0

//! Processes that other programs have started: this one looks after them.

use std::path::Path;

use anyhow::{Result, ensure};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use procfs::process::Process;
use testing::wait_until;

/// Makes this process the parent of whatever its descendants leave behind.
pub fn adopt_orphans() -> nix::Result<()> {
    prctl::set_child_subreaper(true)
}

/// Waits until a process has ended and its pid is free.
pub fn wait_for_end(pid: Pid) -> Result<()> {
    let is_gone = wait_until(|| {
        while !matches!(
            waitpid(None, Some(WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::StillAlive) | Err(_)
        ) {}
        !Path::new(&format!("/proc/{pid}")).exists()
    });
    ensure!(is_gone, "process {pid} does not end");
    Ok(())
}

/// Kills a process and all below it.
pub fn kill_tree(first: Pid) {
    for pid in below(first) {
        // It may have ended with the one above it.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// A process and all below it.
fn below(first: Pid) -> Vec<i32> {
    let mut all = vec![first.as_raw()];
    let mut place = 0;
    while let Some(&pid) = all.get(place) {
        place += 1;
        let tasks = Process::new(pid).and_then(|process| process.tasks());
        for task in tasks.into_iter().flatten().flatten() {
            let children = task.children().unwrap_or_default();
            all.extend(children.into_iter().filter_map(|child| i32::try_from(child).ok()));
        }
    }
    all
}
