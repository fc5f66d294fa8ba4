// SPDX-License-Identifier: GPL-2.0

//! Measures `next_id` beside every other way to choose an id.
//!
//! `bench measure` runs in a guest, as root, and prints what it measured as JSON; with
//! `--instructions` it counts instructions, in a guest that was booted for that. `make bench` runs
//! it on each kernel that it takes, and `bench report` on what that leaves behind.

mod arming;
mod clock;
mod contention;
mod creating;
mod data;
mod dump_report;
mod dumps;
mod goals;
mod growth;
mod harness;
mod in_turn;
mod keys;
mod memory;
mod method;
mod nest;
mod not_used;
mod number;
mod object_code;
mod others;
mod parser;
mod quartiles;
mod report;
mod reservations;
mod restores;
mod results;
mod svg;
mod sys;
mod tracer;
mod tree;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use nix::sys::mman::{MlockAllFlags, mlockall};
use serde::Serialize;

use crate::clock::Clock;
use crate::data::{Build, Machine, Run};
use crate::dumps::Programs;
use crate::harness::{Effort, Session};
use crate::keys::Kernel;
use crate::results::Results;
use crate::tree::Tree;

#[derive(Parser)]
#[command(about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure on the kernel that runs this, and print JSON
    Measure {
        /// Few rounds, few objects
        #[arg(long)]
        short: bool,
        /// Count instructions instead of nanoseconds
        #[arg(long)]
        instructions: bool,
        /// Which of the kernels that are compared this is
        #[arg(long)]
        kernel: Kernel,
        #[command(flatten)]
        programs: Programs,
        /// What to measure
        #[arg(required = true)]
        parts: Vec<Part>,
    },
    /// Make a tree to dump, and print its first process
    Tree(Tree),
    /// Compare the object code of two builds, and print JSON
    ObjectCode {
        /// A folder that a kernel was built in
        one: PathBuf,
        /// Another
        other: PathBuf,
    },
    /// Write what was measured into a page
    Report {
        /// The folder that has the results
        results: PathBuf,
        /// The page, with comments where tables go
        page: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// What any program does, with no id chosen
    NotUsed,
    /// Choosing an id
    Arming,
    /// Creating objects with a chosen id
    Creating,
    /// Counting wrong ids beside other processes that create objects
    Contention,
    /// Counting the trees that get their ids beside other processes that fork
    Restores,
    /// Restoring dumps, by CRIU and by `nextid`
    Dumps,
    /// Creating many objects, and arming long lists
    Growth,
    /// Reserving ids, and creating objects where ids are reserved
    Reservations,
    /// Forking beside a pid namespace where it is hard to find a free number
    InTurn,
    /// What lists and reservations are charged
    Memory,
    /// What the kernel's own benchmark of the parser told
    Parser,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Measure { short, instructions, kernel, programs, parts } => {
            measure(short, instructions, kernel, &programs, &parts)
        }
        Command::Tree(tree) => tree.make(),
        Command::ObjectCode { one, other } => {
            let files = object_code::FILES.iter();
            let compared =
                files.map(|&file| Ok((file, object_code::differences(&one, &other, file)?)));
            print(&compared.collect::<Result<Vec<_>>>()?)
        }
        Command::Report { results, page } => report::write(&Results::read(&results)?, &page),
    }
}

fn measure(
    short: bool,
    instructions: bool,
    kernel: Kernel,
    programs: &Programs,
    parts: &[Part],
) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "this must be run as root, in a guest");
    // A fork copies what of this program is in memory: the same in each boot.
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)?;
    let clock = if instructions { Clock::instructions()? } else { Clock::Raw };
    let effort = if short { Effort::SHORT } else { Effort::LONG };
    let mut session = Session::new(clock, effort);
    for part in parts {
        match part {
            Part::NotUsed => not_used::measure(&mut session).context("not used")?,
            Part::Arming => arming::measure(&mut session).context("arming")?,
            Part::Creating => creating::measure(&mut session).context("creating")?,
            Part::Contention => contention::measure(&mut session).context("contention")?,
            Part::Restores => restores::measure(&mut session).context("restores")?,
            Part::Dumps => dumps::measure(&mut session, programs).context("dumps")?,
            Part::Growth => growth::measure(&mut session).context("growth")?,
            Part::Reservations => reservations::measure(&mut session).context("reservations")?,
            Part::InTurn => in_turn::measure(&mut session).context("in turn")?,
            Part::Memory => memory::measure(&mut session).context("memory")?,
            Part::Parser => parser::measure(&mut session).context("parser")?,
        }
    }
    let run = Run {
        build: Build::running(kernel)?,
        machine: Machine::running()?,
        unit: clock.unit(),
        measurements: session.measurements,
        contention: session.contention,
        restores: session.restores,
    };
    print(&run)
}

/// Prints `value` as JSON.
fn print<T: Serialize>(value: &T) -> Result<()> {
    serde_json::to_writer(io::stdout(), value)?;
    writeln!(io::stdout())?;
    Ok(())
}
