// SPDX-License-Identifier: GPL-2.0

//! `nextid restore`: the skeleton of a CRIU dump, with every id as dumped.

mod ipc;
mod make;
mod plan;
mod view;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Error, Result, ensure};
use criu_images::{Dump, Images, Problem};
use indicatif::{ProgressBar, ProgressStyle};
use nextid::{Holder, Kind, holders};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;

use crate::cli::Restore;
use crate::failure::{self, InUse, NoNamespace};
use crate::{method, report};
use plan::Plan;
use view::View;

/// Reads the dump at `path`, which builds on the one at the first of `parents`, and so on; where there
/// are none, its own links tell.
pub fn read(path: &Path, parents: &[PathBuf]) -> Result<Dump> {
    let open = || -> criu_images::Result<_> {
        let mut above: Option<Images> = None;
        for path in parents.iter().map(PathBuf::as_path).rev().chain([path]) {
            let images = Images::open(path)?;
            above = Some(match above {
                Some(parent) => images.built_on(parent),
                None => images,
            });
        }
        Dump::read(&above.expect("there is at least the dump"))
    };
    let dump = open().map_err(|error| match error.problem {
        Problem::NoParent(_) => Error::new(error).context("without --parent"),
        _ => error.into(),
    });
    dump.context("cannot read the dump")
}

/// Restores the dump in `options.dump`, or shows it.
pub fn restore(fallback: bool, options: &Restore) -> Result<ExitCode> {
    let dump = read(&options.dump, &options.parent)?;
    let in_use = |ids: &[i64]| {
        // In a namespace of its own nothing is in use.
        if dump.own_pid_namespace { Vec::new() } else { holders(Kind::Task, ids) }
    };
    let free = |pids: Range<i32>| {
        let holders = in_use(&pids.clone().map(i64::from).collect::<Vec<_>>());
        let used = |pid: i32| holders.iter().any(|it: &Holder| it.id() == i64::from(pid));
        pids.filter(|&pid| !used(pid)).collect()
    };
    let plan = Plan::new(&dump, free)?;
    let in_use = in_use(&plan.ids(&dump));
    let objects = dump
        .ipc
        .as_ref()
        .map_or(0, |ipc| ipc.queues.len() + ipc.semaphores.len() + ipc.segments.len());
    let owners = if objects > 0 { check_owners(&dump) } else { Ok(()) };

    if options.dry_run {
        report::print(&View::new(&dump, None, &in_use), options.output.json)?;
        owners?;
        let code = if in_use.is_empty() { 0 } else { failure::IN_USE };
        return Ok(code.into());
    }
    owners?;
    if !in_use.is_empty() {
        return Err(InUse(in_use).into());
    }

    let start = Instant::now();
    let mut next = method::open(fallback)?;
    let bar = progress_bar(plan.nodes.len() + objects);
    if let Some(ipc) = &dump.ipc {
        new_namespace("an IPC", CloneFlags::CLONE_NEWIPC)?;
        ipc::restore(&mut next, ipc, || bar.inc(1))?;
    }
    let tree = make::make(next, &dump, &plan, options.detach, || bar.inc(1))?;
    bar.finish_and_clear();

    let first = tree.first;
    report::print(&View::new(&dump, Some(first.as_raw()), &[]), options.output.json)
        .context("cannot print what was restored, so all that was made is undone")?;
    let threads: usize = dump.processes.iter().map(|process| process.threads.len()).sum();
    report::tell(format_args!(
        "restored {} processes, {threads} threads and {objects} IPC objects in {:.3} s; the first \
         process is {first} here",
        dump.processes.len(),
        start.elapsed().as_secs_f64()
    ));
    tree.keep()?;
    if !options.detach {
        waitpid(first, None)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Moves this process to a namespace of its own, or its children, where `flag` is of pid namespaces.
fn new_namespace(kind: &'static str, flag: CloneFlags) -> Result<()> {
    unshare(flag).map_err(|error| NoNamespace { kind, error }.into())
}

/// Checks that an owner of an IPC object can mean here what it means in the dump: a number in a user
/// namespace, which may be another user outside.
fn check_owners(dump: &Dump) -> Result<()> {
    let is_inside = || {
        let map = fs::read_to_string("/proc/self/uid_map");
        // The initial user namespace has all ids, each as itself.
        map.is_ok_and(|map| !map.split_whitespace().eq(["0", "0", "4294967295"]))
    };
    ensure!(
        !dump.own_user_namespace || is_inside(),
        "the dump has a user namespace of its own, which says who owns its IPC objects, and which \
         this tool does not make: run it inside one"
    );
    Ok(())
}

/// A bar on a terminal, for what takes longer than a moment.
fn progress_bar(length: usize) -> ProgressBar {
    if length < 100 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("restoring {bar:40} {pos}/{len}, {eta} left");
    ProgressBar::new(length as u64).with_style(style.expect("the template is valid"))
}
