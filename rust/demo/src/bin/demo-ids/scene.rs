// SPDX-License-Identifier: GPL-2.0

//! What is restored, and in whose namespaces.

use std::fmt;

use anyhow::Result;
use nextid::{Id, ipc_id};

use crate::outside;
use crate::restore::{Namespaces, Restored};
use crate::table::{self, Row};

/// A process to restore, with all that hangs on it.
///
/// One whose id is 1 is the first of a new pid namespace.
pub struct Process {
    pub name: &'static str,
    pub ids: &'static [Id],
    pub threads: &'static [Thread],
    pub children: &'static [Process],
}

/// A thread to restore.
pub struct Thread {
    pub name: &'static str,
    pub ids: &'static [Id],
}

/// A kind of System V IPC object.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Queue,
    Semaphores,
    Segment,
}

impl Kind {
    /// Where the kernel lists the objects of this kind.
    pub fn list(self) -> &'static str {
        match self {
            Self::Queue => "/proc/sysvipc/msg",
            Self::Semaphores => "/proc/sysvipc/sem",
            Self::Segment => "/proc/sysvipc/shm",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Queue => "message queue",
            Self::Semaphores => "semaphore set",
            Self::Segment => "shared memory",
        })
    }
}

/// A System V IPC object to restore.
pub struct Object {
    pub kind: Kind,
    pub sequence: Id,
    pub index: Id,
}

impl Object {
    pub fn id(&self) -> Id {
        ipc_id(self.sequence, self.index)
    }
}

/// One restore.
pub struct Scene {
    pub title: &'static str,
    pub namespaces: Namespaces,
    pub first: Process,
    pub objects: &'static [Object],
}

/// All restores.
pub const ALL: &[Scene] = &[
    Scene {
        title: "As root: three nested pid namespaces and an IPC namespace",
        namespaces: Namespaces::Root,
        first: Process {
            name: "init",
            ids: &[1, 9001],
            threads: &[],
            children: &[
                Process {
                    name: "server",
                    ids: &[42, 9042],
                    threads: &[
                        Thread { name: "accept", ids: &[43, 9043] },
                        Thread { name: "flush", ids: &[57, 9057] },
                    ],
                    children: &[],
                },
                Process {
                    name: "sandbox",
                    ids: &[1, 500, 9500],
                    threads: &[],
                    children: &[
                        Process {
                            name: "worker",
                            ids: &[7, 512, 9512],
                            threads: &[Thread { name: "poll", ids: &[8, 513, 9513] }],
                            children: &[],
                        },
                        Process {
                            name: "guest",
                            ids: &[1, 20, 520, 9520],
                            threads: &[],
                            children: &[Process {
                                name: "job",
                                ids: &[30001, 30, 530, 9530],
                                threads: &[Thread { name: "timer", ids: &[2, 31, 531, 9531] }],
                                children: &[],
                            }],
                        },
                    ],
                },
            ],
        },
        objects: &[
            Object { kind: Kind::Queue, sequence: 3, index: 9 },
            Object { kind: Kind::Queue, sequence: 65535, index: 0 },
            Object { kind: Kind::Semaphores, sequence: 12, index: 700 },
            Object { kind: Kind::Segment, sequence: 0, index: 4095 },
        ],
    },
    Scene {
        title: "As uid 65534: in namespaces of its own, without any privilege outside",
        namespaces: Namespaces::Unprivileged,
        first: Process {
            name: "init",
            ids: &[1],
            threads: &[],
            children: &[
                Process {
                    name: "shell",
                    ids: &[4242],
                    threads: &[Thread { name: "signal", ids: &[4243] }],
                    children: &[],
                },
                Process {
                    name: "sandbox",
                    ids: &[1, 77],
                    threads: &[],
                    children: &[Process {
                        name: "guest",
                        ids: &[1, 5, 88],
                        threads: &[],
                        children: &[Process {
                            name: "job",
                            ids: &[6, 16, 99],
                            threads: &[],
                            children: &[],
                        }],
                    }],
                },
            ],
        },
        objects: &[
            Object { kind: Kind::Queue, sequence: 1, index: 1 },
            Object { kind: Kind::Semaphores, sequence: 1, index: 2 },
            Object { kind: Kind::Segment, sequence: 1, index: 3 },
        ],
    },
];

/// How many ids were asked for, and how many of them were not got.
#[derive(Default)]
pub struct Outcome {
    pub ids: usize,
    pub wrong: usize,
}

impl Scene {
    /// Restores it, looks at it from outside, prints the table and takes it down.
    pub fn play(&'static self) -> Result<Outcome> {
        let restored = Restored::new(self)?;
        let mut outcome = Outcome::default();
        let mut rows = Vec::new();
        let mut add =
            |label: String, wanted: &[Id], asked: String, got: Result<Vec<Id>, String>| {
                let (right, got) = match got {
                    Ok(got) => (count_equal(&got, wanted), table::ids(&got)),
                    Err(why) => (0, why),
                };
                outcome.ids += wanted.len();
                outcome.wrong += wanted.len() - right;
                rows.push(Row { good: right == wanted.len(), cells: [label, asked, got] });
            };

        let tasks = outside::tasks_below(restored.pid())?;
        for (label, name, wanted) in self.tasks() {
            let got = restored.task(name, wanted[0]).and_then(|()| {
                let mut ids = tasks.get(name).ok_or("not in /proc")?.clone();
                // What the kernel chose for the namespaces further out was not asked for.
                ids.truncate(wanted.len());
                Ok(ids)
            });
            add(label, wanted, table::ids(wanted), got);
        }

        let objects = outside::ipc_objects(restored.pid())?;
        for object in self.objects {
            let id = object.id();
            let got = restored.object(id).and_then(|()| {
                let list = object.kind.list();
                objects
                    .contains(&(object.kind, id))
                    .then(|| vec![id])
                    .ok_or(format!("not in {list}"))
            });
            let asked = format!("{id} = {} << 15 | {}", object.sequence, object.index);
            add(object.kind.to_string(), &[id], asked, got);
        }

        restored.take_down()?;
        table::print(self.title, ["object", "asked for", "got"], 2, &rows);
        Ok(outcome)
    }

    /// Each process and thread: how the table calls it, its name, its ids.
    fn tasks(&self) -> Vec<(String, &'static str, &'static [Id])> {
        let mut tasks = Vec::new();
        self.first.list("", "", &mut tasks);
        tasks
    }

    /// How many objects there are to restore.
    pub fn len(&self) -> usize {
        self.tasks().len() + self.objects.len()
    }
}

impl Process {
    /// Lists the process, its threads and its children, drawn as a tree.
    fn list(
        &self,
        branch: &str,
        indent: &str,
        tasks: &mut Vec<(String, &'static str, &'static [Id])>,
    ) {
        tasks.push((format!("{branch}{}", self.name), self.name, self.ids));
        let mut below = self.threads.len() + self.children.len();
        let mut next = || {
            below -= 1;
            if below == 0 { ("└─ ", "   ") } else { ("├─ ", "│  ") }
        };
        for thread in self.threads {
            let (branch, _) = next();
            tasks.push((
                format!("{indent}{branch}thread {}", thread.name),
                thread.name,
                thread.ids,
            ));
        }
        for child in self.children {
            let (branch, deeper) = next();
            child.list(&format!("{indent}{branch}"), &format!("{indent}{deeper}"), tasks);
        }
    }
}

fn count_equal(got: &[Id], wanted: &[Id]) -> usize {
    got.iter().zip(wanted).filter(|(got, wanted)| got == wanted).count()
}
