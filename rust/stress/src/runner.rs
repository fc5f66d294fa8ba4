// SPDX-License-Identifier: GPL-2.0

//! Runs the scenarios: makes their namespaces, starts the workers, and checks what they leave.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::RawFd;
use std::thread::Builder;

use anyhow::{Context, Result, ensure};
use nextid::IpcKind;
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setresgid, setresuid};

use crate::cgroup::Cgroup;
use crate::environment::Environment;
use crate::file::{Ids, NextId};
use crate::ids;
use crate::scenario::{self, LIMIT, MAX_LEVELS, PROCESSES, SLOTS_EACH, THREADS};
use crate::sys::{self, Creation};
use crate::tally::{Count, Tally};
use crate::worker::Worker;

/// Who is not root.
const NOBODY: u32 = 65534;

/// Runs all scenarios at once, in which at least `arms` lists are armed, and waits for them to end.
pub fn run_all(
    tally: &'static Tally,
    seed: u64,
    arms: u64,
    program: RawFd,
    cgroup: &Cgroup,
) -> Result<()> {
    let lasting = scenario::ALL.iter().filter(|scenario| !scenario.killed).count() * SLOTS_EACH;
    let arms_each = arms.div_ceil(lasting as u64);
    let unlimited = cgroup.child("unlimited", &[])?;
    let limited = cgroup.child("limited", &[("pids.max", &LIMIT.to_string())])?;
    let mut running = Vec::new();
    for (number, scenario) in scenario::ALL.iter().enumerate() {
        let env = Environment::new(number, scenario, tally, (seed, arms_each), program);
        let group = if scenario.limited { &limited } else { &unlimited };
        let pid = sys::create(Creation::Fork, &|| {
            let result = group.enter().and_then(|()| run(env));
            exit_status(env, result)
        })?;
        running.push((pid, env));
    }
    for (pid, env) in running {
        let (_, status) = sys::wait(pid)?;
        if status != 0 {
            tally.fail(format_args!("{}: ended with status {status}", env.scenario.name));
        }
        if env.scenario.killed {
            // All that is left of it is the initial pid namespace.
            let ids = env.own_ids().flat_map(|first| first..first + MAX_LEVELS as i64);
            let checked = check_ids(tally, ids.map(|first| Ids::list(first, 1)));
            exit_status(env, checked);
        }
    }
    Ok(())
}

/// Counts a failure, and returns the exit status.
fn exit_status(env: Environment, result: Result<()>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            env.tally.fail(format_args!("{}: {error:#}", env.scenario.name));
            1
        }
    }
}

fn run(mut env: Environment) -> Result<()> {
    env.enter_namespace()?;
    if env.scenario.unprivileged {
        become_nobody().context("cannot make a user namespace")?;
    }
    unshare(CloneFlags::CLONE_NEWIPC)?;
    enter_next_level(env)
}

/// Gives up all privilege, and becomes root in a user namespace of one's own.
fn become_nobody() -> Result<()> {
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    nix::sys::prctl::set_dumpable(true)?;
    unshare(CloneFlags::CLONE_NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {NOBODY} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {NOBODY} 1"))?;
    Ok(())
}

/// Makes another pid namespace, or runs the workers where there are enough of them.
fn enter_next_level(env: Environment) -> Result<()> {
    if env.namespaces().len() > env.scenario.depth {
        return run_as_init(env);
    }
    unshare(CloneFlags::CLONE_NEWPID)?;
    let init = sys::create(Creation::Fork, &|| {
        let mut env = env;
        let entered = env.enter_namespace().map_err(Into::into);
        exit_status(env, entered.and_then(|()| enter_next_level(env)))
    })?;
    if env.scenario.killed && env.namespaces().len() == 1 {
        let mut random = fastrand::Rng::with_seed(env.seed);
        sys::sleep(random.u32(20_000..300_000));
        sys::kill(init);
        let (_, status) = sys::wait(init)?;
        ensure!(
            status == 128 + libc::SIGKILL || status == 0,
            "the namespace ended with status {status}"
        );
        return Ok(());
    }
    let (_, status) = sys::wait(init)?;
    ensure!(status == 0, "the first process of a namespace ended with status {status}");
    Ok(())
}

/// The first process of the innermost namespace: runs the workers, waits for the orphans that they
/// leave, and checks which objects and ids are left.
fn run_as_init(env: Environment) -> Result<()> {
    let mut workers = Vec::new();
    for process in 0..PROCESSES {
        workers.push(sys::create(Creation::Fork, &|| exit_status(env, work(env, process)))?);
    }
    while !workers.is_empty() {
        let (ended, status) = sys::wait(-1)?;
        if let Some(index) = workers.iter().position(|&pid| pid == ended) {
            workers.remove(index);
            ensure!(status == 0, "a worker ended with status {status}");
        }
    }
    sys::kill(-1);
    while sys::wait(-1) != Err(Errno::ECHILD) {}

    remove_objects_of_victims()?;
    let own = env.own_ids().map(|first| Ids::list(first, env.askable()));
    let shared = ids::shared().map(|first| Ids::list(first, 1));
    check_ids(env.tally, own.chain(shared))
}

/// A worker process.
fn work(env: Environment, process: usize) -> Result<()> {
    let mut threads = Vec::new();
    for slot in env.slots().skip(process * THREADS).take(THREADS) {
        let seed = env.seed ^ ((slot as u64) << 32);
        threads.push(loop {
            let worker = move || Worker::new(env, slot, seed)?.run(env.arms);
            match Builder::new().spawn(worker) {
                // The tasks of the threads before have used the limit up for a moment.
                Err(error) if env.scenario.limited && error.kind() == ErrorKind::WouldBlock => {
                    sys::sleep(100);
                }
                thread => break thread.context("a worker thread")?,
            }
        });
    }
    for thread in threads {
        thread.join().ok().context("a thread panicked")??;
    }
    Ok(())
}

/// Removes what processes that were killed have left. Nothing else may be there.
fn remove_objects_of_victims() -> Result<()> {
    for kind in IpcKind::ALL {
        let list = fs::read_to_string(kind.list())?;
        for object in list.lines().skip(1) {
            let id =
                object.split_whitespace().nth(1).context("an object without an id")?.parse()?;
            ensure!(ids::is_object_of_victim(id), "{kind:?} {id} was not removed");
            sys::remove_object(kind, id)?;
        }
    }
    Ok(())
}

/// Checks that ids that were used are free: makes a process with each list.
fn check_ids(tally: &Tally, lists: impl Iterator<Item = Ids>) -> Result<()> {
    let file = NextId::open()?;
    for ids in lists {
        file.arm_few(ids)?;
        tally.count(Count::Arms);
        let mut tries = 0..1000;
        let pid = loop {
            match sys::create(Creation::Fork, &|| 0) {
                // The last thread of a process that was waited for may have its ids for a moment
                // still.
                Err(Errno::EBUSY) if tries.next().is_some() => sys::sleep(1000),
                created => break created,
            }
        };
        let pid = pid.with_context(|| format!("{ids:?} cannot be had any more"))?;
        sys::wait(pid)?;
        ensure!(i64::from(pid) == ids.first, "{ids:?} came out as {pid}");
    }
    file.close();
    Ok(())
}
