// SPDX-License-Identifier: GPL-2.0

//! What reservations cost.

use anyhow::Result;
use nextid::{IpcKind, Kind};

use crate::harness::{Competitor, Session};
use crate::keys::{Case, Group};
use crate::method::NEXT_ID;
use crate::others::Others;
use crate::sys::{Child, IdFile, MOST_PIDS, create, fork, set_sysctl, wait};

/// How many ids are reserved elsewhere while objects are created.
const BESIDE: [usize; 3] = [0, 10, 65_536];

/// How many ids a command reserves.
pub const SIZES: [usize; 3] = [1, 1_000, 65_536];

/// Pids from here up are free, once there are more than 32768.
const FIRST_PID: usize = 100_000;

/// Between two ids that are scattered: as far as 65,536 of them can be, in round numbers.
const DISTANCE: usize = 61;

/// Measures forks and queues beside reservations, and reserving.
pub fn measure(session: &mut Session) -> Result<()> {
    set_sysctl("pid_max", MOST_PIDS)?;
    for size in BESIDE {
        beside(session, size)?;
    }
    for size in SIZES {
        reserve(session, size)?;
    }
    Ok(())
}

/// Creates objects where `size` pids, and as many indexes of message queues, are reserved.
fn beside(session: &mut Session, size: usize) -> Result<()> {
    // Not here: a fork copies the descriptor, and the memory that the commands took.
    let reserve = || {
        let file = IdFile::open(NEXT_ID)?;
        if size > 0 {
            file.write(&command(Kind::Task, FIRST_PID, 1, size))?;
            file.write(&command(IpcKind::MessageQueue.into(), 0, 1, size))?;
        }
        Ok(file)
    };
    let pause = |_: &IdFile| {
        nix::unistd::pause();
        Ok(())
    };
    let holder = Others::start_prepared(reserve, pause)?;
    let queue = || Ok(IpcKind::MessageQueue.remove(create(IpcKind::MessageQueue)?)?);
    // Each gets the next index. The first 64 take less: the kernel's tree has one level.
    (0..64).try_for_each(|_| queue())?;
    let competitors = vec![
        Competitor::new(Case::Fork, || Ok(wait(fork(&[], Child::Exits)?)?)),
        Competitor::new(Case::Msgget, queue),
    ];
    session.compare(Group::BesideReserved, Some(size as u64), competitors)?;
    holder.end()
}

/// Reserves `size` pids by one command, on a descriptor that is new. What is timed is the write.
fn reserve(session: &mut Session, size: usize) -> Result<()> {
    let competitors = Group::Reserve.cases().iter().map(|&case| {
        let command = command_for(case, size);
        let prepare = || IdFile::open(NEXT_ID);
        let reserve = move |file: &IdFile| file.write(&command);
        Competitor::on(case, prepare, reserve, |file| {
            drop(file);
            Ok(())
        })
        .singly()
    });
    session.compare_each(Group::Reserve, size, competitors.collect())
}

/// The command that reserves `size` pids, dense or scattered.
pub fn command_for(case: Case, size: usize) -> Vec<u8> {
    let distance = if case == Case::Scattered { DISTANCE } else { 1 };
    command(Kind::Task, FIRST_PID, distance, size)
}

/// The command that reserves `size` ids from `first` on, `distance` apart.
pub fn command(kind: Kind, first: usize, distance: usize, size: usize) -> Vec<u8> {
    let mut command = format!("RESERVE {}{size}", kind.word());
    for id in (first..).step_by(distance).take(size) {
        command.push(' ');
        command.push_str(&id.to_string());
    }
    command.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_out() {
        assert_eq!(command(Kind::Task, 5, 1, 3), b"RESERVE PID3 5 6 7");
        let queues = command(IpcKind::MessageQueue.into(), 0, 10, 2);
        assert_eq!(queues, b"RESERVE MSG2 0 10");
    }
}
