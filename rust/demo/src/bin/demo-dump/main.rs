// SPDX-License-Identifier: GPL-2.0

//! Dumps a running tree with CRIU, restores it, and compares it with what it was, by `/proc` and
//! `/proc/sysvipc`.
//!
//! Run it as root. It exits with 0 only if each id, and all else that is compared, is the same.

mod observe;
mod tree;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anstream::{eprintln, println};
use anyhow::{Context, Result, ensure};
use clap::Parser;
use demo::{BAD, GOOD, Row, print_table};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde::Deserialize;
use tempfile::TempDir;

use observe::{Observed, Table};

/// Dump a running tree with CRIU, restore it, and compare it with what it was
#[derive(Parser)]
struct Cli {
    /// The criu program
    #[arg(long, value_name = "PROGRAM", default_value = "criu")]
    criu: PathBuf,

    /// The nextid program, to restore with it instead of CRIU
    #[arg(long, value_name = "PROGRAM")]
    nextid: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{BAD}demo-dump:{BAD:#} {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all is as it was.
fn run(cli: &Cli) -> Result<bool> {
    let criu = version(&cli.criu)?;
    let by = if cli.nextid.is_some() { "nextid" } else { &criu };
    let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    println!("A running tree, dumped and ended by {criu}, restored by {by}, on Linux {release}");

    let images = TempDir::new()?;
    let first = tree::start().context("cannot start the tree")?;
    let before = dump(&cli.criu, first, images.path()).inspect_err(|_| {
        // It may have ended already.
        let _ = kill(first, Signal::SIGKILL);
    })?;

    let restored = match &cli.nextid {
        Some(nextid) => restore_by_nextid(nextid, images.path()),
        None => restore_by_criu(&cli.criu, images.path()),
    }?;
    let after = observe::tables(restored);
    kill(restored, Signal::SIGKILL)?;
    Ok(compare(&before, &after?))
}

fn version(criu: &Path) -> Result<String> {
    let text = call(Command::new(criu).arg("--version"))?;
    let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
    Ok(format!("CRIU {}", version.context("criu does not tell its version")?))
}

/// Dumps and ends the tree whose first process is `first`, and returns what it was.
fn dump(criu: &Path, first: Pid, images: &Path) -> Result<[Table; 2]> {
    let tables = observe::tables(first)?;
    call(
        Command::new(criu)
            .args(["dump", "--timeout", "300", "--tree", &first.to_string(), "--images-dir"])
            .arg(images),
    )?;
    waitpid(first, None)?;
    Ok(tables)
}

/// What is used of what `nextid restore --json` prints.
#[derive(Deserialize)]
struct Report {
    /// The first process, as it is called here.
    restored_as: i32,
}

fn restore_by_nextid(nextid: &Path, images: &Path) -> Result<Pid> {
    let text = call(Command::new(nextid).args(["restore", "--detach", "--json"]).arg(images))?;
    let report: Report = serde_json::from_str(&text).context("what nextid prints")?;
    Ok(Pid::from_raw(report.restored_as))
}

fn restore_by_criu(criu: &Path, images: &Path) -> Result<Pid> {
    let file = images.join("pid");
    call(
        Command::new(criu)
            .args(["restore", "--restore-detached", "--pidfile"])
            .arg(&file)
            .arg("--images-dir")
            .arg(images),
    )?;
    Ok(Pid::from_raw(std::fs::read_to_string(file)?.trim().parse()?))
}

/// Runs a program to its end, and returns what it prints.
fn call(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {}\n{errors}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Prints what was and what is side by side; returns whether all of it is the same.
fn compare(before: &[Table], after: &[Table]) -> bool {
    let mut different = 0;
    for (before, after) in before.iter().zip(after) {
        let count = before.rows.len().max(after.rows.len());
        let rows: Vec<_> = (0..count)
            .map(|place| compare_rows(before.rows.get(place), after.rows.get(place)))
            .collect();
        different += rows.iter().filter(|row| !row.good).count();
        print_table([before.title, before.header, after.header], 2, &rows);
    }
    println!();
    if different == 0 {
        println!("{GOOD}all as it was{GOOD:#}");
    } else {
        println!("{BAD}{different} not as they were{BAD:#}");
    }
    different == 0
}

fn compare_rows(before: Option<&Observed>, after: Option<&Observed>) -> Row<3> {
    let name = before.or(after).map(|row| row.name.clone()).unwrap_or_default();
    let shown = |row: Option<&Observed>| row.map_or("nothing".to_owned(), |row| row.shown.clone());
    let good = before == after;
    let (was, mut is) = (shown(before), shown(after));
    if !good && was == is {
        is += ", other contents";
    }
    Row { good, cells: [name, was, is] }
}
