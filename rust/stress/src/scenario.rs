// SPDX-License-Identifier: GPL-2.0

//! The scenarios: sets of namespaces, and what happens to them.

/// Worker processes of a scenario, and the threads of each.
pub const PROCESSES: usize = 2;
pub const THREADS: usize = 2;

/// The deepest nesting of pid namespaces, the initial one included.
pub const MAX_LEVELS: usize = 4;

/// The most tasks in the scenario that is limited: the one that made it, init, the workers with a
/// thread each that starts the others, and two for all that they create.
pub const LIMIT: usize = 2 + PROCESSES * (THREADS + 1) + 2;

pub struct Scenario {
    pub name: &'static str,
    /// How many pid namespaces there are, one inside the other, below the initial one.
    pub depth: usize,
    /// Whether they belong to a user namespace that an unprivileged user made.
    pub unprivileged: bool,
    /// Whether a pids cgroup makes forks fail late.
    pub limited: bool,
    /// Whether all of its processes are killed in the middle.
    pub killed: bool,
}

impl Scenario {
    /// One in which nothing is special.
    const fn new(name: &'static str, depth: usize) -> Self {
        Self { name, depth, unprivileged: false, limited: false, killed: false }
    }
}

pub const ALL: [Scenario; 6] = [
    Scenario::new("one level", 1),
    Scenario::new("three levels", 3),
    Scenario { unprivileged: true, ..Scenario::new("unprivileged", 1) },
    Scenario { unprivileged: true, ..Scenario::new("unprivileged, two levels", 2) },
    Scenario { limited: true, ..Scenario::new("limited", 1) },
    Scenario { killed: true, ..Scenario::new("killed", 2) },
];

/// The worker threads of a scenario, each of which has a slot of its own.
pub const SLOTS_EACH: usize = PROCESSES * THREADS;

/// The worker threads of all scenarios.
pub const SLOTS: usize = ALL.len() * SLOTS_EACH;
