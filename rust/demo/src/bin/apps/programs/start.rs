// SPDX-License-Identifier: GPL-2.0

//! How a program is started.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::unistd::Pid;
use procfs::process::Process;
use testing::wait_until;

/// Starts a command in a session of its own, without a terminal.
pub fn in_session(folder: &Path, command: &[&str]) -> Result<Pid> {
    spawn(folder, Command::new("setsid").args(command))
}

/// Starts a command as the first process of a pid and an IPC namespace.
pub fn in_namespaces(folder: &Path, command: &[&str]) -> Result<Pid> {
    let unshare = ["--pid", "--ipc", "--fork", "setsid"];
    let outside = spawn(folder, Command::new("unshare").args(unshare).args(command))?;
    let outside = Process::new(outside.as_raw())?;
    let mut first = None;
    wait_until(|| {
        let children = outside.task_main_thread().and_then(|task| task.children());
        first = children.unwrap_or_default().first().copied();
        first.is_some()
    });
    Ok(Pid::from_raw(i32::try_from(first.context("it does not start")?)?))
}

fn spawn(folder: &Path, command: &mut Command) -> Result<Pid> {
    command.current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn()?;
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

/// The path of a file in a folder, as text.
pub fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_string_lossy().into_owned()
}
