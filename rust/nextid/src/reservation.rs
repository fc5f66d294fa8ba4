// SPDX-License-Identifier: GPL-2.0

//! Reservations.

use std::fs::File;
use std::ops::RangeInclusive;

use nix::errno::Errno;

use crate::error::{Action, Error, Feature, Result};
use crate::file;
use crate::kind::Kind;

/// The most ids that one command can reserve. A reservation can have more.
pub const MAX_IDS: usize = 65536;

/// Ids that the kernel gives to nothing that does not ask for them by name, as long as this lasts.
///
/// From the moment it is made, no fork, `msgget(2)` and so on of anybody else gets one of these ids
/// by chance. Whoever names an id, and has the capability for its namespace, gets it: by
/// [`NextId`](crate::NextId), by `set_tid` of `clone3(2)`, by a sysctl. So what is restored with
/// them needs no part of this. An id stays reserved while it is in use, and when it is free again.
///
/// ```no_run
/// use nextid::{IpcKind, Kind, NextId, Pids, Reservation};
///
/// let held = Reservation::new([
///     (Kind::Task, &[42, 43, 512][..]),
///     (IpcKind::SharedMemory.into(), &[98313]),
/// ])?;
/// // No race can be lost any more.
/// let child = NextId::open()?.arm(Pids(&[42]))?.fork(|| 0)?;
/// drop(held);
/// # Ok::<(), nextid::Error>(())
/// ```
///
/// It may be made on one thread and dropped on another. It is a descriptor, which is closed by
/// `execve(2)`; a child that is forked, and executes nothing, inherits it, and so holds the ids as
/// well until it drops its copy, or ends.
#[derive(Debug)]
pub struct Reservation {
    /// It is only held: the reservation ends when the last descriptor is closed.
    file: File,
}

impl Reservation {
    /// Reserves ids of several kinds, all of them or none: pids in the pid namespace of the
    /// caller's children, which is the caller's own unless `unshare(2)` or `setns(2)` chose
    /// another, and System V IPC objects in the caller's IPC namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Taken`] where one of the ids is in use, is reserved already, or is in a list twice:
    /// [`Error::holders`] tells which, and who has it. [`Error::OutOfRange`] where no object can
    /// have one of them, or a pid is 1; [`Error::TooManyReserved`] in the initial pid namespace;
    /// [`Error::NotPermitted`]; [`Error::NotSupported`] where the kernel has no reservations, and
    /// for pseudoterminals; [`Error::NoProc`]; [`Error::System`] for any other reason. Nothing is
    /// reserved then.
    pub fn new<'a>(ids: impl IntoIterator<Item = (Kind, &'a [i64])>) -> Result<Self> {
        let mut reservation = Self { file: file::open()? };
        for (kind, ids) in ids {
            for ids in ids.chunks(MAX_IDS) {
                reservation.add(kind, ids)?;
            }
        }
        Ok(reservation)
    }

    /// Reserves all pids in a range that are free: whatever is created next gets others.
    ///
    /// ```no_run
    /// // What is started meanwhile has ids above 1000, and so has all that it starts.
    /// let held = nextid::Reservation::of_free_pids(2..=1000)?;
    /// # Ok::<(), nextid::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Reservation::new`], but for [`Error::Taken`].
    pub fn of_free_pids(range: RangeInclusive<i64>) -> Result<Self> {
        let mut reservation = Self { file: file::open()? };
        let (first, mut last) = range.into_inner();
        // From above, so that a range that goes too far is refused at once.
        while last >= first {
            let pids: Vec<i64> = (first..=last).rev().take(MAX_IDS).collect();
            reservation.add_free_pids(&pids)?;
            last -= i64::try_from(pids.len()).unwrap_or(i64::MAX);
        }
        Ok(reservation)
    }

    /// Adds those of `pids` that are free. It asks for all, and where one of them is in use, for
    /// each half.
    fn add_free_pids(&mut self, pids: &[i64]) -> Result<()> {
        match self.add(Kind::Task, pids) {
            Err(Error::Taken { .. }) if pids.len() == 1 => Ok(()),
            Err(Error::Taken { .. }) => {
                let (first, second) = pids.split_at(pids.len() / 2);
                self.add_free_pids(first)?;
                self.add_free_pids(second)
            }
            added => added,
        }
    }

    /// Adds `ids`, all of them or none.
    fn add(&mut self, kind: Kind, ids: &[i64]) -> Result<()> {
        let action = Action::Reserve(kind);
        let word = format!("RESERVE {}", kind.word());
        let command = format_args!("{word}{}", ids.len());
        let written = file::write(&self.file, &mut Vec::new(), command, ids);
        written.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EINVAL) if !file::knows(&self.file, &word) => {
                Error::NotSupported(Feature::Reservations)
            }
            _ => Error::refused(action, ids, error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_can_be_given_to_another_thread() {
        fn is_send<T: Send + Sync>() {}
        is_send::<Reservation>();
    }
}
