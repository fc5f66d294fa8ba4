// SPDX-License-Identifier: GPL-2.0

//! Who forks whom, and when: how to come by the sessions and process groups of a dump.
//!
//! A process cannot join a session: it is born into that of its parent, or makes its own. So a
//! child that is in the session which its parent left has to be forked before the parent leaves
//! it. And where a parent has ended, and the child has become one of the first process, a helper
//! takes the place of the parent, and ends when all are born. A helper also stands in for the
//! leader of a process group that has ended, until the others have joined.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use criu_images::{Dump, Process};

use crate::failure::NotUnderstood;

type Result<T> = std::result::Result<T, NotUnderstood>;

/// How to make a tree.
#[derive(Debug)]
pub struct Plan {
    /// All processes, each after the one that forks it: first those of the dump, in its order,
    /// then helpers.
    pub nodes: Vec<Node>,
    /// The process group of the first process if nothing in the tree leads it: that of whoever
    /// restores it takes its place.
    outer_group: Option<i32>,
}

/// A process to make.
#[derive(Debug)]
pub struct Node {
    /// Its id.
    pub pid: i32,
    /// Its session.
    pub session: i32,
    /// Its process group.
    pub group: i32,
    /// Those that it forks before it makes a session of its own.
    pub early: Vec<usize>,
    /// Those that it forks after that.
    pub late: Vec<usize>,
    /// Whether it is a helper, which ends when all are in place.
    pub is_helper: bool,
    /// Who forks it.
    maker: Option<usize>,
}

impl Node {
    pub fn leads_session(&self) -> bool {
        self.session == self.pid
    }

    pub fn leads_group(&self) -> bool {
        self.group == self.pid
    }
}

impl Plan {
    /// Plans the tree of `dump`. A helper that needs no certain id gets one that `free` leaves of a
    /// range of them.
    pub fn new(dump: &Dump, free: impl Fn(Range<i32>) -> Vec<i32>) -> Result<Self> {
        let first = &dump.processes[0];
        if dump.own_pid_namespace && first.pid != 1 {
            return Err(NotUnderstood(format!(
                "the dump is a part of a pid namespace: its first process is {}, and a new \
                 namespace begins with 1. Run nextid in the namespace that it is to be a part of, \
                 with --join pid",
                first.pid
            )));
        }
        // The kernel ends a namespace when no id in it is in use but that of its first process.
        if dump.own_pid_namespace && ![0, 1].contains(&first.group) {
            return Err(NotUnderstood(format!(
                "process 1 is in process group {}, which is inside its pid namespace and not its \
                 own: the kernel would never let the namespace end, so it is not restored",
                first.group
            )));
        }
        let mut planner = Planner::new(&dump.processes, &free);
        planner.plan_sessions()?;
        planner.plan_groups();
        let plan = planner.finish();
        plan.check()?;
        Ok(plan)
    }

    /// Checks that each process is forked: none waits for one that is below itself.
    fn check(&self) -> Result<()> {
        let mut is_forked = vec![false; self.nodes.len()];
        let mut forked = vec![0];
        while let Some(place) = forked.pop() {
            is_forked[place] = true;
            forked.extend(self.nodes[place].early.iter().chain(&self.nodes[place].late));
        }
        match is_forked.iter().position(|&it| !it) {
            Some(place) => {
                let Node { pid, session, .. } = self.nodes[place];
                Err(NotUnderstood(format!(
                    "process {pid} is in session {session}, which is led from below it"
                )))
            }
            None => Ok(()),
        }
    }

    /// Whether a process group is one of the tree, and not that of whoever restores it.
    pub fn is_own_group(&self, group: i32) -> bool {
        group != 0 && Some(group) != self.outer_group
    }

    /// Whether a session is one of the tree, and not that of whoever restores it.
    pub fn is_own_session(&self, session: i32) -> bool {
        let first = &self.nodes[0];
        session != 0 && (session != first.session || first.leads_session())
    }

    /// The ids of all processes and threads that are to be made.
    pub fn ids(&self, dump: &Dump) -> Vec<i64> {
        let threads = dump.processes.iter().flat_map(|process| &process.threads);
        let threads = threads.map(|thread| i64::from(thread.tid));
        self.nodes.iter().map(|node| i64::from(node.pid)).chain(threads).collect()
    }
}

struct Planner<'a> {
    processes: &'a [Process],
    plan: Plan,
    /// Where the process or helper with an id is.
    places: HashMap<i32, usize>,
    /// The session that a leader of another one has to be born into.
    births: HashMap<usize, i32>,
    /// Ids for helpers which need no certain one, and where to look for more.
    spares: std::vec::IntoIter<i32>,
    look: i32,
    /// The ids of a range that nothing outside the tree has.
    free: &'a dyn Fn(Range<i32>) -> Vec<i32>,
}

impl<'a> Planner<'a> {
    fn new(processes: &'a [Process], free: &'a dyn Fn(Range<i32>) -> Vec<i32>) -> Self {
        let node = |process: &Process| Node {
            pid: process.pid,
            session: process.session,
            group: process.group,
            early: Vec::new(),
            late: Vec::new(),
            is_helper: false,
            maker: process.parent,
        };
        let places: HashMap<_, _> =
            processes.iter().enumerate().map(|(i, process)| (process.pid, i)).collect();
        let nodes = processes.iter().map(node).collect();
        let outer_group = Some(processes[0].group).filter(|group| !places.contains_key(group));
        let plan = Plan { nodes, outer_group };
        let births = HashMap::new();
        let spares = Vec::new().into_iter();
        Self { processes, plan, places, births, spares, look: 301, free }
    }

    fn plan_sessions(&mut self) -> Result<()> {
        for place in 1..self.processes.len() {
            let node = &self.plan.nodes[place];
            let (pid, session) = (node.pid, node.session);
            let Some(maker) = node.maker else {
                return Err(NotUnderstood(format!("process {pid} has no parent")));
            };
            if node.leads_session() || self.plan.nodes[maker].session == session {
                continue;
            }
            if self.be_born_into(maker, session) {
                continue;
            }
            if maker != 0 || session == 0 {
                return Err(NotUnderstood(format!(
                    "process {pid} is in session {session}, which no parent of it can have been in"
                )));
            }
            let helper = self.session_helper(session);
            self.plan.nodes[place].maker = Some(helper);
        }
        Ok(())
    }

    /// Lets the process at `place` fork a child before it leaves `session`, if it can have been in
    /// it: it, and those above it, each left the session that it was born into.
    fn be_born_into(&mut self, place: usize, session: i32) -> bool {
        let mut leavers = Vec::new();
        let mut place = place;
        loop {
            let node = &self.plan.nodes[place];
            if node.session == session {
                break;
            }
            let born = self.births.get(&place);
            if born == Some(&session) {
                break;
            }
            let (true, None, Some(maker)) = (node.leads_session(), born, node.maker) else {
                return false;
            };
            leavers.push(place);
            place = maker;
        }
        self.births.extend(leavers.into_iter().map(|leaver| (leaver, session)));
        true
    }

    /// A helper in `session`: below its leader, or in place of the leader.
    fn session_helper(&mut self, session: i32) -> usize {
        match self.places.get(&session) {
            Some(&leader) if self.plan.nodes[leader].is_helper => leader,
            Some(&leader) => {
                let pid = self.spare_pid();
                self.add_helper(pid, session, self.plan.nodes[leader].group, leader)
            }
            None => self.add_helper(session, session, session, 0),
        }
    }

    fn plan_groups(&mut self) {
        for place in 0..self.plan.nodes.len() {
            let Node { group, session, .. } = self.plan.nodes[place];
            if self.plan.is_own_group(group) && !self.places.contains_key(&group) {
                self.add_helper(group, session, group, place);
            }
        }
    }

    fn add_helper(&mut self, pid: i32, session: i32, group: i32, maker: usize) -> usize {
        let place = self.plan.nodes.len();
        self.places.insert(pid, place);
        self.plan.nodes.push(Node {
            pid,
            session,
            group,
            early: Vec::new(),
            late: Vec::new(),
            is_helper: true,
            maker: Some(maker),
        });
        place
    }

    /// An id that nothing has, in the tree or outside.
    fn spare_pid(&mut self) -> i32 {
        /// So many are looked for at once: each look goes through all of /proc.
        const BATCH: i32 = 1000;

        loop {
            if let Some(spare) = self.spares.next() {
                return spare;
            }
            let nodes = self.plan.nodes.iter().flat_map(|it| [it.pid, it.group, it.session]);
            let threads = self.processes.iter().flat_map(|process| &process.threads);
            let own: HashSet<i32> = nodes.chain(threads.map(|thread| thread.tid)).collect();
            let mut free = (self.free)(self.look..self.look + BATCH);
            free.retain(|pid| !own.contains(pid));
            self.spares = free.into_iter();
            self.look += BATCH;
        }
    }

    /// Tells each process whom it forks, and when.
    fn finish(mut self) -> Plan {
        for place in 0..self.plan.nodes.len() {
            let Some(maker) = self.plan.nodes[place].maker else { continue };
            let node = &self.plan.nodes[place];
            let last = self.plan.nodes[maker].session;
            let born = if node.leads_session() {
                self.births.get(&place).copied().unwrap_or(last)
            } else {
                node.session
            };
            if born == last {
                self.plan.nodes[maker].late.push(place);
            } else {
                self.plan.nodes[maker].early.push(place);
            }
        }
        self.plan
    }
}

#[cfg(test)]
mod tests {
    use criu_images::State;

    use super::*;

    /// A tree of (pid, place of the parent, group, session).
    fn dump(processes: &[(i32, usize, i32, i32)]) -> Dump {
        let process = |(i, &(pid, parent, group, session)): (usize, &_)| Process {
            pid,
            parent: (i > 0).then_some(parent),
            group,
            session,
            name: Vec::new(),
            state: State::Running,
            threads: Vec::new(),
        };
        let processes = processes.iter().enumerate().map(process).collect();
        Dump { processes, own_pid_namespace: true, own_user_namespace: false, ipc: None }
    }

    /// The plan for a tree outside of which nothing is.
    fn plan(processes: &[(i32, usize, i32, i32)]) -> Result<Plan> {
        Plan::new(&dump(processes), Iterator::collect)
    }

    /// Each process as its maker's list tells it: "maker early child", "maker late child".
    fn forks(plan: &Plan) -> Vec<String> {
        let mut forks = Vec::new();
        for node in &plan.nodes {
            let pid = |&place: &usize| plan.nodes[place].pid;
            forks.extend(node.early.iter().map(pid).map(|it| format!("{} early {it}", node.pid)));
            forks.extend(node.late.iter().map(pid).map(|it| format!("{} late {it}", node.pid)));
        }
        forks
    }

    #[test]
    fn a_session_of_its_own() {
        let plan = plan(&[(1, 0, 1, 1), (7, 0, 7, 7), (8, 1, 7, 7)]).unwrap();
        assert_eq!(forks(&plan), ["1 late 7", "7 late 8"]);
        assert!(!plan.nodes.iter().any(|node| node.is_helper));
    }

    #[test]
    fn a_child_of_the_session_that_its_parent_left() {
        let plan = plan(&[(1, 0, 1, 1), (7, 0, 7, 7), (8, 1, 1, 1)]).unwrap();
        assert_eq!(forks(&plan), ["1 late 7", "7 early 8"]);
    }

    #[test]
    fn a_session_that_two_ancestors_left() {
        let tree = [(1, 0, 1, 1), (7, 0, 7, 7), (8, 1, 8, 8), (9, 2, 1, 1), (10, 2, 8, 8)];
        let plan = plan(&tree).unwrap();
        assert_eq!(forks(&plan), ["1 late 7", "7 early 8", "8 early 9", "8 late 10"]);
    }

    #[test]
    fn an_orphan_whose_session_leader_lives() {
        let plan = plan(&[(1, 0, 1, 1), (7, 0, 7, 7), (8, 0, 7, 7)]).unwrap();
        assert_eq!(forks(&plan), ["1 late 7", "7 late 301", "301 late 8"]);
        assert!(plan.nodes[3].is_helper);
    }

    #[test]
    fn a_helper_has_an_id_that_is_free() {
        let tree = [(1, 0, 1, 1), (7, 0, 7, 7), (8, 0, 7, 7), (301, 0, 1, 1)];
        let plan = Plan::new(&dump(&tree), |pids| pids.filter(|&pid| pid > 303).collect()).unwrap();
        assert_eq!(forks(&plan), ["1 late 7", "1 late 301", "7 late 304", "304 late 8"]);
    }

    #[test]
    fn orphans_whose_session_leader_has_ended() {
        let plan = plan(&[(1, 0, 1, 1), (8, 0, 7, 7), (9, 0, 7, 7)]).unwrap();
        assert_eq!(forks(&plan), ["1 late 7", "7 late 8", "7 late 9"]);
        assert!(plan.nodes[3].is_helper && plan.nodes[3].leads_session());
    }

    #[test]
    fn a_group_whose_leader_has_ended() {
        let plan = plan(&[(1, 0, 1, 1), (8, 0, 7, 1), (9, 0, 7, 1)]).unwrap();
        assert_eq!(forks(&plan), ["1 late 8", "1 late 9", "8 late 7"]);
        assert!(plan.nodes[3].is_helper && plan.nodes[3].leads_group());
    }

    #[test]
    fn a_group_outside_the_tree_needs_no_helper() {
        let mut dump = dump(&[(70, 0, 60, 50), (71, 0, 60, 50)]);
        dump.own_pid_namespace = false;
        let plan = Plan::new(&dump, Iterator::collect).unwrap();
        assert_eq!(forks(&plan), ["70 late 71"]);
        assert!(!plan.is_own_group(60));
    }

    #[test]
    fn a_group_of_the_first_that_is_led_from_below() {
        let mut dump = dump(&[(70, 0, 71, 50), (71, 0, 71, 50)]);
        dump.own_pid_namespace = false;
        let plan = Plan::new(&dump, Iterator::collect).unwrap();
        assert_eq!(forks(&plan), ["70 late 71"]);
        assert!(plan.is_own_group(71));
    }

    #[test]
    fn a_session_that_cannot_be() {
        let tree = [(1, 0, 1, 1), (7, 0, 1, 1), (8, 1, 9, 9)];
        let error = plan(&tree).unwrap_err().to_string();
        let expected = "process 8 is in session 9, which no parent of it can have been in";
        assert_eq!(error, expected);
    }

    #[test]
    fn a_session_that_is_led_from_below() {
        let tree = [(1, 0, 1, 1), (8, 0, 9, 9), (9, 1, 9, 9)];
        let error = plan(&tree).unwrap_err().to_string();
        assert_eq!(error, "process 8 is in session 9, which is led from below it");
    }

    #[test]
    fn a_part_of_a_namespace() {
        let error = plan(&[(42, 0, 42, 42)]).unwrap_err().to_string();
        assert!(error.contains("its first process is 42"), "{error}");
    }

    #[test]
    fn a_namespace_that_would_never_end() {
        for tree in [[(1, 0, 8, 0), (8, 0, 8, 0)], [(1, 0, 8, 0), (9, 0, 8, 0)]] {
            let error = plan(&tree).unwrap_err().to_string();
            assert!(error.contains("process 1 is in process group 8"), "{error}");
        }
    }
}
