// SPDX-License-Identifier: GPL-2.0

//! A model of what the kernel lets processes do to their parents, sessions and process groups. Any
//! history of it leads to a tree that has to be restored.

use std::collections::BTreeMap;

/// What the kernel knows of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its parent; 0 for the first process.
    pub parent: i32,
    /// Its session.
    pub session: i32,
    /// Its process group.
    pub group: i32,
    /// Whether orphans below it go to it.
    pub is_subreaper: bool,
    /// Whether it has ended.
    pub is_zombie: bool,
}

/// A pid namespace; 0 is what is outside of it.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    /// All processes by their ids.
    pub tasks: BTreeMap<i32, Task>,
}

/// Why a call failed.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused(pub &'static str);

/// A result of a call.
pub type Result<T = ()> = std::result::Result<T, Refused>;

fn ensure(is_allowed: bool, why: &'static str) -> Result {
    if is_allowed { Ok(()) } else { Err(Refused(why)) }
}

impl Kernel {
    /// A namespace with its first process.
    #[must_use]
    pub fn new(first: i32) -> Self {
        let task = Task { parent: 0, session: 0, group: 0, is_subreaper: false, is_zombie: false };
        Self { tasks: BTreeMap::from([(first, task)]) }
    }

    /// The first process.
    #[must_use]
    #[allow(clippy::missing_panics_doc)]
    pub fn first(&self) -> i32 {
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

    /// Forks a process with an id.
    ///
    /// # Errors
    ///
    /// Where the kernel would not let it.
    #[allow(clippy::missing_panics_doc)]
    pub fn fork(&mut self, maker: i32, pid: i32) -> Result {
        let task = self.living(maker)?;
        ensure(pid > 0 && !self.is_in_use(pid), "EEXIST")?;
        self.tasks.insert(pid, Task { parent: maker, is_subreaper: false, ..task });
        Ok(())
    }

    /// Makes a session.
    ///
    /// # Errors
    ///
    /// Where the kernel would not let it.
    #[allow(clippy::missing_panics_doc)]
    pub fn setsid(&mut self, pid: i32) -> Result {
        self.living(pid)?;
        ensure(self.tasks.values().all(|task| task.group != pid), "setsid: a group has its id")?;
        let task = self.tasks.get_mut(&pid).expect("it lives");
        (task.session, task.group) = (pid, pid);
        Ok(())
    }

    /// Makes or joins a process group.
    ///
    /// # Errors
    ///
    /// Where the kernel would not let it.
    #[allow(clippy::missing_panics_doc)]
    pub fn setpgid(&mut self, pid: i32, group: i32) -> Result {
        let task = self.living(pid)?;
        ensure(task.session != pid, "setpgid: it leads a session")?;
        let mut members = self.tasks.values().filter(|task| task.group == group);
        let is_there = members.any(|member| member.session == task.session);
        ensure(group == pid || is_there, "setpgid: no such group in the session")?;
        self.tasks.get_mut(&pid).expect("it lives").group = group;
        Ok(())
    }

    /// Makes a process a subreaper, or not.
    ///
    /// # Errors
    ///
    /// Where the kernel would not let it.
    #[allow(clippy::missing_panics_doc)]
    pub fn set_subreaper(&mut self, pid: i32, is_subreaper: bool) -> Result {
        self.living(pid)?;
        self.tasks.get_mut(&pid).expect("it lives").is_subreaper = is_subreaper;
        Ok(())
    }

    /// Ends a process, whose children get another parent.
    ///
    /// # Errors
    ///
    /// Where the kernel would not let it.
    #[allow(clippy::missing_panics_doc)]
    pub fn exit(&mut self, pid: i32) -> Result {
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

    /// Waits for a child that has ended.
    ///
    /// # Errors
    ///
    /// Where the kernel would not let it.
    #[allow(clippy::missing_panics_doc)]
    pub fn wait(&mut self, parent: i32, child: i32) -> Result {
        self.living(parent)?;
        let task = self.tasks.get(&child).ok_or(Refused("ECHILD"))?;
        ensure(task.parent == parent && task.is_zombie, "wait: it is no child that has ended")?;
        self.tasks.remove(&child);
        Ok(())
    }
}

/// Where processes come to from the first, by a call for each of `numbers`: what it is, who calls,
/// and about whom. Each new process has the next id, as in any namespace. What is not allowed is
/// left out.
#[must_use]
pub fn history(numbers: &[[u8; 3]]) -> Kernel {
    let (mut kernel, mut next) = (Kernel::new(1), 2);
    for &[call, caller, other] in numbers {
        let pids: Vec<i32> = kernel.tasks.keys().copied().collect();
        let who = |number: u8| pids[usize::from(number) % pids.len()];
        let (caller, other) = (who(caller), who(other));
        let _ = match call % 19 {
            0..6 => {
                let forked = kernel.fork(caller, next);
                next += i32::from(forked.is_ok());
                forked
            }
            6..9 => kernel.setsid(caller),
            9 => kernel.setpgid(caller, caller),
            10 => match kernel.tasks[&other].group {
                0 => Ok(()),
                group => kernel.setpgid(caller, group),
            },
            11..14 => kernel.set_subreaper(caller, call < 128),
            14..17 => kernel.exit(caller),
            _ => kernel.wait(kernel.tasks[&caller].parent, caller),
        };
    }
    kernel
}
