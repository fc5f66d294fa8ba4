// SPDX-License-Identifier: GPL-2.0

//! What each process does, and when, so that the tree of a dump comes of it.
//!
//! First all are forked, each by the one that it is to descend from. Those whose parent at the end
//! is another, further up, are forked by a helper: when that ends, the nearest subreaper becomes
//! their parent, so the processes take turns at being one, the lowest first. Helpers also stand in
//! for the leaders of sessions and process groups that have ended: a group is there as long as one
//! process is in it, and others can join. In between, the groups are made, joined, and left by
//! leaders that are in another one at the end.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use criu_images::{Dump, Process};

use super::lineage::{self, Lineage, Member, Session};
use crate::failure::Failure;

type Result<T> = std::result::Result<T, Failure>;

/// How to make a tree.
#[derive(Debug)]
pub struct Plan {
    /// All processes: first those of the dump, in its order, then helpers.
    pub nodes: Vec<Node>,
    /// What all do together: none begins with a step before all are through the one before.
    pub steps: Vec<Step>,
    /// The ids of processes and threads in pid namespaces further out, as far as they are chosen.
    pub outer: HashMap<i32, Vec<i64>>,
    outside: Outside,
}

/// A process group that no process of the tree made, which that of whoever restores it stands for,
/// and such a session; 0 always is one.
#[derive(Clone, Copy, Debug, Default)]
struct Outside {
    group: i32,
    session: i32,
}

impl Outside {
    fn has_group(self, group: i32) -> bool {
        group == 0 || group == self.group
    }

    fn has_session(self, session: i32) -> bool {
        session == 0 || session == self.session
    }

    /// Whether a process has to join its group: it does not make it, and may not be born into it.
    fn joins_group(self, node: &Node) -> bool {
        (!self.has_group(node.group) || node.makes_group) && !node.leads_group()
    }
}

/// What is done together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Each forks its early children, makes its session if it leads one, and forks its late ones.
    Fork,
    /// Those that lead a process group, or once did, make it.
    MakeGroups,
    /// Those that made none join theirs.
    JoinGroups,
    /// Those that made one, and are in another at the end, join that.
    LeaveGroups,
    /// Those at this depth that are to adopt are subreapers from now on, all others are not.
    Adopt(usize),
    /// Helpers whose children become those of processes at this depth end.
    End(usize),
    /// Each becomes in all else what was dumped.
    Complete,
}

/// A process to make.
#[derive(Debug, Default)]
pub struct Node {
    /// Its id.
    pub pid: i32,
    /// Its session.
    pub session: i32,
    /// Its process group.
    pub group: i32,
    /// Whether it makes a process group of its own, which it may leave.
    pub makes_group: bool,
    /// Those that it forks before it makes a session of its own.
    pub early: Vec<usize>,
    /// Those that it forks after that.
    pub late: Vec<usize>,
    /// Those that are its children at the end.
    pub children: Vec<usize>,
    /// At which depth it adopts, which is its own.
    pub adopts: Option<usize>,
    /// At which depth it ends, if it is a helper.
    pub ends: Option<usize>,
}

impl Node {
    pub fn is_helper(&self) -> bool {
        self.ends.is_some()
    }

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
            return Err(Failure::not_understood(format!(
                "the dump is a part of a pid namespace: its first process is {}, and a new \
                 namespace begins with 1. Run nextid in the namespace that it is to be a part of, \
                 with --join pid",
                first.pid
            )));
        }
        if dump.own_pid_namespace && ![0, 1].contains(&first.session) {
            return Err(Failure::not_understood(format!(
                "process 1 is in session {}, which is led from below it",
                first.session
            )));
        }
        let facts = Facts::of(&dump.processes, dump.own_pid_namespace)?;
        let lineage = facts.lineage(&dump.processes)?;
        Ok(Planner::new(&dump.processes, &facts, lineage, &free).plan())
    }

    /// Whether a process group is one of the tree, and not that of whoever restores it.
    pub fn is_own_group(&self, group: i32) -> bool {
        !self.outside.has_group(group)
    }

    /// Whether a process has to join its group: it does not make it, and may not be born into it.
    pub fn joins_group(&self, node: &Node) -> bool {
        self.outside.joins_group(node)
    }

    /// Whether a session is one of the tree, and not that of whoever restores it.
    pub fn is_own_session(&self, session: i32) -> bool {
        !self.outside.has_session(session)
    }

    /// Whether the process at `place` is there once `step` is over.
    pub fn outlives(&self, place: usize, step: Step) -> bool {
        match (self.nodes[place].ends, step) {
            (Some(end), Step::Adopt(depth)) => end <= depth,
            (Some(end), Step::End(depth)) => end < depth,
            (Some(_), Step::Complete) => false,
            _ => true,
        }
    }

    /// All ids to ask for, of the process or thread that is `pid` in the dump.
    pub fn all_ids_of(&self, pid: i32) -> Vec<i64> {
        let outer = self.outer.get(&pid).into_iter().flatten();
        [i64::from(pid)].iter().chain(outer).copied().collect()
    }

    /// The ids of all processes and threads that are to be made.
    pub fn ids(&self, dump: &Dump) -> Vec<i64> {
        let threads = dump.processes.iter().flat_map(|process| &process.threads);
        let threads = threads.map(|thread| i64::from(thread.tid));
        self.nodes.iter().map(|node| i64::from(node.pid)).chain(threads).collect()
    }

    /// The ids in the current pid namespace that are chosen for processes in one of their own.
    pub fn outer_ids(&self, dump: &Dump) -> Vec<i64> {
        let outer = self.outer.values().filter(|_| dump.own_pid_namespace);
        outer.filter_map(|outer| outer.first().copied()).collect()
    }
}

/// What the ids of a tree tell.
struct Facts {
    outside: Outside,
    /// Where in the tree each process is.
    places: HashMap<i32, usize>,
    /// The leaders of sessions that have ended, in order.
    ended_leaders: Vec<i32>,
    /// The session of each process group in the tree.
    groups: BTreeMap<i32, i32>,
}

impl Facts {
    /// Checks what no lineage can make good.
    fn of(processes: &[Process], own_pid_namespace: bool) -> Result<Self> {
        let first = &processes[0];
        let places: HashMap<i32, usize> =
            processes.iter().enumerate().map(|(place, process)| (process.pid, place)).collect();
        let outer_session = if first.session == first.pid { 0 } else { first.session };
        // In a pid namespace of its own, what is outside has no other name.
        let is_outer = !own_pid_namespace
            && first.session == outer_session
            && !places.contains_key(&first.group);
        let outer_group = if is_outer { first.group } else { 0 };
        let mut facts = Self {
            outside: Outside { group: outer_group, session: outer_session },
            places,
            ended_leaders: Vec::new(),
            groups: BTreeMap::new(),
        };
        let threads: HashSet<i32> =
            processes.iter().flat_map(|process| &process.threads).map(|it| it.tid).collect();
        for process in processes {
            facts.check(processes, process, &threads)?;
        }
        // What is outside of a pid namespace has no name in it.
        let has_left = |it: &&Process| it.group == 0 && facts.groups.contains_key(&it.pid);
        if let Some(process) = processes.iter().find(has_left) {
            return Err(Failure::not_understood(format!(
                "process {0} is in a process group outside of its pid namespace, and others are in \
                 group {0}, which it made: from inside, it cannot have gone back",
                process.pid
            )));
        }
        facts.ended_leaders.sort_unstable();
        facts.ended_leaders.dedup();
        for (&group, &session) in &facts.groups {
            // A session is led by its first group.
            let is_session = group != session && facts.ended_leaders.binary_search(&group).is_ok();
            let leader = facts.places.get(&group).map(|&place| &processes[place]);
            if is_session || leader.is_some_and(|leader| facts.inner(leader.session) != session) {
                return Err(Failure::not_understood(format!(
                    "process group {group} is in session {session}, and process {group} was in another"
                )));
            }
        }
        Ok(facts)
    }

    fn check(
        &mut self,
        processes: &[Process],
        process: &Process,
        threads: &HashSet<i32>,
    ) -> Result<()> {
        let &Process { pid, group, session, .. } = process;
        let refuse = |why: String| Err(Failure::not_understood(format!("process {pid} {why}")));
        if session == pid && group != pid {
            return refuse(format!("leads session {session}, and is in process group {group}"));
        }
        if !self.outside.has_session(session) {
            match self.places.get(&session) {
                Some(&leader) if processes[leader].session != session => {
                    return refuse(format!(
                        "is in session {session}, which process {session} is not"
                    ));
                }
                Some(_) => {}
                None => self.ended_leaders.push(session),
            }
        } else if session != 0 && self.places.contains_key(&session) {
            return refuse(format!("is in session {session}, which is led from below it"));
        }
        for (what, id) in [("session", session), ("process group", group)] {
            if threads.contains(&id) {
                return refuse(format!("is in {what} {id}, which is the id of a thread"));
            }
        }
        if self.outside.has_group(group) {
            if !self.outside.has_session(session) {
                return refuse(format!(
                    "is in process group {group}, which is outside of its session {session}"
                ));
            }
            return Ok(());
        }
        let session = self.inner(session);
        match self.groups.insert(group, session) {
            Some(other) if other != session => refuse(format!(
                "is in process group {group} and session {session}, and others of that group are in \
                 session {other}"
            )),
            _ => Ok(()),
        }
    }

    /// The session, or 0 where it is outside, which it may have another name for.
    fn inner(&self, session: i32) -> i32 {
        if self.outside.has_session(session) { 0 } else { session }
    }

    /// Where the leader of a session is: those that have ended come after the processes.
    fn session(&self, session: i32) -> Session {
        if self.outside.has_session(session) {
            return None;
        }
        self.places.get(&session).copied().or_else(|| {
            let ended = self.ended_leaders.binary_search(&session);
            ended.ok().map(|number| self.places.len() + number)
        })
    }

    fn lineage(&self, processes: &[Process]) -> Result<Lineage> {
        let member = |process: &Process| Member {
            parent: process.parent,
            session: self.session(process.session),
        };
        let members: Vec<Member> = processes.iter().map(member).collect();
        lineage::find(&members, members.len() + self.ended_leaders.len()).map_err(|error| {
            let Some(process) = processes.get(error.place) else {
                let session = self.ended_leaders[error.place - processes.len()];
                return Failure::not_understood(format!("session {session} cannot have been where it is"));
            };
            let Process { pid, session, .. } = process;
            let parent = process.parent.map_or(0, |parent| processes[parent].pid);
            Failure::not_understood(format!(
                "process {pid} is in session {session} and a child of {parent}: no history of fork, \
                 setsid and exit leads there, since {parent} can neither have been in that session \
                 nor have made its leader"
            ))
        })
    }
}

struct Planner<'a> {
    processes: &'a [Process],
    facts: &'a Facts,
    lineage: Lineage,
    nodes: Vec<Node>,
    /// How many each descends from.
    depths: Vec<usize>,
    /// Who forks each.
    makers: Vec<Option<usize>>,
    /// Whether each is forked before its maker makes a session.
    early: Vec<bool>,
    /// Ids for helpers which need no certain one, and where to look for more.
    spares: std::vec::IntoIter<i32>,
    look: i32,
    /// The ids of a range that nothing outside the tree has.
    free: &'a dyn Fn(Range<i32>) -> Vec<i32>,
}

impl<'a> Planner<'a> {
    fn new(
        processes: &'a [Process],
        facts: &'a Facts,
        lineage: Lineage,
        free: &'a dyn Fn(Range<i32>) -> Vec<i32>,
    ) -> Self {
        let node = |process: &Process| Node {
            pid: process.pid,
            session: process.session,
            group: process.group,
            makes_group: process.session != process.pid && facts.groups.contains_key(&process.pid),
            ..Node::default()
        };
        let leader =
            |&pid: &i32| Node { pid, session: pid, group: pid, ends: Some(0), ..Node::default() };
        let nodes = processes.iter().map(node).chain(facts.ended_leaders.iter().map(leader));
        let nodes: Vec<Node> = nodes.collect();
        let count = nodes.len();
        Self {
            processes,
            facts,
            lineage,
            nodes,
            depths: vec![0; count],
            makers: vec![None; count],
            early: vec![false; count],
            spares: Vec::new().into_iter(),
            look: 301,
            free,
        }
    }

    fn plan(mut self) -> Plan {
        self.fork_leaders_late();
        self.place_adopted();
        self.plan_groups();
        for place in 1..self.nodes.len() {
            let maker = self.makers[place].expect("only the first has none");
            let children = &mut self.nodes[maker];
            (if self.early[place] { &mut children.early } else { &mut children.late }).push(place);
        }
        for (place, process) in self.processes.iter().enumerate() {
            if let Some(parent) = process.parent {
                self.nodes[parent].children.push(place);
            }
        }
        let steps = self.steps();
        Plan { nodes: self.nodes, steps, outer: HashMap::new(), outside: self.facts.outside }
    }

    /// Where nothing is against it, lets a leader be born after its maker has made its session, as
    /// programs do.
    fn fork_leaders_late(&mut self) {
        let Lineage { maker, birth, order } = &mut self.lineage;
        let mut has_early = vec![false; birth.len()];
        for &place in order.iter().rev() {
            let Some(above) = maker[place] else { continue };
            let is_early = birth[place] == birth[above] && self.nodes[above].leads_session();
            if is_early && self.nodes[place].leads_session() && !has_early[place] {
                birth[place] = Some(above);
            } else {
                has_early[above] |= is_early;
            }
        }
    }

    /// Chooses who forks each: the one that it descends from, or a helper of that, when its parent
    /// is another, which then adopts it.
    fn place_adopted(&mut self) {
        let order = std::mem::take(&mut self.lineage.order);
        for &place in &order {
            if let Some(maker) = self.lineage.maker[place] {
                self.depths[place] = self.depths[maker] + 2;
            }
        }
        // A leader that has ended does so when the last of those below it are to be adopted.
        let mut ends: Vec<Option<usize>> = vec![None; order.len()];
        for &place in order.iter().rev() {
            let end = match self.processes.get(place) {
                Some(process) => process.parent.map_or(0, |parent| self.depths[parent]),
                None => *ends[place].get_or_insert(0),
            };
            if let Some(maker) = self.lineage.maker[place] {
                ends[maker] = Some(ends[maker].map_or(end, |it| it.min(end)));
            }
        }
        for (node, end) in self.nodes.iter_mut().zip(ends).skip(self.processes.len()) {
            node.ends = end;
        }
        for &place in &order {
            let Some(maker) = self.lineage.maker[place] else { continue };
            let birth = self.lineage.birth[place];
            let is_early = birth != Some(maker) && self.nodes[maker].leads_session();
            self.makers[place] = Some(maker);
            self.early[place] = is_early;
            let Some(parent) = self.processes.get(place).and_then(|process| process.parent) else {
                continue;
            };
            if parent == maker {
                continue;
            }
            let depth = self.depths[parent];
            self.nodes[parent].adopts = Some(depth);
            if self.nodes[maker].ends == Some(depth) {
                continue;
            }
            let session = birth.map_or(0, |leader| self.nodes[leader].pid);
            let helper = self.add_helper(session, maker, depth);
            self.early[helper] = is_early;
            self.makers[place] = Some(helper);
            self.early[place] = false;
        }
    }

    /// Adds a helper in a session that ends when those at `depth` adopt.
    fn add_helper(&mut self, session: i32, maker: usize, depth: usize) -> usize {
        let place = self.nodes.len();
        let pid = self.spare_pid();
        // It stays in the group that it is born into.
        self.nodes.push(Node { pid, session, group: 0, ends: Some(depth), ..Node::default() });
        self.makers.push(Some(maker));
        self.early.push(false);
        place
    }

    /// Sees to it that each group is there until all have joined it.
    fn plan_groups(&mut self) {
        let mut joined: HashMap<i32, bool> = HashMap::new();
        let mut members: HashMap<i32, usize> = HashMap::new();
        for place in 0..self.processes.len() {
            let node = &self.nodes[place];
            if self.facts.groups.contains_key(&node.group) {
                *joined.entry(node.group).or_default() |= !node.makes_group || node.leads_group();
                members.entry(node.group).or_insert(place);
            }
        }
        let groups: Vec<(i32, i32)> = self.facts.groups.iter().map(|(&a, &b)| (a, b)).collect();
        for (group, session) in groups {
            if group == session {
                continue;
            }
            let leader = self.facts.places.get(&group).map(|&place| &self.nodes[place]);
            let is_led = leader.is_some_and(Node::leads_group);
            let Some(&member) = members.get(&group) else { continue };
            if is_led || leader.is_some() && joined[&group] {
                continue;
            }
            // In place of a leader that has ended, or so that there is one when the leader leaves.
            let is_ended = leader.is_none();
            let helper = self.add_group_helper(group, session, member, is_ended);
            self.nodes[helper].makes_group = is_ended;
        }
    }

    fn add_group_helper(
        &mut self,
        group: i32,
        session: i32,
        member: usize,
        is_ended: bool,
    ) -> usize {
        let helper = self.add_helper(session, member, 0);
        if is_ended {
            self.nodes[helper].pid = group;
        }
        self.nodes[helper].group = group;
        helper
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::Fork];
        let joins = |node: &Node| self.facts.outside.joins_group(node);
        if self.nodes.iter().any(|node| node.makes_group) {
            steps.push(Step::MakeGroups);
        }
        if self.nodes.iter().any(|node| joins(node) && !node.makes_group) {
            steps.push(Step::JoinGroups);
        }
        if self.nodes.iter().any(|node| joins(node) && node.makes_group) {
            steps.push(Step::LeaveGroups);
        }
        let ends: BTreeSet<usize> = self.nodes.iter().filter_map(|node| node.ends).collect();
        for &depth in ends.iter().rev() {
            // The first process adopts where nothing else does.
            if ends.len() > 1 || depth > 0 {
                steps.push(Step::Adopt(depth));
            }
            steps.push(Step::End(depth));
        }
        steps.push(Step::Complete);
        steps
    }

    /// An id that nothing has, in the tree or outside.
    fn spare_pid(&mut self) -> i32 {
        /// So many are looked for at once: each look goes through all of /proc.
        const BATCH: i32 = 1000;

        loop {
            if let Some(spare) = self.spares.next() {
                return spare;
            }
            let nodes = self.nodes.iter().flat_map(|it| [it.pid, it.group, it.session]);
            let threads = self.processes.iter().flat_map(|process| &process.threads);
            let groups = self.facts.groups.keys().copied();
            let threads = threads.map(|thread| thread.tid);
            let own: HashSet<i32> = nodes.chain(threads).chain(groups).collect();
            let mut free = (self.free)(self.look..self.look + BATCH);
            free.retain(|pid| !own.contains(pid));
            self.spares = free.into_iter();
            self.look += BATCH;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{self, process};

    /// A tree of (pid, place of the parent, group, session).
    fn dump(processes: &[(i32, usize, i32, i32)]) -> Dump {
        let process = |(place, &(pid, parent, group, session)): (usize, &_)| {
            process(pid, (place > 0).then_some(parent), group, session)
        };
        sample::dump(processes.iter().enumerate().map(process).collect())
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
        assert!(!plan.nodes.iter().any(Node::is_helper));
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
        assert!(plan.nodes[3].is_helper());
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
        assert!(plan.nodes[3].is_helper() && plan.nodes[3].leads_session());
    }

    #[test]
    fn a_group_whose_leader_has_ended() {
        let plan = plan(&[(1, 0, 1, 1), (8, 0, 7, 1), (9, 0, 7, 1)]).unwrap();
        assert_eq!(forks(&plan), ["1 late 8", "1 late 9", "8 late 7"]);
        assert!(plan.nodes[3].is_helper() && plan.nodes[3].leads_group());
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
    fn an_orphan_of_a_subreaper() {
        let plan = plan(&[(1, 0, 1, 1), (7, 0, 1, 1), (8, 1, 9, 9)]).unwrap();
        assert_eq!(forks(&plan), ["1 late 7", "7 late 9", "9 late 8"]);
        let depth = plan.nodes[1].adopts.unwrap();
        assert_eq!(plan.nodes[3].ends, Some(depth));
        let steps = [Step::Fork, Step::JoinGroups, Step::Adopt(depth), Step::End(depth)];
        assert_eq!(plan.steps, [&steps[..], &[Step::Complete]].concat());
    }

    #[test]
    fn a_session_that_is_led_from_below() {
        let tree = [(1, 0, 1, 1), (8, 0, 9, 9), (9, 1, 9, 9)];
        let error = plan(&tree).unwrap_err().to_string();
        assert!(error.starts_with("process 8 is in session 9 and a child of 1: "), "{error}");
    }

    #[test]
    fn a_group_that_its_leader_left() {
        let plan = plan(&[(1, 0, 1, 1), (7, 0, 1, 1), (8, 1, 7, 1)]).unwrap();
        assert_eq!(forks(&plan), ["1 late 7", "7 late 8"]);
        assert!(plan.nodes[1].makes_group && !plan.nodes[2].makes_group);
        let steps = [Step::Fork, Step::MakeGroups, Step::JoinGroups, Step::LeaveGroups];
        assert_eq!(plan.steps, [&steps[..], &[Step::Complete]].concat());
    }

    #[test]
    fn leaders_that_are_in_each_others_group() {
        let plan = plan(&[(1, 0, 1, 1), (7, 0, 8, 1), (8, 0, 7, 1)]).unwrap();
        // Helpers keep the groups.
        let helpers: Vec<i32> = plan.nodes[3..].iter().map(|node| node.group).collect();
        assert_eq!(helpers, [7, 8]);
    }

    #[test]
    fn a_group_that_cannot_be_gone_back_to() {
        let error = plan(&[(1, 0, 0, 0), (7, 0, 1, 0)]).unwrap_err().to_string();
        assert!(error.contains("it cannot have gone back"), "{error}");
    }

    #[test]
    fn a_part_of_a_namespace() {
        let error = plan(&[(42, 0, 42, 42)]).unwrap_err().to_string();
        assert!(error.contains("its first process is 42"), "{error}");
    }
}
