// SPDX-License-Identifier: GPL-2.0

//! Ids just ahead of those that the kernel gives out, while others fork as fast as they can: with a
//! reservation and without one.

use std::fs;
use std::ops::RangeInclusive;

use anyhow::{Result, bail};
use demo::{Row, print_table, print_title};
use nextid::{Kind, NextId, Pids, Reservation};
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, pause};

use crate::compare::Outcome;

/// How many processes fork meanwhile.
const OTHERS: usize = 2;

/// How far ahead of the kernel the ids begin, and how many there are.
const AHEAD: i64 = 20;
const COUNT: u8 = 10;

/// An id may be in use when it is asked for. Then others are tried.
const MAX_TRIES: usize = 100;

/// Creates processes with such ids, prints what came, and returns how many ids were not as asked.
pub fn run() -> Result<Outcome> {
    let mut next = NextId::open()?;

    // Before the reservation: a child has a copy of its descriptor.
    let others = Others::start()?;
    let (ids, reservation) = reserve_ahead()?;
    wait_until_passed(&ids)?;
    let got = ids.clone().filter(|&id| is_created(&mut next, id)).count();
    drop(reservation);
    let mut rows = vec![row("reserved first", &ids, got, got == count())];

    let unreserved = ahead()?;
    wait_until_passed(&unreserved)?;
    let free = unreserved.clone().filter(|&id| is_created(&mut next, id)).count();
    rows.push(row("not reserved", &unreserved, free, free < count()));
    others.end()?;

    print_title(
        "Beside others that fork all the time: ids just ahead of those that the kernel gives out",
    );
    print_table(["processes", "asked for", "got"], 2, &rows);
    Ok(Outcome { ids: count(), wrong: rows.iter().filter(|row| !row.good).count() })
}

fn count() -> usize {
    usize::from(COUNT)
}

fn row(label: &str, ids: &RangeInclusive<i64>, got: usize, good: bool) -> Row<3> {
    let asked = format!("{} to {}", ids.start(), ids.end());
    let came = match got {
        all if all == count() => "all of them".to_owned(),
        some => format!("{some} of {COUNT}, the others are in use by then"),
    };
    Row { good, cells: [label.to_owned(), asked, came] }
}

/// The ids that the kernel will come to soon.
fn ahead() -> Result<RangeInclusive<i64>> {
    let first = last_pid()? + AHEAD;
    Ok(first..=first + i64::from(COUNT) - 1)
}

fn reserve_ahead() -> Result<(RangeInclusive<i64>, Reservation)> {
    for _ in 0..MAX_TRIES {
        let ids = ahead()?;
        let list: Vec<i64> = ids.clone().collect();
        if let Ok(reservation) = Reservation::new([(Kind::Task, &list[..])]) {
            return Ok((ids, reservation));
        }
    }
    bail!("no {COUNT} pids ahead of the kernel could be reserved in {MAX_TRIES} tries")
}

/// The pid that the kernel gave out last.
fn last_pid() -> Result<i64> {
    Ok(fs::read_to_string("/proc/sys/kernel/ns_last_pid")?.trim().parse()?)
}

/// Waits until the kernel gives out pids beyond `ids`: those that it could give out are in use
/// then.
fn wait_until_passed(ids: &RangeInclusive<i64>) -> Result<()> {
    while last_pid()? <= ids.end() + AHEAD {
        std::thread::yield_now();
    }
    Ok(())
}

/// Whether a process with this id can be created.
fn is_created(next: &mut NextId, id: i64) -> bool {
    let created = next.arm(Pids(&[id])).and_then(|armed| armed.fork(|| 0));
    created.is_ok_and(|child| {
        let is_right = i64::from(child.pid()) == id;
        child.wait().is_ok() && is_right
    })
}

/// Processes that fork as fast as they can. Their children live as long as they do.
struct Others(Vec<Pid>);

impl Others {
    fn start() -> Result<Self> {
        let mut others = Vec::new();
        for _ in 0..OTHERS {
            // SAFETY: This program has no other thread.
            match unsafe { fork() }? {
                ForkResult::Parent { child } => others.push(child),
                ForkResult::Child => fork_for_ever(),
            }
        }
        Ok(Self(others))
    }

    fn end(self) -> Result<()> {
        for other in self.0 {
            kill(other, Signal::SIGKILL)?;
            waitpid(other, None)?;
        }
        Ok(())
    }
}

fn fork_for_ever() -> ! {
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let parent = getpid();
    loop {
        // SAFETY: This program has no other thread.
        if let Ok(ForkResult::Child) = unsafe { fork() } {
            let _ = prctl::set_pdeathsig(Signal::SIGKILL);
            // A parent that was killed before sends no signal.
            if getppid() == parent {
                pause();
            }
            // SAFETY: It has no preconditions.
            unsafe { libc::_exit(0) }
        }
    }
}
