// SPDX-License-Identifier: GPL-2.0

//! `nextid restore`: the skeleton of a CRIU dump, with every id as dumped.

mod check;
mod ending;
mod huge_pages;
mod ipc;
mod lineage;
mod make;
#[cfg(test)]
mod model;
mod moving;
mod namespace;
mod plan;
mod survey;
mod thread;
mod view;

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Error, Result};
use criu_images::{Dump, Images, Problem};
use indicatif::{ProgressBar, ProgressStyle};
use nextid::NextId;

use crate::cli::{Join, Reading, Restore};
use crate::method;
use crate::program;
use crate::report::{self, NOTE};
pub use ipc::objects;
use ipc::{Objects, Place};
use survey::Survey;
use view::View;

/// Reads the dump at `path`, which builds on the one at the first of the parents, and so on; where
/// there are none, its own links tell.
pub fn read(path: &Path, reading: &Reading) -> Result<Dump> {
    let open = || -> criu_images::Result<_> {
        let mut above: Option<Images> = None;
        for path in reading.parent.iter().map(PathBuf::as_path).rev().chain([path]) {
            let images = Images::open(path)?;
            above = Some(match above {
                Some(parent) => images.built_on(parent),
                None => images,
            });
        }
        Dump::read(&above.expect("there is at least the dump"))
    };
    let opened = open().map_err(|error| match error.problem {
        Problem::NoParent(_) => Error::new(error).context("without --parent"),
        _ => error.into(),
    });
    let mut dump = opened.context("cannot read the dump")?;
    if reading.join.contains(&Join::Pid) {
        // As if CRIU had been inside, too.
        dump.own_pid_namespace = false;
    }
    Ok(dump)
}

/// Restores the dump in `options.dump`, or shows it.
pub fn restore(fallback: bool, options: &Restore) -> Result<ExitCode> {
    program::reset_sigchld()?;
    let dump = read(&options.dump, &options.reading)?;
    let mut survey = Survey::new(&dump, options)?;
    let next = method::open(fallback);
    if options.dry_run {
        survey.tell_of_reservations();
        next.err().into_iter().for_each(|error| survey.add(error));
        report::print(&View::new(&survey, None), options.output.json)?;
        return Ok(survey.tell().into());
    }
    let next = next?;
    if options.detach && survey.is_only_own_id_in_use() {
        moving::restore_with_another_id(next, &survey, || restore(fallback, options))?;
        return Ok(ExitCode::SUCCESS);
    }
    survey.tell_of_reservations();
    survey.refuse()?;
    make(next, &survey, options)
}

/// Makes all of it, or nothing.
fn make(mut next: NextId, survey: &Survey, options: &Restore) -> Result<ExitCode> {
    let Survey { dump, plan, place, .. } = survey;
    let start = Instant::now();
    let held = Cell::new(survey.reserve()?);
    let objects = dump.ipc.as_ref().map_or(0, |ipc| ipc::objects(ipc).count());
    let bar = progress_bar(plan.nodes.len() + objects);
    let mut made = Objects::none();
    if let Some(ipc) = &dump.ipc {
        if *place == Place::New {
            if objects > 0 {
                tell_of_new_ipc_namespace();
            }
            namespace::enter_new_ipc()?;
        }
        made = ipc::restore(&mut next, ipc, *place, || bar.inc(1))?;
    }
    let attachments = &made.attachments;
    let tree = make::make(next, &held, dump, plan, attachments, options.detach, || bar.inc(1))?;
    bar.finish_and_clear();

    let first = tree.first;
    report::print(&View::new(survey, Some(first.as_raw())), options.output.json)
        .context("cannot print what was restored, so all that was made is undone")?;
    let threads: usize = dump.processes.iter().map(|process| process.threads.len()).sum();
    report::tell(format_args!(
        "restored {} processes, {threads} threads and {objects} IPC objects in {:.3} s; the first \
         process is {first} here",
        dump.processes.len(),
        start.elapsed().as_secs_f64()
    ));
    tree.keep()?;
    made.keep();
    drop(held);
    if options.detach { Ok(ExitCode::SUCCESS) } else { program::exit_code(first) }
}

/// Tells that objects which others in this IPC namespace may look for get one of their own.
fn tell_of_new_ipc_namespace() {
    /// The inode of the initial one, `IPC_NS_INIT_INO`.
    const INITIAL: u64 = 0xefff_ffff;

    if fs::metadata("/proc/self/ns/ipc").is_ok_and(|namespace| namespace.ino() != INITIAL) {
        report::tell(format_args!(
            "{NOTE}nextid:{NOTE:#} the IPC objects get a namespace of their own; --join ipc makes \
             them in the current one"
        ));
    }
}

/// A bar on a terminal, for what takes longer than a moment.
fn progress_bar(length: usize) -> ProgressBar {
    if length < 100 {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("restoring {bar:40} {pos}/{len}, {eta} left");
    ProgressBar::new(length as u64).with_style(style.expect("the template is valid"))
}
