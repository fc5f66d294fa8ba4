// SPDX-License-Identifier: GPL-2.0

//! What the processes of a scenario know.

use std::ops::Range;
use std::os::fd::RawFd;

use nix::libc;

use crate::ids;
use crate::scenario::{MAX_LEVELS, SLOTS_EACH, Scenario};
use crate::sys;
use crate::tally::Tally;

#[derive(Clone, Copy)]
pub struct Environment {
    pub scenario: &'static Scenario,
    pub tally: &'static Tally,
    /// The slot of its first thread.
    first_slot: usize,
    /// Seed and lists to arm, for each thread.
    pub seed: u64,
    pub arms: u64,
    /// This program.
    pub program: RawFd,
    /// The pid namespaces, innermost first.
    namespaces: [RawFd; MAX_LEVELS],
    levels: usize,
}

impl Environment {
    /// That of scenario `number`, before it has entered any namespace.
    pub fn new(
        number: usize,
        scenario: &'static Scenario,
        tally: &'static Tally,
        (seed, arms): (u64, u64),
        program: RawFd,
    ) -> Self {
        let first_slot = number * SLOTS_EACH;
        let namespaces = [-1; MAX_LEVELS];
        Self { scenario, tally, first_slot, seed, arms, program, namespaces, levels: 0 }
    }

    /// The pid namespaces that a new task is in, innermost first.
    pub fn namespaces(&self) -> &[RawFd] {
        &self.namespaces[..self.levels]
    }

    /// For how many of them ids can be asked.
    pub fn askable(&self) -> usize {
        if self.scenario.unprivileged { self.scenario.depth } else { self.levels }
    }

    /// Adds the pid namespace of the calling process.
    pub fn enter_namespace(&mut self) -> sys::Result<()> {
        self.namespaces.rotate_right(1);
        self.namespaces[0] = sys::open(c"/proc/self/ns/pid", libc::O_RDONLY | libc::O_CLOEXEC)?;
        self.levels += 1;
        Ok(())
    }

    /// The slots of its threads.
    pub fn slots(&self) -> Range<usize> {
        self.first_slot..self.first_slot + SLOTS_EACH
    }

    /// The first id of each list that its threads have for themselves.
    pub fn own_ids(&self) -> impl Iterator<Item = i64> {
        self.slots().flat_map(|slot| ids::of_processes(slot).chain(ids::of_threads(slot)))
    }
}
