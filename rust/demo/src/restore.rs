// SPDX-License-Identifier: GPL-2.0

//! The programs that dump and restore a tree: CRIU, and `nextid`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use serde::Deserialize;

/// Where CRIU leaves the first process, beside the images.
const PID_FILE: &str = "pid";

/// The name of a CRIU and its version.
///
/// # Errors
///
/// Where it cannot be run, or does not tell.
pub fn version(criu: &Path) -> Result<String> {
    let text = call(Command::new(criu).arg("--version"))?;
    let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
    Ok(format!("CRIU {}", version.context("criu does not tell its version")?))
}

/// Dumps and ends the tree whose first process is `first`.
///
/// # Errors
///
/// Where CRIU fails, with what it says.
pub fn dump(criu: &Path, first: Pid, images: &Path) -> Result<()> {
    call(
        Command::new(criu)
            .args(["dump", "--timeout", "300", "--tree", &first.to_string(), "--images-dir"])
            .arg(images),
    )?;
    Ok(())
}

/// Restores a dump by CRIU, and returns the first process.
///
/// # Errors
///
/// Where CRIU fails, with what it says.
pub fn by_criu(criu: &Path, images: &Path) -> Result<Pid> {
    call(&mut criu_command(criu, images)?)?;
    restored_by_criu(images)
}

/// The command by which CRIU restores a dump, and leaves it.
///
/// # Errors
///
/// Where the file cannot be removed in which it left the first process before.
pub fn criu_command(criu: &Path, images: &Path) -> Result<Command> {
    let file = images.join(PID_FILE);
    // It writes no file that is there.
    if file.exists() {
        fs::remove_file(&file)?;
    }
    let mut command = Command::new(criu);
    command.args(["restore", "--restore-detached", "--pidfile"]).arg(file);
    command.arg("--images-dir").arg(images);
    Ok(command)
}

/// The first process of what that command has restored.
///
/// # Errors
///
/// Where it has left none.
pub fn restored_by_criu(images: &Path) -> Result<Pid> {
    let file = images.join(PID_FILE);
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    Ok(Pid::from_raw(text.trim().parse()?))
}

/// What is used of what `nextid restore --json` prints.
#[derive(Deserialize)]
struct Report {
    /// The first process, as it is called here.
    restored_as: i32,
}

/// Restores the skeleton of a dump by `nextid`, and returns the first process.
///
/// # Errors
///
/// Where `nextid` fails, with what it says.
pub fn by_nextid(nextid: &Path, images: &Path) -> Result<Pid> {
    restored_by_nextid(&call(&mut nextid_command(nextid, images))?)
}

/// The command by which `nextid` restores a dump, and leaves it.
#[must_use]
pub fn nextid_command(nextid: &Path, images: &Path) -> Command {
    let mut command = Command::new(nextid);
    command.args(["restore", "--detach", "--json"]).arg(images);
    command
}

/// The first process of what that command has restored, by what it printed.
///
/// # Errors
///
/// Where it printed none.
pub fn restored_by_nextid(printed: &str) -> Result<Pid> {
    let report: Report = serde_json::from_str(printed).context("what nextid prints")?;
    Ok(Pid::from_raw(report.restored_as))
}

/// Runs a program to its end, and returns what it prints.
///
/// # Errors
///
/// Where it cannot be run or fails, with what it says.
pub fn call(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}\n{errors}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
