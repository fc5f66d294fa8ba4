// SPDX-License-Identifier: GPL-2.0

//! Dumps a running tree with CRIU, restores it, and compares it with what it was, by `/proc` and
//! `/proc/sysvipc`.
//!
//! Run it as root. It exits with 0 only if each id, and all else that is compared, is the same.

mod tree;

use std::path::PathBuf;
use std::process::ExitCode;

use anstream::{eprintln, println};
use anyhow::{Context, Result};
use clap::Parser;
use demo::observe::{self, Observed, Table};
use demo::{BAD, GOOD, Row, print_table, restore};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use tempfile::TempDir;

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
    let criu = restore::version(&cli.criu)?;
    let by = if cli.nextid.is_some() { "nextid" } else { &criu };
    let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    println!("A running tree, dumped and ended by {criu}, restored by {by}, on Linux {release}");

    let images = TempDir::new()?;
    let first = tree::start().context("cannot start the tree")?;
    let before = observe::tables(first).and_then(|tables| {
        restore::dump(&cli.criu, first, images.path())?;
        Ok(tables)
    });
    let before = before.inspect_err(|_| {
        // It may have ended already.
        let _ = kill(first, Signal::SIGKILL);
    })?;
    waitpid(first, None)?;

    let restored = match &cli.nextid {
        Some(nextid) => restore::by_nextid(nextid, images.path()),
        None => restore::by_criu(&cli.criu, images.path()),
    }?;
    let after = observe::tables(restored);
    kill(restored, Signal::SIGKILL)?;
    Ok(compare(&before, &after?))
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
