// SPDX-License-Identifier: GPL-2.0

//! What is known of a restore before anything is made.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;

use anyhow::{Error, Result};
use criu_images::Dump;
use nextid::{Holder, Kind, Method, NextId, Reservation, holders};

use super::check;
use super::ipc::{self, Place};
use super::plan::Plan;
use crate::cli::{Join, OuterPids, Restore};
use crate::failure::{self, Failure};
use crate::report::{self, NOTE};

/// How a dump is to be made, and what stands in the way.
pub struct Survey<'a> {
    pub dump: &'a Dump,
    pub plan: Plan,
    /// Where its IPC objects are made.
    pub place: Place,
    /// The ids that are to be had where others are.
    shared: Vec<(Kind, Vec<i64>)>,
    /// Those who have one of the ids.
    pub in_use: Vec<Holder>,
    /// The reservations that have one of the ids, which are in nobody's way.
    reserved: Vec<Holder>,
    /// All else that stands in the way.
    hindrances: Vec<Error>,
}

impl<'a> Survey<'a> {
    pub fn new(dump: &'a Dump, options: &Restore) -> Result<Self> {
        let joins_ipc = options.reading.join.contains(&Join::Ipc);
        let place = if joins_ipc { Place::Current } else { Place::New };
        let plan = plan(dump, &options.outer_pids)?;
        let shared = shared_ids(dump, &plan, place);
        // Whoever names an id gets it, reserved or not.
        let is_reserved = |holder: &Holder| matches!(holder, Holder::Reservation { .. });
        let holders = shared.iter().flat_map(|(kind, ids)| holders(*kind, ids));
        let (reserved, in_use) = holders.partition(is_reserved);
        let mut hindrances = check::hindrances(dump, &plan, place)?;
        if options.detach {
            hindrances.extend(check::detaching(dump).map(Error::new));
        }
        Ok(Self { dump, plan, place, shared, in_use, reserved, hindrances })
    }

    /// Adds what else stands in the way.
    pub fn add(&mut self, hindrance: Error) {
        self.hindrances.push(hindrance);
    }

    /// Tells what stands in the way, but for ids in use; returns the exit status that says so.
    pub fn tell(&self) -> u8 {
        self.hindrances.iter().for_each(failure::tell);
        let used = if self.in_use.is_empty() { 0 } else { failure::IN_USE };
        self.hindrances.first().map_or(used, failure::status)
    }

    /// Tells who has reserved ids of the dump.
    pub fn tell_of_reservations(&self) {
        let mut counts: BTreeMap<(i32, &str), usize> = BTreeMap::new();
        for holder in &self.reserved {
            if let Holder::Reservation { pid, name, .. } = holder {
                *counts.entry((*pid, name)).or_default() += 1;
            }
        }
        for ((pid, name), count) in counts {
            report::tell(format_args!(
                "{NOTE}nextid:{NOTE:#} process {pid} ({name}) has reserved {count} of the ids; that \
                 is in nobody's way who names them"
            ));
        }
    }

    /// Whether nothing but nextid itself stands in the way, by its own id.
    pub fn is_only_own_id_in_use(&self) -> bool {
        self.hindrances.is_empty() && !self.in_use.is_empty() && self.in_use.iter().all(is_own)
    }

    /// Fails unless nothing stands in the way. All but the last are told at once.
    pub fn refuse(&mut self) -> Result<()> {
        if !self.in_use.is_empty() {
            self.hindrances.push(ids_in_use(&self.in_use).into());
        }
        let Some(last) = self.hindrances.pop() else { return Ok(()) };
        self.hindrances.iter().for_each(failure::tell);
        Err(last)
    }

    /// Reserves the ids that are to be had where others are, but for those that somebody reserved
    /// already.
    pub fn reserve(&self) -> Result<Option<Reservation>> {
        let is_held = |kind, id| {
            let is_it =
                |it: &Holder| matches!(it, Holder::Reservation { kind: of, .. } if *of == kind);
            self.reserved.iter().any(|it| it.id() == id && is_it(it))
        };
        let lists = self.shared.iter().map(|(kind, ids)| {
            let ids: Vec<i64> = ids.iter().copied().filter(|&id| !is_held(*kind, id)).collect();
            (*kind, ids)
        });
        let lists: Vec<_> = lists.filter(|(_, ids)| !ids.is_empty()).collect();
        if lists.is_empty() {
            return Ok(None);
        }
        let why = match Reservation::new(lists.iter().map(|(kind, ids)| (*kind, &**ids))) {
            Err(nextid::Error::NotSupported(_)) => "this kernel has no reservations",
            Err(nextid::Error::TooManyReserved { .. }) => "no more pids can be reserved here",
            held => return Ok(Some(held?)),
        };
        report::tell(format_args!(
            "{NOTE}nextid:{NOTE:#} {why}: where another process takes an id meanwhile, all is undone"
        ));
        Ok(None)
    }
}

/// The ids that are to be had where others are, of each kind.
fn shared_ids(dump: &Dump, plan: &Plan, place: Place) -> Vec<(Kind, Vec<i64>)> {
    let pids = if dump.own_pid_namespace { plan.outer_ids(dump) } else { plan.ids(dump) };
    let objects = dump.ipc.iter().filter(|_| place == Place::Current).flat_map(ipc::objects);
    let objects: Vec<(Kind, i64)> = objects.map(|(kind, it)| (kind.into(), it.id.into())).collect();
    let lists = objects.chunk_by(|a, b| a.0 == b.0);
    let lists = lists.map(|list| (list[0].0, list.iter().map(|&(_, id)| id).collect()));
    [(Kind::Task, pids)].into_iter().chain(lists).collect()
}

/// The plan of `dump`, with the ids further out that are asked for.
fn plan(dump: &Dump, outer_pids: &[OuterPids]) -> Result<Plan> {
    let free = |pids: Range<i32>| {
        let holders = in_use(dump, &pids.clone().map(i64::from).collect::<Vec<_>>());
        let used = |pid: i32| holders.iter().any(|it: &Holder| it.id() == i64::from(pid));
        pids.filter(|&pid| !used(pid)).collect()
    };
    let mut plan = Plan::new(dump, free)?;
    for OuterPids { pid, outer } in outer_pids {
        let wrong = |why| Failure::new(failure::WRONG_COMMAND_LINE, format!("--outer-pid: {why}"));
        if !dump.processes.iter().any(|it| it.tids().any(|tid| tid == *pid)) {
            return Err(wrong(format!("the dump has no process or thread {pid}")).into());
        }
        if plan.outer.insert(*pid, outer.clone()).is_some() {
            return Err(wrong(format!("it is given twice for {pid}")).into());
        }
    }
    Ok(plan)
}

/// Who has one of `ids` in the pid namespace that the tree is to be in. In one of its own nothing
/// is in use.
fn in_use(dump: &Dump, ids: &[i64]) -> Vec<Holder> {
    if dump.own_pid_namespace { Vec::new() } else { holders(Kind::Task, ids) }
}

fn ids_in_use(holders: &[Holder]) -> Failure {
    let mut text = String::from("ids are in use, and nothing was made:");
    text.extend(holders.iter().map(|holder| format!("\n  {holder}")));
    if holders.iter().any(is_own) {
        text += "\nnextid itself is in the way: with --detach it goes on with another id";
        if NextId::open().is_ok_and(|next| next.method() == Method::NextId) {
            text += ". The shell that starts it can give it another one, too: echo \"PID <free \
                     id>\" >/proc/self/next_id; nextid restore ...";
        }
    }
    Failure::new(failure::IN_USE, text)
}

/// Whether nextid itself is the holder, which `/proc` may call by another id than it knows.
fn is_own(holder: &Holder) -> bool {
    let own = fs::read_link("/proc/self").ok().and_then(|it| it.to_str()?.parse::<i32>().ok());
    matches!(holder, Holder::Task { pid, .. } if Some(*pid) == own)
}
