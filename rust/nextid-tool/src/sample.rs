// SPDX-License-Identifier: GPL-2.0

//! Dumps for the unit tests.

use criu_images::{Dump, Process, State};

/// A process without a name, which has no other thread and runs.
pub fn process(pid: i32, parent: Option<usize>, group: i32, session: i32) -> Process {
    Process {
        pid,
        parent,
        group,
        session,
        name: Vec::new(),
        state: State::Running,
        is_subreaper: false,
        threads: Vec::new(),
    }
}

/// A dump of processes in a pid namespace of their own, and of nothing else.
pub fn dump(processes: Vec<Process>) -> Dump {
    Dump { processes, own_pid_namespace: true, own_user_namespace: false, ipc: None }
}
