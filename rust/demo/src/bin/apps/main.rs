// SPDX-License-Identifier: GPL-2.0

//! Programs that people run, dumped by CRIU and restored: by CRIU as it is, by CRIU with the
//! patches, and as a skeleton by `nextid`.
//!
//! Each is started, asked for something, dumped and ended, restored, and asked again. Run it as
//! root. It exits with 0 only if each id and each answer is as it must be.

mod observed;
mod processes;
mod program;
mod programs;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anstream::{eprintln, println};
use anyhow::{Context, Result, ensure};
use clap::Parser;
use demo::{BAD, GOOD, Row, print_table, restore};
use tempfile::TempDir;

use observed::Ids;
use program::{Answer, Program};

/// Dump programs that people run, restore them, and compare them with what they were
#[derive(Parser)]
struct Cli {
    /// The criu program, as it is
    #[arg(long, value_name = "PROGRAM")]
    criu: PathBuf,

    /// The criu program, with the patches
    #[arg(long, value_name = "PROGRAM")]
    patched: PathBuf,

    /// The nextid program
    #[arg(long, value_name = "PROGRAM")]
    nextid: PathBuf,

    /// These programs alone
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// What restores.
enum By<'a> {
    Criu(&'a Path),
    Nextid(&'a Path),
}

/// What is compared of a program.
struct Outcome {
    before: Ids,
    after: Ids,
    asked: Answer,
    /// What it answers once it is restored, if it is more than a skeleton.
    answer: Option<Answer>,
}

impl Outcome {
    fn is_good(&self) -> bool {
        self.before == self.after
            && self.answer.as_ref().is_none_or(|answer| answer.follows(&self.asked))
    }
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{BAD}apps:{BAD:#} {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all is as it must be.
fn run(cli: &Cli) -> Result<bool> {
    let all = programs::all();
    for name in &cli.names {
        let names: Vec<_> = all.iter().map(|program| program.name()).collect();
        ensure!(names.contains(&name.as_str()), "there is no {name}, but {}", names.join(", "));
    }
    processes::adopt_orphans()?;
    let version = restore::version(&cli.criu)?;
    let ways = [
        (version.clone(), By::Criu(&cli.criu)),
        (format!("{version}, patched"), By::Criu(&cli.patched)),
        ("nextid".to_owned(), By::Nextid(&cli.nextid)),
    ];

    let mut rows = Vec::new();
    for program in &all {
        if !cli.names.is_empty() && !cli.names.iter().any(|name| name == program.name()) {
            continue;
        }
        let folder = TempDir::new()?;
        for (way, by) in &ways {
            eprintln!("{}: started, dumped, and restored by {way}", program.name());
            let outcome = check(program.as_ref(), folder.path(), &cli.criu, by);
            if let Err(error) = &outcome {
                eprintln!("{BAD}apps:{BAD:#} {}: {way}: {error:#}", program.name());
            }
            rows.push(row(program.name(), way, outcome.ok()));
        }
    }
    let bad = rows.iter().filter(|row| !row.good).count();
    let headers = ["program", "restored by", "ids before", "after", "asked before", "after"];
    print_table(headers, 2, &rows);
    println!();
    if bad == 0 {
        println!("{GOOD}all as it was{GOOD:#}");
    } else {
        println!("{BAD}{bad} not as they were{BAD:#}");
    }
    Ok(bad == 0)
}

/// Starts, asks, dumps and restores a program, and asks it again; then ends it.
fn check(program: &dyn Program, folder: &Path, criu: &Path, by: &By) -> Result<Outcome> {
    let images = TempDir::new()?;
    let first = program.start(folder).context("start")?;
    let asked = program::ask_until_ready(program, folder)
        .and_then(|asked| Ok((asked, Ids::of(first)?)))
        .and_then(|before| {
            let dumped_by = if let By::Criu(criu) = by { criu } else { criu };
            program.dump(dumped_by, first, folder, images.path()).context("dump")?;
            Ok(before)
        });
    let (asked, before) = asked.inspect_err(|_| program.end(first, folder))?;
    processes::wait_for_end(first)?;

    let restored = match by {
        By::Criu(criu) => program
            .restore(criu, folder, images.path())
            .context("restore")
            .map(|first| (first, Some(program.ask(folder)))),
        By::Nextid(nextid) => {
            let dumped = program.dumped(images.path());
            restore::call(Command::new(nextid).args(["restore", "--dry-run"]).arg(&dumped))
                .context("--dry-run")
                .and_then(|_| restore::by_nextid(nextid, &dumped).context("restore"))
                .map(|first| (first, None))
        }
    };
    // What keeps a container of that name goes, too.
    let (first, answer) = restored.inspect_err(|_| program.end(first, folder))?;
    let after = Ids::of(first);
    program.end(first, folder);
    processes::wait_for_end(first)?;
    let answer = answer.transpose().context("asked after the restore")?;
    Ok(Outcome { before, after: after?, asked, answer })
}

fn row(name: &str, way: &str, outcome: Option<Outcome>) -> Row<6> {
    let good = outcome.as_ref().is_some_and(Outcome::is_good);
    let [before, after, asked, answer] = outcome.map_or_else(Default::default, |outcome| {
        let answer = outcome.answer.map(|answer| answer.to_string());
        let asked = if answer.is_some() { outcome.asked.to_string() } else { String::new() };
        [
            outcome.before.to_string(),
            outcome.after.shown_beside(&outcome.before),
            asked,
            answer.unwrap_or_default(),
        ]
    });
    Row { good, cells: [name.to_owned(), way.to_owned(), before, after, asked, answer] }
}
