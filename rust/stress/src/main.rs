// SPDX-License-Identifier: GPL-2.0

//! Stress for `/proc/<pid>/next_id`: many processes and threads at once, in several sets of
//! namespaces, that arm, read, create, execute, exit and are killed; and, with `faults`,
//! allocations that fail one after the other.
//!
//! Run it as root, on a machine that has nothing else to do. It prints KTAP, and exits with 0 only
//! if all is well.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "slots, levels and pids are small numbers"
)]

mod cgroup;
mod child;
mod environment;
mod faults;
mod file;
mod ids;
mod ktap;
mod rounds;
mod runner;
mod scenario;
mod slab;
mod sys;
mod tally;
mod worker;

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use file::NextId;

#[derive(Parser)]
#[command(about = "Stress for /proc/<pid>/next_id; prints KTAP")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Rounds of everything at once
    Rounds(rounds::Plan),
    /// Each allocation of a system call made to fail in turn
    Faults,
    /// What a program does that was executed with ids armed
    #[command(hide = true)]
    AfterExec,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            println!("Bail out! {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    if let Command::AfterExec = command {
        return Ok(ExitCode::from(u8::try_from(child::after_exec())?));
    }
    ensure!(nix::unistd::geteuid().is_root(), "this must be run as root");
    NextId::open()
        .context("cannot open /proc/thread-self/next_id: the kernel must have CONFIG_NEXT_ID")?;
    let passed = match command {
        Command::Rounds(plan) => plan.run()?,
        _ => faults::run()?,
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
