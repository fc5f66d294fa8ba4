// SPDX-License-Identifier: GPL-2.0

//! Carries plans out in a model of the kernel.

use std::collections::{BTreeMap, HashMap};

use criu_images::{Dump, Process, State};
use proptest::prelude::*;
use testing::processes::{Kernel, Refused, Result, history};

use super::plan::{Plan, Step};
use crate::sample;

/// Does what all processes of a plan do.
fn carry_out(kernel: &mut Kernel, plan: &Plan, dump: &Dump) -> Result {
    for &step in &plan.steps {
        if step == Step::Fork {
            fork_all(kernel, plan, 0)?;
        }
        // Those that are lower are through earlier.
        for place in (0..plan.nodes.len()).rev() {
            do_step(kernel, plan, dump, place, step)?;
        }
        if let Step::End(depth) = step {
            end_helpers(kernel, plan, 0, depth)?;
        }
        // As many are waited for.
        let there = (0..plan.nodes.len()).filter(|&place| plan.outlives(place, step));
        if there.count() != kernel.tasks.len() {
            return Err(Refused("others are there than the plan tells"));
        }
    }
    Ok(())
}

fn fork_all(kernel: &mut Kernel, plan: &Plan, place: usize) -> Result {
    let node = &plan.nodes[place];
    for &child in &node.early {
        kernel.fork(node.pid, plan.nodes[child].pid)?;
        fork_all(kernel, plan, child)?;
    }
    if node.leads_session() {
        kernel.setsid(node.pid)?;
    }
    for &child in &node.late {
        kernel.fork(node.pid, plan.nodes[child].pid)?;
        fork_all(kernel, plan, child)?;
    }
    Ok(())
}

fn do_step(kernel: &mut Kernel, plan: &Plan, dump: &Dump, place: usize, step: Step) -> Result {
    let node = &plan.nodes[place];
    match step {
        Step::MakeGroups if node.makes_group => kernel.setpgid(node.pid, node.pid),
        Step::JoinGroups if plan.joins_group(node) && !node.makes_group => {
            kernel.setpgid(node.pid, node.group)
        }
        Step::LeaveGroups if plan.joins_group(node) && node.makes_group => {
            kernel.setpgid(node.pid, node.group)
        }
        Step::Adopt(depth) if node.adopts.is_some() => {
            kernel.set_subreaper(node.pid, node.adopts == Some(depth))
        }
        Step::Complete => match dump.processes.get(place).map(|process| process.state) {
            Some(State::Zombie { .. }) => kernel.exit(node.pid),
            Some(_) => kernel.set_subreaper(node.pid, dump.processes[place].is_subreaper),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Ends the helpers below `place` whose turn it is, the lowest first, as those above wait for them.
fn end_helpers(kernel: &mut Kernel, plan: &Plan, place: usize, depth: usize) -> Result {
    let node = &plan.nodes[place];
    for &child in node.early.iter().chain(&node.late) {
        end_helpers(kernel, plan, child, depth)?;
        if plan.nodes[child].ends == Some(depth) {
            kernel.exit(plan.nodes[child].pid)?;
            kernel.wait(node.pid, plan.nodes[child].pid)?;
        }
    }
    Ok(())
}

/// What a dump has of it.
fn dump(kernel: &Kernel) -> Dump {
    let mut pids = vec![kernel.first()];
    let mut next = 0;
    while let Some(&pid) = pids.get(next) {
        pids.extend(kernel.tasks.iter().filter(|(_, it)| it.parent == pid).map(|(&pid, _)| pid));
        next += 1;
    }
    let places: HashMap<i32, usize> =
        pids.iter().enumerate().map(|(place, &pid)| (pid, place)).collect();
    let process = |&pid: &i32| {
        let task = kernel.tasks[&pid];
        Process {
            state: if task.is_zombie { State::Zombie { status: 0 } } else { State::Running },
            is_subreaper: task.is_subreaper && !task.is_zombie,
            ..sample::process(pid, places.get(&task.parent).copied(), task.group, task.session)
        }
    };
    sample::dump(pids.iter().map(process).collect())
}

/// Plans the tree of `dump`, carries the plan out, and returns what comes of it.
fn remake(dump: &Dump) -> std::result::Result<Kernel, TestCaseError> {
    let plan = Plan::new(dump, Iterator::collect);
    let plan = plan.map_err(|error| TestCaseError::fail(format!("{error}: {:?}", facts(dump))))?;
    let mut kernel = Kernel::new(1);
    let made = carry_out(&mut kernel, &plan, dump);
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
    fn what_processes_can_come_to_is_made_again(
        numbers in prop::collection::vec(any::<[u8; 3]>(), 0..120)
    ) {
        let dump = dump(&history(&numbers));
        prop_assert_eq!(self::dump(&remake(&dump)?).processes, dump.processes);
    }

    /// Many of these no history leads to. What is not refused comes out right.
    #[test]
    fn what_is_planned_comes_out(
        processes in prop::collection::vec((any::<u8>(), 0_i32..12, 0_i32..12), 1..10)
    ) {
        let process = |(place, &(parent, group, session)): (usize, &(u8, i32, i32))| {
            let pid = i32::try_from(place).expect("they are few") + 1;
            let parent = place.checked_sub(1).map(|last| usize::from(parent) % (last + 1));
            sample::process(pid, parent, group, session)
        };
        let dump = sample::dump(processes.iter().enumerate().map(process).collect());
        if Plan::new(&dump, Iterator::collect).is_ok() {
            prop_assert_eq!(facts(&self::dump(&remake(&dump)?)), facts(&dump));
        }
    }
}
