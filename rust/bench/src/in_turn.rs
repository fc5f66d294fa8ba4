// SPDX-License-Identifier: GPL-2.0

//! The longest search for a free number that a user can arrange in a pid namespace: numbers in use
//! and reserved in turn.

use std::fs::File;

use anyhow::Result;
use nextid::Kind;
use nix::sched::{CloneFlags, setns, unshare};

use crate::data::{Measurement, Unit};
use crate::harness::{Competitor, Session};
use crate::keys::{Case, Group};
use crate::method::{NEXT_ID, NS_LAST_PID};
use crate::nest::nested;
use crate::others::Others;
use crate::reservations::command;
use crate::sys::{Child, IdFile, fork, wait};

/// How many numbers are in use and reserved in turn, where forks in that namespace are measured.
const INSIDE: [u64; 4] = [0, 100, 1_000, 10_000];

/// The same where forks outside are measured, for so many processes at most.
fn numbers_outside(processes: u64) -> u64 {
    processes / 2
}

/// Where instructions are counted, measures forks in such a namespace. Elsewhere, measures forks
/// outside, which take the same lock, while another processor searches.
pub fn measure(session: &mut Session) -> Result<()> {
    if session.clock.unit() == Unit::Instructions { inside(session) } else { outside(session) }
}

fn inside(session: &mut Session) -> Result<()> {
    let most = session.effort.processes;
    for size in INSIDE.into_iter().filter(|&size| size <= most) {
        let measurements = nested(1, || fork_inside(session, size))?;
        session.measurements.extend(measurements);
    }
    Ok(())
}

fn fork_inside(session: &mut Session, size: u64) -> Result<Vec<Measurement>> {
    let namespace = Namespace::fill(size, true)?;
    session.measurements.clear();
    let competitor = Competitor::new(Case::Fork, || namespace.fork());
    session.compare(Group::InTurn, Some(size), vec![competitor])?;
    Ok(std::mem::take(&mut session.measurements))
}

fn outside(session: &mut Session) -> Result<()> {
    let size = numbers_outside(session.effort.processes);
    let mut all = Vec::new();
    for &case in Group::BesideInTurn.cases() {
        let others = match case {
            Case::NothingElse => Others::none(),
            _ => fork_in_namespace(size, case == Case::OtherForksInTurn)?,
        };
        others.suspend()?;
        all.push((case, others));
    }
    let competitors = all.iter().map(|(case, others)| {
        let fork_outside = |(): &()| Ok(wait(fork(&[], Child::Exits)?)?);
        Competitor::on(*case, || others.resume(), fork_outside, |()| others.suspend()).singly()
    });
    session.compare(Group::BesideInTurn, Some(size), competitors.collect())?;
    all.into_iter().try_for_each(|(_, others)| others.end())
}

/// Starts the first process of a new pid namespace, which forks all the time.
fn fork_in_namespace(size: u64, reserves: bool) -> Result<Others> {
    let own = File::open("/proc/self/ns/pid")?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    let others = Others::start_prepared(|| Namespace::fill(size, reserves), Namespace::fork);
    setns(own, CloneFlags::CLONE_NEWPID)?;
    others
}

/// The pid namespace of the calling process, which is its first.
struct Namespace {
    last_pid: IdFile,
    /// Held open, with what it reserves.
    _next_id: IdFile,
}

impl Namespace {
    /// The first of the numbers in turn.
    const FIRST: usize = 1000;

    /// Fills `size` numbers: every other one is in use, and where `reserves`, the others are
    /// reserved.
    fn fill(size: u64, reserves: bool) -> Result<Self> {
        let pairs = usize::try_from(size / 2)?;
        for number in (Self::FIRST..).step_by(2).take(pairs) {
            // It has its number until it is waited for.
            fork(&[i32::try_from(number)?], Child::Exits)?;
        }
        let next_id = IdFile::open(NEXT_ID)?;
        if reserves && pairs > 0 {
            next_id.write(&command(Kind::Task, Self::FIRST + 1, 2, pairs))?;
        }
        Ok(Self { last_pid: IdFile::open(NS_LAST_PID)?, _next_id: next_id })
    }

    /// Forks a process that ends at once. The search for its number begins with the first in turn.
    fn fork(&self) -> Result<()> {
        self.last_pid.write_at_start((Self::FIRST - 1).to_string().as_bytes())?;
        Ok(wait(fork(&[], Child::Exits)?)?)
    }
}
