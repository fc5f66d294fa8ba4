// SPDX-License-Identifier: GPL-2.0

//! The process tree.

use std::collections::{HashMap, HashSet};

use crate::error::{Problem, Result};
use crate::image::{Image, Magic};
use crate::proto::{CoreEntry, PstreeEntry, TaskKobjIdsEntry};
use crate::source::Images;

/// The largest id that a task can have: `PID_MAX_LIMIT` is above it.
const MAX_PID: u32 = (4 << 20) - 1;

/// The most bytes of a name, `TASK_COMM_LEN` without the NUL at its end.
const MAX_NAME: usize = 15;

/// A process.
#[derive(Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id, in the pid namespace of the root of the tree.
    pub pid: i32,
    /// Where in [`crate::Dump::processes`] its parent is: always before itself.
    pub parent: Option<usize>,
    /// Its process group; 0 for one outside its pid namespace.
    pub group: i32,
    /// Its session; 0 for one outside its pid namespace.
    pub session: i32,
    /// Its name, up to 15 bytes: text as a rule, cut anywhere.
    pub name: Vec<u8>,
    /// Whether it lives.
    pub state: State,
    /// Whether it is a subreaper, to which orphans below it go.
    pub is_subreaper: bool,
    /// Its threads, without the first, which has the id of the process.
    pub threads: Vec<Thread>,
}

impl Process {
    /// The ids of all its threads; that of the first is its own.
    pub fn tids(&self) -> impl Iterator<Item = i32> + '_ {
        std::iter::once(self.pid).chain(self.threads.iter().map(|thread| thread.tid))
    }
}

/// A thread.
#[derive(Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its id, in the pid namespace of the root of the tree.
    pub tid: i32,
    /// Its name, as a process has it.
    pub name: Vec<u8>,
}

/// Whether a process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// It is stopped.
    Stopped,
    /// It ended, and its parent has not waited for it.
    Zombie {
        /// How, as `wait(2)` tells it.
        status: i32,
    },
}

impl State {
    fn is_zombie(self) -> bool {
        matches!(self, Self::Zombie { .. })
    }

    /// The states of a task: `TASK_*` of CRIU's `task-state.h`.
    fn of(state: u32, exit_code: u32) -> Option<Self> {
        match state {
            1 => Some(Self::Running),
            3 => Some(Self::Stopped),
            2 | 6 if is_end(exit_code) => {
                Some(Self::Zombie { status: i32::try_from(exit_code).ok()? })
            }
            _ => None,
        }
    }
}

/// Whether a process can have ended with `status`: it exited, or by a signal that ends a process.
fn is_end(status: u32) -> bool {
    let (exited, signal) = (status >> 8, status & 0x7f);
    // SIGCHLD, SIGCONT, the four that stop, SIGURG and SIGWINCH end nothing.
    let ends = (1..=64).contains(&signal) && !matches!(signal, 17..=23 | 28);
    status <= 0xffff && if signal == 0 { status & 0x80 == 0 } else { ends && exited == 0 }
}

/// Reads all processes, and the namespaces of the first.
pub fn read(images: &Images) -> Result<(Vec<Process>, TaskKobjIdsEntry)> {
    let Some(mut image) = Image::find(images, "pstree.img", Magic::Pstree)? else {
        let mut error = images.missing("pstree.img");
        error.problem = Problem::Invalid(
            "it is not there: this is a pre-dump, on which a dump can build, or the dump failed"
                .to_owned(),
        );
        return Err(error);
    };
    let mut tree = Tree::default();
    while let Some(entry) = image.next::<PstreeEntry>()? {
        tree.add(images, &image, &entry)?;
    }
    match tree.root {
        Some(root) => Ok((tree.processes, root)),
        None => Err(image.invalid("no process")),
    }
}

#[derive(Default)]
struct Tree {
    processes: Vec<Process>,
    /// Where each process is.
    places: HashMap<u32, usize>,
    /// The ids of all processes and threads.
    tids: HashSet<u32>,
    /// The namespaces of the root.
    root: Option<TaskKobjIdsEntry>,
}

impl Tree {
    fn add(&mut self, images: &Images, image: &Image, entry: &PstreeEntry) -> Result<()> {
        let pid = self.new_tid(image, entry.pid)?;
        let mut core = Image::open(images, &format!("core-{pid}.img"), Magic::Core)?;
        let core_entry: CoreEntry = core.only_entry()?;
        let Some(task) = &core_entry.tc else {
            return Err(core.invalid(format!("nothing is said of process {pid}")));
        };
        let Some(state) = State::of(task.task_state, task.exit_code) else {
            return Err(core.invalid(format!(
                "process {pid} in state {}, ended with {:#x}: there is no such",
                task.task_state, task.exit_code
            )));
        };

        let parent = self.parent_of(image, entry, state)?;
        if state.is_zombie() && entry.threads.len() > 1 {
            return Err(image.invalid(format!("process {pid} has ended, but not all its threads")));
        }
        self.check_namespace(images, image, entry, core_entry.ids)?;
        // The first is the process itself; CRIU reads it nowhere, and writes nonsense for a zombie.
        let threads =
            entry.threads.iter().skip(1).map(|&tid| self.thread(images, image, tid, &task.comm));
        let threads = threads.collect::<Result<_>>()?;

        self.places.insert(entry.pid, self.processes.len());
        self.processes.push(Process {
            pid,
            parent,
            group: optional_pid(image, "process group", entry.pgid)?,
            session: optional_pid(image, "session", entry.sid)?,
            name: name(&task.comm),
            state,
            is_subreaper: task.child_subreaper.unwrap_or_default(),
            threads,
        });
        Ok(())
    }

    /// An id that nothing had so far.
    fn new_tid(&mut self, image: &Image, id: u32) -> Result<i32> {
        let pid = optional_pid(image, "process or thread", id)?;
        if pid == 0 {
            return Err(image.invalid("a process or thread with id 0"));
        }
        if !self.tids.insert(id) {
            return Err(image.invalid(format!("id {id} is there twice")));
        }
        Ok(pid)
    }

    fn parent_of(&self, image: &Image, entry: &PstreeEntry, state: State) -> Result<Option<usize>> {
        match (entry.ppid, self.processes.is_empty()) {
            (0, true) if state.is_zombie() => {
                Err(image.invalid(format!("the first process, {}, has ended", entry.pid)))
            }
            (0, true) => Ok(None),
            (0, false) => Err(image.invalid(format!("process {} has no parent", entry.pid))),
            (ppid, _) => match self.places.get(&ppid) {
                Some(&parent) if self.processes[parent].state.is_zombie() => Err(image.invalid(
                    format!("process {} is the child of {ppid}, which has ended", entry.pid),
                )),
                Some(&parent) => Ok(Some(parent)),
                None => Err(image.invalid(format!(
                    "process {} comes before its parent {ppid}, or without it",
                    entry.pid
                ))),
            },
        }
    }

    /// The tree is in one pid namespace: CRIU dumps no other, and the images could not tell it.
    fn check_namespace(
        &mut self,
        images: &Images,
        image: &Image,
        entry: &PstreeEntry,
        core: Option<TaskKobjIdsEntry>,
    ) -> Result<()> {
        let ids = match Image::find(images, &format!("ids-{}.img", entry.pid), Magic::Ids)? {
            Some(mut ids) => Some(ids.only_entry::<TaskKobjIdsEntry>()?),
            None => core,
        };
        match (&self.root, ids) {
            (None, ids) => self.root = Some(ids.unwrap_or_default()),
            (Some(root), Some(ids)) if ids.pid_ns_id != root.pid_ns_id => {
                return Err(image.invalid(format!(
                    "process {} is in another pid namespace than the root of the tree",
                    entry.pid
                )));
            }
            _ => {}
        }
        Ok(())
    }

    /// A thread of a process whose name is `comm`.
    fn thread(&mut self, images: &Images, image: &Image, tid: u32, comm: &[u8]) -> Result<Thread> {
        let tid = self.new_tid(image, tid)?;
        let mut core = Image::open(images, &format!("core-{tid}.img"), Magic::Core)?;
        let core: CoreEntry = core.only_entry()?;
        let own = core.thread_core.and_then(|thread| thread.comm);
        Ok(Thread { tid, name: name(own.as_deref().unwrap_or(comm)) })
    }
}

/// The name that CRIU makes of `comm`: the images of another program may have a longer one, or one
/// that does not end with its first zero byte.
fn name(comm: &[u8]) -> Vec<u8> {
    comm.iter().copied().take_while(|&byte| byte != 0).take(MAX_NAME).collect()
}

fn optional_pid(image: &Image, what: &str, id: u32) -> Result<i32> {
    match i32::try_from(id) {
        Ok(pid) if id <= MAX_PID => Ok(pid),
        _ => Err(image.invalid(format!("{what} {id}, and there are none above {MAX_PID}"))),
    }
}
