// SPDX-License-Identifier: GPL-2.0

//! Sets of namespaces, and what happens in each of them.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::RawFd;
use std::thread::Builder;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setresgid, setresuid};

use crate::cgroup::Cgroup;
use crate::file::{Ids, NextId};
use crate::sys::{self, Creation, Ipc};
use crate::tally::{Count, Tally};
use crate::worker::{self, Worker};

/// Worker processes of a scene, and the threads of each.
const PROCESSES: usize = 2;
const THREADS: usize = 2;

/// The deepest nesting of pid namespaces, the initial one included.
pub const MAX_LEVELS: usize = 4;

/// The most tasks in the scene that is limited: the one that made it, init, the workers with a thread each that starts
/// the others, and two for all that they create.
const LIMIT: usize = 2 + PROCESSES * (THREADS + 1) + 2;

/// Who is not root.
const NOBODY: u32 = 65534;

pub struct Scene {
    name: &'static str,
    /// How many pid namespaces there are, one inside the other, below the initial one.
    depth: usize,
    /// Whether they belong to a user namespace that an unprivileged user made.
    pub unprivileged: bool,
    /// Whether a pids cgroup makes forks fail late.
    pub limited: bool,
    /// Whether all of it is killed in the middle.
    pub doomed: bool,
}

const SCENES: [Scene; 6] = [
    Scene { name: "one level", depth: 1, unprivileged: false, limited: false, doomed: false },
    Scene { name: "three levels", depth: 3, unprivileged: false, limited: false, doomed: false },
    Scene { name: "unprivileged", depth: 1, unprivileged: true, limited: false, doomed: false },
    Scene {
        name: "unprivileged, two levels",
        depth: 2,
        unprivileged: true,
        limited: false,
        doomed: false,
    },
    Scene { name: "limited", depth: 1, unprivileged: false, limited: true, doomed: false },
    Scene { name: "doomed", depth: 2, unprivileged: false, limited: false, doomed: true },
];

/// The threads of all scenes, each of which has a place.
pub const PLACES: usize = SCENES.len() * PROCESSES * THREADS;

/// What the processes of a scene know.
#[derive(Clone, Copy)]
pub struct Stage {
    pub scene: &'static Scene,
    pub tally: &'static Tally,
    /// The number of the first thread of the scene among those of all scenes.
    first_place: usize,
    /// Seed and lists to arm, for each thread.
    seed: u64,
    arms: u64,
    /// This program.
    pub program: RawFd,
    /// The pid namespaces, innermost first.
    namespaces: [RawFd; MAX_LEVELS],
    levels: usize,
}

impl Stage {
    /// The pid namespaces that a new task is in, innermost first.
    pub fn namespaces(&self) -> &[RawFd] {
        &self.namespaces[..self.levels]
    }

    /// For how many of them ids can be asked.
    pub fn askable(&self) -> usize {
        if self.scene.unprivileged { self.scene.depth } else { self.levels }
    }

    fn enter_namespace(&mut self) -> sys::Result<()> {
        self.namespaces.rotate_right(1);
        self.namespaces[0] = sys::open(c"/proc/self/ns/pid", libc::O_RDONLY | libc::O_CLOEXEC)?;
        self.levels += 1;
        Ok(())
    }

    /// The first id of each list that the threads of the scene have for themselves.
    fn own_ids(&self) -> impl Iterator<Item = i64> {
        let places = self.first_place..self.first_place + PROCESSES * THREADS;
        places.flat_map(|place| worker::process_ids_at(place).chain(worker::thread_ids_at(place)))
    }
}

/// Plays all scenes at once, in which at least `arms` lists are armed, and waits for them to end.
pub fn play_all(
    tally: &'static Tally,
    seed: u64,
    arms: u64,
    program: RawFd,
    cgroup: &Cgroup,
) -> Result<()> {
    let lasting = SCENES.iter().filter(|scene| !scene.doomed).count() * PROCESSES * THREADS;
    let lasting = lasting as u64;
    let unlimited = cgroup.child("unlimited", &[])?;
    let limited = cgroup.child("limited", &[("pids.max", &LIMIT.to_string())])?;
    let mut running = Vec::new();
    for (number, scene) in SCENES.iter().enumerate() {
        let stage = Stage {
            scene,
            tally,
            first_place: number * PROCESSES * THREADS,
            seed,
            arms: arms.div_ceil(lasting),
            program,
            namespaces: [-1; MAX_LEVELS],
            levels: 0,
        };
        let group = if scene.limited { &limited } else { &unlimited };
        let pid = sys::create(Creation::Fork, &|| {
            let played = group.enter().and_then(|()| play(stage));
            report(stage, played)
        })?;
        running.push((pid, stage));
    }
    for (pid, stage) in running {
        let (_, status) = sys::wait(pid)?;
        if status != 0 {
            tally.fail(format_args!("{}: ended with status {status}", stage.scene.name));
        }
        if stage.scene.doomed {
            // All that is left of it is the initial pid namespace.
            let ids = stage.own_ids().flat_map(|first| first..first + MAX_LEVELS as i64);
            report(stage, check_ids(tally, ids.map(|first| Ids { first, count: 1 })));
        }
    }
    Ok(())
}

/// Returns the exit status.
fn report(stage: Stage, result: Result<()>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            stage.tally.fail(format_args!("{}: {error:#}", stage.scene.name));
            1
        }
    }
}

fn play(mut stage: Stage) -> Result<()> {
    stage.enter_namespace()?;
    if stage.scene.unprivileged {
        become_nobody().context("cannot make a user namespace")?;
    }
    unshare(CloneFlags::CLONE_NEWIPC)?;
    enter_next_level(stage)
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

/// Makes another pid namespace, or plays where there are enough of them.
fn enter_next_level(stage: Stage) -> Result<()> {
    if stage.levels > stage.scene.depth {
        return play_as_init(stage);
    }
    unshare(CloneFlags::CLONE_NEWPID)?;
    let init = sys::create(Creation::Fork, &|| {
        let mut stage = stage;
        let entered = stage.enter_namespace().map_err(Into::into);
        report(stage, entered.and_then(|()| enter_next_level(stage)))
    })?;
    if stage.scene.doomed && stage.levels == 1 {
        let mut random = fastrand::Rng::with_seed(stage.seed);
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

/// The first process of the innermost namespace: runs the workers, reaps what they leave, and looks at what is left.
fn play_as_init(stage: Stage) -> Result<()> {
    let mut workers = Vec::new();
    for process in 0..PROCESSES {
        workers.push(sys::create(Creation::Fork, &|| report(stage, work(stage, process)))?);
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
    let own = stage.own_ids().map(|first| Ids { first, count: stage.askable() });
    let shared = worker::shared_process_ids().map(|first| Ids { first, count: 1 });
    check_ids(stage.tally, own.chain(shared))
}

/// A worker process.
fn work(stage: Stage, process: usize) -> Result<()> {
    let mut threads = Vec::new();
    for thread in 0..THREADS {
        let place = stage.first_place + process * THREADS + thread;
        let seed = stage.seed ^ ((place as u64) << 32);
        threads.push(loop {
            let worker = move || Worker::new(stage, place, seed)?.run(stage.arms);
            match Builder::new().spawn(worker) {
                // The tasks of the threads before have used the limit up for a moment.
                Err(error) if stage.scene.limited && error.kind() == ErrorKind::WouldBlock => {
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

/// Removes what processes that were killed have left, and wants nothing else to be there.
fn remove_objects_of_victims() -> Result<()> {
    for kind in Ipc::ALL {
        let list = fs::read_to_string(kind.list())?;
        for object in list.lines().skip(1) {
            let id =
                object.split_whitespace().nth(1).context("an object without an id")?.parse()?;
            ensure!(worker::is_object_of_victim(id), "{kind:?} {id} was not removed");
            kind.remove(id)?;
        }
    }
    Ok(())
}

/// Wants ids that were used to be free: makes a process with each list.
fn check_ids(tally: &Tally, lists: impl Iterator<Item = Ids>) -> Result<()> {
    let file = NextId::open()?;
    for ids in lists {
        file.arm_few(ids)?;
        tally.count(Count::Arms);
        let mut tries = 0..1000;
        let pid = loop {
            match sys::create(Creation::Fork, &|| 0) {
                // The last thread of a process that was waited for may have its ids for a moment still.
                Err(Errno::EBUSY) if tries.next().is_some() => sys::sleep(1000),
                created => break created,
            }
        };
        let pid = pid.with_context(|| format!("{ids:?} cannot be had any more"))?;
        sys::wait(pid)?;
        ensure!(i64::from(pid) == ids.first, "{ids:?} came out as {pid}");
    }
    Ok(())
}
