// SPDX-License-Identifier: GPL-2.0

//! Which ids are asked for, and by whom.

use std::ops::Range;

use crate::scenario::{MAX_LEVELS, SLOTS};

/// The most ids that can be armed.
pub const MAX_IDS: usize = 65536;

/// One above the greatest pid that there can be: `PID_MAX_LIMIT`.
pub const PID_MAX: i64 = 1 << 22;

/// How many ids, or lists of ids, a thread has for itself.
pub const OWN: usize = 16;

/// Ids that several threads of a scenario compete for.
pub const SHARED: usize = 2;

/// The first of the pids that victims reserve.
pub const RESERVED_BY_VICTIMS: i64 = 800_000;

/// The most ids that a thread reserves at once, and the first of those that no other one asks for.
pub const MOST_RESERVED: usize = 1000;

pub fn to_reserve(slot: usize) -> i64 {
    3_600_000 + (slot * MOST_RESERVED) as i64
}

/// Slots beyond those of the threads, of which each victim has one.
const VICTIMS: Range<usize> = 2 * SLOTS..2 * SLOTS + 40_000;

const OBJECTS_OF_VICTIMS: Range<i32> = 16384..32768;

/// The first ids of the lists that the thread in a slot has for its processes. The kernel, which
/// counts up from 1, does not reach these.
pub fn of_processes(slot: usize) -> impl Iterator<Item = i64> {
    let first = 1_000_000 + (slot * OWN * MAX_LEVELS) as i64;
    (first..).step_by(MAX_LEVELS).take(OWN)
}

/// The same for its threads. A thread that was joined still has its ids for a moment: only a thread
/// that waits for this may ask for them again.
pub fn of_threads(slot: usize) -> impl Iterator<Item = i64> {
    of_processes(SLOTS + slot)
}

/// The same for the processes that all threads of a scenario compete for.
pub fn shared() -> impl Iterator<Item = i64> {
    (900_000..).step_by(MAX_LEVELS).take(SHARED)
}

/// The first pid of victim `number`.
pub fn of_victim(number: usize) -> i64 {
    of_processes(VICTIMS.start + number % VICTIMS.len()).next().unwrap_or_default()
}

/// The index of the IPC objects of victim `number`.
pub fn object_of_victim(number: usize) -> i32 {
    OBJECTS_OF_VICTIMS.start + (number % OBJECTS_OF_VICTIMS.len()) as i32
}

/// Whether the IPC object with `id` is of a victim.
pub fn is_object_of_victim(id: i32) -> bool {
    OBJECTS_OF_VICTIMS.contains(&(id & 0x7fff))
}

/// The id of an IPC object: the sequence number above, the index below.
pub fn of_object(sequence: u16, index: i32) -> i32 {
    i32::from(sequence) << 15 | index
}
