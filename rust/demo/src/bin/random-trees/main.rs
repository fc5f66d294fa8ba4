// SPDX-License-Identifier: GPL-2.0

//! Dumps trees that real processes came to by a random history, restores each by `nextid`, and
//! compares it with what it was, by `/proc`.
//!
//! Run it as root. It exits with 0 only if each tree came back as it was, or was refused by
//! `nextid restore --dry-run` and by CRIU as well.

mod history;
mod process;
mod trial;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anstream::println;
use clap::Parser;
use demo::{BAD, GOOD};

use history::History;
use trial::{Outcome, Programs};

/// Dump trees of random histories with CRIU, restore them, and compare them with what they were
#[derive(Parser)]
struct Cli {
    /// The criu program
    #[arg(long, value_name = "PROGRAM", default_value = "criu")]
    criu: PathBuf,

    /// The nextid program
    #[arg(long, value_name = "PROGRAM", default_value = "nextid")]
    nextid: PathBuf,

    /// How many trees
    #[arg(long, default_value_t = 10)]
    trees: u64,

    /// The seed of the first tree; that of each other is one more
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// How many processes each has, at the least and at most
    #[arg(long, value_name = "MIN-MAX", default_value = "10-120", value_parser = sizes)]
    processes: RangeInclusive<usize>,

    /// Restore on a kernel without `next_id`, by nextid --fallback
    #[arg(long)]
    fallback: bool,

    /// Print the history of each tree
    #[arg(long)]
    histories: bool,
}

fn sizes(text: &str) -> Result<RangeInclusive<usize>, String> {
    let parse = || {
        let (min, max) = text.split_once('-')?;
        Some(min.parse().ok()?..=max.parse().ok()?)
    };
    parse()
        .filter(|sizes: &RangeInclusive<usize>| !sizes.is_empty() && *sizes.start() > 1)
        .ok_or_else(|| "it must be like 10-120, from 2 up".to_owned())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let programs = Programs { criu: &cli.criu, nextid: &cli.nextid, fallback: cli.fallback };
    let mut counts = [0_u64; 4];
    for seed in cli.seed..cli.seed + cli.trees {
        let start = Instant::now();
        let history = History::new(seed, cli.processes.clone());
        let outcome = trial::run(&programs, &history);
        let (place, style, text) = match &outcome {
            Ok(Outcome::Same) => (0, GOOD, "as it was".to_owned()),
            Ok(Outcome::NotDumped(why)) => (1, GOOD, format!("CRIU cannot dump it: {why}")),
            Ok(Outcome::Refused(why)) => (2, GOOD, format!("refused: {why}")),
            Err(error) => (3, BAD, format!("{error:#}")),
        };
        counts[place] += 1;
        println!(
            "tree {seed}: {} processes, {:.1} s: {style}{text}{style:#}",
            history.living.len(),
            start.elapsed().as_secs_f64()
        );
        if cli.histories || outcome.is_err() {
            println!("{}", history.text());
        }
    }
    let [same, not_dumped, refused, wrong] = counts;
    println!(
        "{} trees: {same} as they were, {refused} refused, {not_dumped} that CRIU cannot dump, \
         {wrong} wrong",
        cli.trees
    );
    if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
