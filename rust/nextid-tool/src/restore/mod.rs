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
mod namespace;
mod plan;
mod thread;
mod view;

use std::cell::Cell;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, ensure};
use criu_images::{Dump, Images, Problem};
use indicatif::{ProgressBar, ProgressStyle};
use nextid::{Holder, Kind, Pids, Reservation, holders};
use nix::sched::CloneFlags;
use nix::sys::signal::kill;
use nix::unistd::{getpid, setsid};

use crate::cli::{Join, OuterPids, Reading, Restore};
use crate::failure::{self, Hindrance, InUse};
use crate::method;
use crate::program;
use crate::report::{self, BAD, NOTE};
pub use ipc::objects;
use ipc::{Namespace, Objects};
use plan::Plan;
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
    let dump = read(&options.dump, &options.reading)?;
    let namespace =
        if options.reading.join.contains(&Join::Ipc) { Namespace::Current } else { Namespace::New };
    let in_use = |ids: &[i64]| {
        // In a namespace of its own nothing is in use.
        if dump.own_pid_namespace { Vec::new() } else { holders(Kind::Task, ids) }
    };
    let free = |pids: Range<i32>| {
        let holders = in_use(&pids.clone().map(i64::from).collect::<Vec<_>>());
        let used = |pid: i32| holders.iter().any(|it: &Holder| it.id() == i64::from(pid));
        pids.filter(|&pid| !used(pid)).collect()
    };
    let mut plan = Plan::new(&dump, free)?;
    for OuterPids { pid, outer } in &options.outer_pids {
        ensure!(
            plan.ids(&dump).contains(&(*pid).into()),
            "the dump has no process or thread {pid}"
        );
        plan.outer.insert(*pid, outer.clone());
    }
    let plan = plan;
    let mut in_use = in_use(&plan.ids(&dump));
    in_use.extend(holders(Kind::Task, &outer_ids(&dump, &plan)));
    if let (Some(ipc), Namespace::Current) = (&dump.ipc, namespace) {
        in_use.extend(ipc::in_use(ipc));
    }
    // Whoever names an id gets it, reserved or not.
    let is_reserved = |holder: &Holder| matches!(holder, Holder::Reservation { .. });
    let (reserved, in_use): (Vec<_>, Vec<_>) = in_use.into_iter().partition(is_reserved);
    let objects = dump.ipc.as_ref().map_or(0, |ipc| ipc::objects(ipc).count());
    let mut hindrances = check::hindrances(&dump, &plan, namespace)?;
    if options.detach && getpid().as_raw() == 1 {
        hindrances.push(
            Hindrance {
                status: failure::OTHER,
                text: "nextid is the first process of its pid namespace, all of which ends with \
                       it: run it without --detach, or below an init"
                    .to_owned(),
            }
            .into(),
        );
    }

    if options.dry_run {
        report::print(&View::new(&dump, None, &in_use), options.output.json)?;
        for hindrance in &hindrances {
            report::tell(format_args!("{BAD}nextid:{BAD:#} {}", failure::text(hindrance)));
        }
        let used = if in_use.is_empty() { 0 } else { failure::IN_USE };
        return Ok(hindrances.first().map_or(used, failure::status).into());
    }
    let own = getpid().as_raw();
    let is_own = |it: &Holder| matches!(it, Holder::Task { pid, .. } if *pid == own);
    if options.detach && hindrances.is_empty() && !in_use.is_empty() && in_use.iter().all(is_own) {
        return move_away(fallback, options, &plan, &dump);
    }
    if !in_use.is_empty() {
        hindrances.push(InUse(in_use).into());
    }
    if let Some(last) = hindrances.pop() {
        for hindrance in hindrances {
            report::tell(format_args!("{BAD}nextid:{BAD:#} {}", failure::text(&hindrance)));
        }
        return Err(last);
    }

    let start = Instant::now();
    let mut next = method::open(fallback)?;
    let held = Cell::new(hold(&dump, &plan, namespace, &reserved)?);
    let bar = progress_bar(plan.nodes.len() + objects);
    let mut made = Objects::none();
    if let Some(ipc) = &dump.ipc {
        if namespace == Namespace::New {
            if objects > 0 {
                tell_of_new_ipc_namespace();
            }
            namespace::enter_new("an IPC", CloneFlags::CLONE_NEWIPC)?;
        }
        made = ipc::restore(&mut next, ipc, namespace, || bar.inc(1))?;
    }
    let attachments = &made.attachments;
    let tree = make::make(next, &held, &dump, &plan, attachments, options.detach, || bar.inc(1))?;
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
    made.keep();
    drop(held);
    if options.detach { Ok(ExitCode::SUCCESS) } else { program::exit_code(first) }
}

/// The ids in the current pid namespace that are chosen for processes in one of their own.
fn outer_ids(dump: &Dump, plan: &Plan) -> Vec<i64> {
    let outer = plan.outer.values().filter(|_| dump.own_pid_namespace);
    outer.filter_map(|outer| outer.first().copied()).collect()
}

/// Goes on in a process with another id, once this one has ended and has given back its own, which
/// the dump has.
fn move_away(fallback: bool, options: &Restore, plan: &Plan, dump: &Dump) -> Result<ExitCode> {
    let taken = plan.ids(dump);
    let used = holders(Kind::Task, &(301..1301).collect::<Vec<_>>());
    let used: Vec<i64> = used.iter().map(Holder::id).chain(taken).collect();
    let spare = (301..1301).find(|id| !used.contains(id)).context("no id is free for nextid")?;
    report::tell(format_args!(
        "{NOTE}nextid:{NOTE:#} the dump has its id, {}; it goes on as process {spare} when this one \
         has ended, and tells there how that went",
        getpid()
    ));
    let parent = getpid();
    let _ = method::open(fallback)?.arm(Pids(&[spare]))?.fork(|| {
        // Its session and its group may have that id, too.
        let _ = setsid();
        let start = Instant::now();
        while kill(parent, None).is_ok() && start.elapsed() < Duration::from_secs(60) {
            sleep(Duration::from_millis(10));
        }
        match restore(fallback, options) {
            Ok(_) => 0,
            Err(error) => {
                report::tell(format_args!("{BAD}nextid:{BAD:#} {}", failure::text(&error)));
                failure::status(&error).into()
            }
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Reserves the ids that are to be had where others are, but for those that somebody reserved
/// already.
fn hold(
    dump: &Dump,
    plan: &Plan,
    namespace: Namespace,
    reserved: &[Holder],
) -> Result<Option<Reservation>> {
    let mut ids: Vec<(Kind, i64)> = Vec::new();
    if !dump.own_pid_namespace {
        ids.extend(plan.ids(dump).into_iter().map(|id| (Kind::Task, id)));
    }
    ids.extend(outer_ids(dump, plan).into_iter().map(|id| (Kind::Task, id)));
    if let (Some(ipc), Namespace::Current) = (&dump.ipc, namespace) {
        ids.extend(ipc::objects(ipc).map(|(kind, it)| (kind.into(), it.id.into())));
    }
    let is_held = |kind, id| {
        let is_it = |it: &Holder| matches!(it, Holder::Reservation { kind: of, .. } if *of == kind);
        reserved.iter().any(|it| it.id() == id && is_it(it))
    };
    ids.retain(|&(kind, id)| !is_held(kind, id));
    let lists = ids.chunk_by(|a, b| a.0 == b.0).map(|chunk| {
        let ids: Vec<i64> = chunk.iter().map(|&(_, id)| id).collect();
        (chunk[0].0, ids)
    });
    let lists: Vec<_> = lists.collect();
    if lists.is_empty() {
        return Ok(None);
    }
    match Reservation::new(lists.iter().map(|(kind, ids)| (*kind, &**ids))) {
        Err(nextid::Error::NotSupported(_)) => {
            report::tell(format_args!(
                "{NOTE}nextid:{NOTE:#} this kernel has no reservations: where another process takes \
                 an id meanwhile, all is undone"
            ));
            Ok(None)
        }
        held => Ok(Some(held?)),
    }
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
