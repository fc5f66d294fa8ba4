// SPDX-License-Identifier: GPL-2.0

//! Whether all processes of a tree get their ids while others fork too.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nextid::{Error, Kind, Reservation};
use nix::libc::pid_t;

use crate::data::Restores;
use crate::harness::Session;
use crate::keys::{Case, Lifetime};
use crate::method::{Method, NS_LAST_PID, is_in_use};
use crate::others::Others;
use crate::sys::{self, Child, IdFile, MOST_PIDS, set_sysctl};

/// How many processes a tree has: all of them are children of the one that restores it.
const PROCESSES: usize = 50;

/// The first id of a tree is so many ahead of the next that the kernel would choose.
const AHEAD: pid_t = 20;

/// No other ids are chosen more often.
const MAX_TRIES: usize = 100_000;

/// Counts the restores that succeed.
pub fn measure(session: &mut Session) -> Result<()> {
    set_sysctl("pid_max", MOST_PIDS)?;
    for lifetime in Lifetime::ALL {
        let child = match lifetime {
            Lifetime::Millisecond => Child::Sleeps,
            Lifetime::None => Child::Exits,
        };
        let others = Others::start_two(|| sys::wait(sys::fork(&[], child)?))?;
        compare(session, lifetime)?;
        others.end()?;
    }
    Ok(())
}

/// How ids are chosen, and whether they are reserved before.
struct Competitor {
    method: Method,
    reserves: bool,
}

impl Competitor {
    fn all() -> Result<Vec<Self>> {
        let methods =
            [Method::Sysctl(IdFile::open(NS_LAST_PID)?), Method::SetTid, Method::next_id()?];
        let mut all: Vec<Self> =
            methods.into_iter().map(|method| Self { method, reserves: false }).collect();
        all.push(Self { method: Method::next_id()?, reserves: true });
        Ok(all)
    }

    fn case(&self) -> Case {
        if self.reserves { Case::NextIdReserved } else { self.method.case() }
    }
}

/// Lets all competitors restore in turn, so that none has the machine for itself.
fn compare(session: &mut Session, lifetime: Lifetime) -> Result<()> {
    let competitors = Competitor::all()?;
    let tried = session.effort.restores;
    let mut counts: Vec<Restores> = competitors
        .iter()
        .map(|competitor| Restores {
            lifetime,
            case: competitor.case(),
            tried,
            wrong: 0,
            refused: 0,
            reserved_again: 0,
            milliseconds: Vec::with_capacity(tried),
        })
        .collect();
    for round in 0..tried {
        session.progress(&format!("restores, others' children {lifetime}"), round, tried);
        for turn in 0..competitors.len() {
            let place = (round + turn) % competitors.len();
            restore(&competitors[place], &mut counts[place]).context(competitors[place].case())?;
        }
    }
    session.restores.append(&mut counts);
    Ok(())
}

/// Restores one tree, and ends it.
fn restore(competitor: &Competitor, counts: &mut Restores) -> Result<()> {
    let start = Instant::now();
    let (ids, reservation) = if competitor.reserves {
        let (ids, reservation) = reserve(counts)?;
        (ids, Some(reservation))
    } else {
        (ids_ahead()?, None)
    };
    let mut pids = Vec::with_capacity(PROCESSES);
    let created = create(&competitor.method, &ids, &mut pids);
    let milliseconds = start.elapsed().as_secs_f64() * 1000.0;

    // Each of them has a copy of the reservation's descriptor.
    pids.into_iter().try_for_each(sys::kill)?;
    drop(reservation);
    match created {
        Ok(true) => counts.milliseconds.push(milliseconds),
        Ok(false) => counts.wrong += 1,
        Err(error) if is_in_use(&error) => counts.refused += 1,
        Err(error) => return Err(error),
    }
    // A sysctl's turn must not use up an id that is armed still.
    if let Method::NextId(file) = &competitor.method {
        file.write(b"RESET")?;
    }
    Ok(())
}

/// Creates processes with `ids`, and adds them to `pids`, up to the first that has another id.
/// Returns whether there was none.
fn create(method: &Method, ids: &[pid_t], pids: &mut Vec<pid_t>) -> Result<bool> {
    for &id in ids {
        let pid = method.process(&[id], Child::Pauses)?;
        pids.push(pid);
        if pid != id {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reserves the ids of a tree. Where one of them is in use, others are chosen.
fn reserve(counts: &mut Restores) -> Result<([pid_t; PROCESSES], Reservation)> {
    for _ in 0..MAX_TRIES {
        let ids = ids_ahead()?;
        match Reservation::new([(Kind::Task, &ids.map(i64::from)[..])]) {
            Ok(reservation) => return Ok((ids, reservation)),
            Err(Error::Taken { .. }) => counts.reserved_again += 1,
            Err(error) => return Err(error.into()),
        }
    }
    bail!("no ids could be reserved in {MAX_TRIES} tries")
}

/// Ids for a tree, just ahead of the next that the kernel would choose.
fn ids_ahead() -> Result<[pid_t; PROCESSES]> {
    let path = NS_LAST_PID.to_str()?;
    let last: pid_t = fs::read_to_string(path).context(path)?.trim().parse().context(path)?;
    let mut ids = last + AHEAD..;
    Ok(std::array::from_fn(|_| ids.next().expect("pids are far from the limit of their type")))
}
