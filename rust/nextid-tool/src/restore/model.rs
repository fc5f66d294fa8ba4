// SPDX-License-Identifier: GPL-2.0

//! A model of what the kernel lets processes do to their parents, sessions and process groups: plans
//! are carried out in it. Any history of it leads to a tree that has to be planned.

use std::collections::{BTreeMap, HashMap};

use criu_images::{Dump, Process, State};
use proptest::prelude::*;

use super::plan::{Plan, Step};

/// What the kernel knows of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Task {
    parent: i32,
    session: i32,
    group: i32,
    is_subreaper: bool,
    is_zombie: bool,
}

/// A pid namespace; 0 is what is outside of it.
#[derive(Clone, Debug, Default)]
struct Kernel {
    tasks: BTreeMap<i32, Task>,
}

/// Why a call failed.
#[derive(Debug, PartialEq, Eq)]
struct Refused(&'static str);

type Result<T = ()> = std::result::Result<T, Refused>;

fn ensure(is_allowed: bool, why: &'static str) -> Result {
    if is_allowed { Ok(()) } else { Err(Refused(why)) }
}

impl Kernel {
    /// A namespace with its first process.
    fn new(first: i32) -> Self {
        let task = Task { parent: 0, session: 0, group: 0, is_subreaper: false, is_zombie: false };
        Self { tasks: BTreeMap::from([(first, task)]) }
    }

    fn first(&self) -> i32 {
        *self.tasks.iter().find(|(_, task)| task.parent == 0).expect("there is one").0
    }

    fn living(&self, pid: i32) -> Result<Task> {
        let task = self.tasks.get(&pid).ok_or(Refused("there is no such process"))?;
        ensure(!task.is_zombie, "it has ended")?;
        Ok(*task)
    }

    fn is_in_use(&self, id: i32) -> bool {
        let uses = |(&pid, task): (&i32, &Task)| [pid, task.session, task.group].contains(&id);
        self.tasks.iter().any(uses)
    }

    fn fork(&mut self, maker: i32, pid: i32) -> Result {
        let task = self.living(maker)?;
        ensure(pid > 0 && !self.is_in_use(pid), "EEXIST")?;
        self.tasks.insert(pid, Task { parent: maker, is_subreaper: false, ..task });
        Ok(())
    }

    fn setsid(&mut self, pid: i32) -> Result {
        self.living(pid)?;
        ensure(self.tasks.values().all(|task| task.group != pid), "setsid: a group has its id")?;
        let task = self.tasks.get_mut(&pid).expect("it lives");
        (task.session, task.group) = (pid, pid);
        Ok(())
    }

    fn setpgid(&mut self, pid: i32, group: i32) -> Result {
        let task = self.living(pid)?;
        ensure(task.session != pid, "setpgid: it leads a session")?;
        let mut members = self.tasks.values().filter(|task| task.group == group);
        let is_there = members.any(|member| member.session == task.session);
        ensure(group == pid || is_there, "setpgid: no such group in the session")?;
        self.tasks.get_mut(&pid).expect("it lives").group = group;
        Ok(())
    }

    fn set_subreaper(&mut self, pid: i32, is_subreaper: bool) -> Result {
        self.living(pid)?;
        self.tasks.get_mut(&pid).expect("it lives").is_subreaper = is_subreaper;
        Ok(())
    }

    fn exit(&mut self, pid: i32) -> Result {
        let task = self.living(pid)?;
        let first = self.first();
        ensure(pid != first, "the namespace would end")?;
        let mut reaper = task.parent;
        while reaper != first && !self.tasks[&reaper].is_subreaper {
            reaper = self.tasks[&reaper].parent;
        }
        self.tasks.get_mut(&pid).expect("it lives").is_zombie = true;
        for child in self.tasks.values_mut().filter(|child| child.parent == pid) {
            child.parent = reaper;
        }
        Ok(())
    }

    fn wait(&mut self, parent: i32, child: i32) -> Result {
        self.living(parent)?;
        let task = self.tasks.get(&child).ok_or(Refused("ECHILD"))?;
        ensure(task.parent == parent && task.is_zombie, "wait: it is no child that has ended")?;
        self.tasks.remove(&child);
        Ok(())
    }

    /// Does what all processes of a plan do.
    fn carry_out(&mut self, plan: &Plan, dump: &Dump) -> Result {
        for &step in &plan.steps {
            if step == Step::Fork {
                self.fork_all(plan, 0)?;
            }
            // Those that are lower are through earlier.
            for place in (0..plan.nodes.len()).rev() {
                self.do_step(plan, dump, place, step)?;
            }
            if let Step::End(depth) = step {
                self.end_helpers(plan, 0, depth)?;
            }
            // As many are waited for.
            let there = (0..plan.nodes.len()).filter(|&place| plan.outlives(place, step));
            ensure(there.count() == self.tasks.len(), "others are there than the plan tells")?;
        }
        Ok(())
    }

    fn fork_all(&mut self, plan: &Plan, place: usize) -> Result {
        let node = &plan.nodes[place];
        for &child in &node.early {
            self.fork(node.pid, plan.nodes[child].pid)?;
            self.fork_all(plan, child)?;
        }
        if node.leads_session() {
            self.setsid(node.pid)?;
        }
        for &child in &node.late {
            self.fork(node.pid, plan.nodes[child].pid)?;
            self.fork_all(plan, child)?;
        }
        Ok(())
    }

    fn do_step(&mut self, plan: &Plan, dump: &Dump, place: usize, step: Step) -> Result {
        let node = &plan.nodes[place];
        match step {
            Step::MakeGroups if node.makes_group => self.setpgid(node.pid, node.pid),
            Step::JoinGroups if plan.joins_group(node) && !node.makes_group => {
                self.setpgid(node.pid, node.group)
            }
            Step::LeaveGroups if plan.joins_group(node) && node.makes_group => {
                self.setpgid(node.pid, node.group)
            }
            Step::Adopt(depth) if node.adopts.is_some() => {
                self.set_subreaper(node.pid, node.adopts == Some(depth))
            }
            Step::Complete => match dump.processes.get(place).map(|process| process.state) {
                Some(State::Zombie { .. }) => self.exit(node.pid),
                Some(_) => self.set_subreaper(node.pid, dump.processes[place].is_subreaper),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Ends the helpers below `place` whose turn it is, the lowest first, as those above wait for them.
    fn end_helpers(&mut self, plan: &Plan, place: usize, depth: usize) -> Result {
        let node = &plan.nodes[place];
        for &child in node.early.iter().chain(&node.late) {
            self.end_helpers(plan, child, depth)?;
            if plan.nodes[child].ends == Some(depth) {
                self.exit(plan.nodes[child].pid)?;
                self.wait(node.pid, plan.nodes[child].pid)?;
            }
        }
        Ok(())
    }

    /// What a dump has of it.
    fn dump(&self) -> Dump {
        let mut pids = vec![self.first()];
        let mut next = 0;
        while let Some(&pid) = pids.get(next) {
            pids.extend(self.tasks.iter().filter(|(_, it)| it.parent == pid).map(|(&pid, _)| pid));
            next += 1;
        }
        let places: HashMap<i32, usize> =
            pids.iter().enumerate().map(|(place, &pid)| (pid, place)).collect();
        let process = |&pid: &i32| {
            let task = self.tasks[&pid];
            Process {
                pid,
                parent: places.get(&task.parent).copied(),
                group: task.group,
                session: task.session,
                name: Vec::new(),
                state: if task.is_zombie { State::Zombie { status: 0 } } else { State::Running },
                is_subreaper: task.is_subreaper && !task.is_zombie,
                threads: Vec::new(),
            }
        };
        let processes = pids.iter().map(process).collect();
        Dump { processes, own_pid_namespace: true, own_user_namespace: false, ipc: None }
    }
}

/// What a process may do. The numbers choose who does it, and to whom.
#[derive(Clone, Copy, Debug)]
enum Call {
    Fork(u8),
    Setsid(u8),
    LeadGroup(u8),
    JoinGroup(u8, u8),
    Subreaper(u8, bool),
    Exit(u8),
    Wait(u8),
}

/// Does `call`, where it is allowed. Each new process has the next id, as in any namespace.
fn call(kernel: &mut Kernel, call: Call, next: &mut i32) {
    let pids: Vec<i32> = kernel.tasks.keys().copied().collect();
    let who = |number: u8| pids[usize::from(number) % pids.len()];
    // What is not allowed is no history.
    let _ = match call {
        Call::Fork(maker) => {
            let forked = kernel.fork(who(maker), *next);
            *next += i32::from(forked.is_ok());
            forked
        }
        Call::Setsid(pid) => kernel.setsid(who(pid)),
        Call::LeadGroup(pid) => kernel.setpgid(who(pid), who(pid)),
        Call::JoinGroup(pid, member) => {
            let group = kernel.tasks[&who(member)].group;
            if group == 0 { Ok(()) } else { kernel.setpgid(who(pid), group) }
        }
        Call::Subreaper(pid, is_subreaper) => kernel.set_subreaper(who(pid), is_subreaper),
        Call::Exit(pid) => kernel.exit(who(pid)),
        Call::Wait(child) => kernel.wait(kernel.tasks[&who(child)].parent, who(child)),
    };
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = prop_oneof![
        6 => any::<u8>().prop_map(Call::Fork),
        3 => any::<u8>().prop_map(Call::Setsid),
        1 => any::<u8>().prop_map(Call::LeadGroup),
        1 => any::<(u8, u8)>().prop_map(|(pid, member)| Call::JoinGroup(pid, member)),
        3 => any::<(u8, bool)>().prop_map(|(pid, is)| Call::Subreaper(pid, is)),
        3 => any::<u8>().prop_map(Call::Exit),
        2 => any::<u8>().prop_map(Call::Wait),
    ];
    prop::collection::vec(call, 0..120)
}

/// Plans the tree of `dump`, carries the plan out, and returns what comes of it.
fn remake(dump: &Dump) -> std::result::Result<Kernel, TestCaseError> {
    let plan = Plan::new(dump, Iterator::collect);
    let plan = plan.map_err(|error| TestCaseError::fail(format!("{error}: {:?}", facts(dump))))?;
    let mut kernel = Kernel::new(1);
    let made = kernel.carry_out(&plan, dump);
    prop_assert!(made.is_ok(), "{made:?} in {plan:?}");
    Ok(kernel)
}

/// Each process with its parent, group and session, in the order of their ids.
fn facts(dump: &Dump) -> BTreeMap<i32, (Option<i32>, i32, i32)> {
    let parent = |process: &Process| process.parent.map(|place| dump.processes[place].pid);
    let fact = |process: &Process| (parent(process), process.group, process.session);
    dump.processes.iter().map(|process| (process.pid, fact(process))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_processes_can_come_to_is_made_again(calls in calls()) {
        let mut kernel = Kernel::new(1);
        let mut next = 2;
        for it in calls {
            call(&mut kernel, it, &mut next);
        }
        let dump = kernel.dump();
        prop_assert_eq!(remake(&dump)?.dump().processes, dump.processes);
    }

    /// Many of these no history leads to. What is not refused comes out right.
    #[test]
    fn what_is_planned_comes_out(
        processes in prop::collection::vec((any::<u8>(), 0_i32..12, 0_i32..12), 1..10)
    ) {
        let process = |(place, &(parent, group, session)): (usize, &(u8, i32, i32))| Process {
            pid: i32::try_from(place).expect("they are few") + 1,
            parent: place.checked_sub(1).map(|last| usize::from(parent) % (last + 1)),
            group,
            session,
            name: Vec::new(),
            state: State::Running,
            is_subreaper: false,
            threads: Vec::new(),
        };
        let processes = processes.iter().enumerate().map(process).collect();
        let dump = Dump { processes, own_pid_namespace: true, own_user_namespace: false, ipc: None };
        if Plan::new(&dump, Iterator::collect).is_ok() {
            prop_assert_eq!(facts(&remake(&dump)?.dump()), facts(&dump));
        }
    }
}
