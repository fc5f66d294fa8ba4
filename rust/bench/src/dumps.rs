// SPDX-License-Identifier: GPL-2.0

//! What it costs to restore a dump, from the start of the program that does it to its end.

use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use demo::{observe, restore};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::clock::Clock;
use crate::data::Unit;
use crate::harness::{Competitor, Session};
use crate::keys::{Case, Group, THREADS_OF_BOTH};
use crate::tracer;
use crate::tree::Tree;

/// What CRIU found out about the kernel. One that was built otherwise removes it, and finds out
/// anew.
const KNOWN: &str = "/run/criu.kdat";

/// System calls are counted so often at most: they hardly vary.
const MOST_COUNTS: usize = 2;

/// The programs that restore.
#[derive(Args)]
pub struct Programs {
    /// The criu program, as it is
    #[arg(long, value_name = "PROGRAM")]
    criu: Option<PathBuf>,
    /// The criu program, with the patches
    #[arg(long, value_name = "PROGRAM")]
    patched: Option<PathBuf>,
    /// The nextid program
    #[arg(long, value_name = "PROGRAM")]
    nextid: Option<PathBuf>,
}

/// Measures restores of dumps of all kinds.
pub fn measure(session: &mut Session, programs: &Programs) -> Result<()> {
    let mut ways = ways(programs)?;
    // What is restored becomes a child of this process when the program that restores it ends.
    prctl::set_child_subreaper(true)?;
    let many = session.effort.dumped;
    let some = many / 5;
    for (group, size, processes, threads, objects) in [
        (Group::DumpOfThreads, many, 1, many, 0),
        (Group::DumpOfBoth, some, some, THREADS_OF_BOTH, 0),
        (Group::DumpOfProcesses, many, many, 1, 0),
        (Group::DumpOfObjects, many, 1, 1, many),
    ] {
        compare(session, &mut ways, group, size, Tree { processes, threads, objects })
            .context(group)?;
    }
    Ok(())
}

/// How a dump is restored.
struct Way {
    case: Case,
    program: PathBuf,
    /// What it knows of the kernel, if it is CRIU.
    knows: Vec<u8>,
}

fn ways(programs: &Programs) -> Result<[Way; 3]> {
    let way = |case, program: &Option<PathBuf>, option| {
        let program =
            program.clone().with_context(|| format!("to measure dumps takes {option}"))?;
        anyhow::Ok(Way { case, program, knows: Vec::new() })
    };
    Ok([
        way(Case::Criu, &programs.criu, "--criu")?,
        way(Case::CriuPatched, &programs.patched, "--patched")?,
        way(Case::NextidRestore, &programs.nextid, "--nextid")?,
    ])
}

impl Way {
    fn is_criu(&self) -> bool {
        self.case != Case::NextidRestore
    }

    /// The command that restores.
    fn command(&self, images: &Path) -> Result<Command> {
        if self.is_criu() {
            restore::criu_command(&self.program, images)
        } else {
            Ok(restore::nextid_command(&self.program, images))
        }
    }

    /// The same, for when it knows the kernel.
    fn prepared(&self, images: &Path) -> Result<Command> {
        if self.is_criu() {
            fs::write(KNOWN, &self.knows)?;
        }
        self.command(images)
    }

    /// The first process of what it has restored.
    fn restored(&self, images: &Path) -> Result<Pid> {
        if self.is_criu() {
            restore::restored_by_criu(images)
        } else {
            restore::restored_by_nextid(&fs::read_to_string(output(images))?)
        }
    }

    /// Lets it find out about the kernel, and sees that it restores what was dumped.
    fn check(&mut self, images: &Path, dumped: &[observe::Table; 2]) -> Result<()> {
        run(&mut self.command(images)?, images)?;
        let first = self.restored(images)?;
        let same = observe::tables(first)?
            .iter()
            .zip(dumped)
            .all(|(restored, dumped)| restored.rows == dumped.rows);
        end(first)?;
        ensure!(same, "what it restored is not what was dumped");
        if self.is_criu() {
            self.knows = fs::read(KNOWN).context(KNOWN)?;
        }
        Ok(())
    }
}

/// Dumps a tree, and lets all restore it in turn.
fn compare(
    session: &mut Session,
    ways: &mut [Way; 3],
    group: Group,
    size: u64,
    tree: Tree,
) -> Result<()> {
    let folder = TempDir::new()?;
    let images = folder.path();
    let first = tree.start()?;
    let dumped = observe::tables(first)?;
    let counts = dumped.each_ref().map(|table| table.rows.len() as u64);
    let wanted = [tree.processes * tree.threads, tree.objects];
    ensure!(counts == wanted, "{counts:?} were to be dumped, not {wanted:?}");
    restore::dump(&ways[0].program, first, images)?;
    waitpid(first, None)?;
    for way in ways.iter_mut() {
        way.check(images, &dumped).context(way.case)?;
    }

    let rounds = session.effort.dump_rounds;
    let competitors = ways.iter().map(|way| {
        let prepare = || {
            let command = way.prepared(images)?;
            Ok((Cell::new(Some(command)), Cell::new(None)))
        };
        let restore = |(command, first): &(Cell<Option<Command>>, Cell<Option<Pid>>)| {
            run(&mut command.take().context("it is taken once")?, images)?;
            first.set(Some(way.restored(images)?));
            Ok(())
        };
        let remove =
            |(_, first): (_, Cell<Option<Pid>>)| end(first.take().context("it was restored")?);
        Competitor::on(way.case, prepare, restore, remove).singly_when_warm()
    });
    session.compare_in(rounds, group, Some(size), competitors.collect())?;
    if let Clock::Instructions = session.clock {
        return Ok(());
    }
    for way in ways.iter() {
        let count = || system_calls(way, images).context(way.case);
        let calls = (0..rounds.min(MOST_COUNTS)).map(|_| count()).collect::<Result<_>>()?;
        session.record_in(Unit::SystemCalls, group, way.case, Some(size), calls);
    }
    Ok(())
}

/// Runs a command to its end, which is to succeed.
fn run(command: &mut Command, images: &Path) -> Result<()> {
    let (output, errors) = files(images)?;
    let status = command.stdout(output).stderr(errors).status()?;
    ensure!(status.success(), "{status}\n{}", said(images));
    Ok(())
}

/// Files for what a command prints, and for what it says of errors.
fn files(images: &Path) -> Result<(File, File)> {
    Ok((File::create(output(images))?, File::create(errors(images))?))
}

fn errors(images: &Path) -> PathBuf {
    images.join("errors")
}

/// What a command that failed said.
fn said(images: &Path) -> String {
    fs::read_to_string(errors(images)).unwrap_or_default()
}

/// Where the command leaves what it prints.
fn output(images: &Path) -> PathBuf {
    images.join("output")
}

/// How many system calls a restore takes.
#[expect(clippy::cast_precision_loss, reason = "there are less than 2^52")]
fn system_calls(way: &Way, images: &Path) -> Result<f64> {
    let (output, errors) = files(images)?;
    let calls = tracer::count_system_calls(&way.prepared(images)?, output, errors)
        .with_context(|| said(images))?;
    end(way.restored(images)?)?;
    Ok(calls as f64)
}

/// Ends a tree, which ends with its first process.
fn end(first: Pid) -> Result<()> {
    kill(first, Signal::SIGKILL)?;
    waitpid(first, None)?;
    Ok(())
}
