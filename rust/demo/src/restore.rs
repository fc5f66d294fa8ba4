// SPDX-License-Identifier: GPL-2.0

//! The programs that dump and restore a tree: CRIU, and `nextid`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use serde::Deserialize;

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
    let file = images.join("pid");
    // It writes no file that is there.
    if file.exists() {
        std::fs::remove_file(&file)?;
    }
    call(
        Command::new(criu)
            .args(["restore", "--restore-detached", "--pidfile"])
            .arg(&file)
            .arg("--images-dir")
            .arg(images),
    )?;
    Ok(Pid::from_raw(std::fs::read_to_string(file)?.trim().parse()?))
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
    let text = call(Command::new(nextid).args(["restore", "--detach", "--json"]).arg(images))?;
    let report: Report = serde_json::from_str(&text).context("what nextid prints")?;
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
