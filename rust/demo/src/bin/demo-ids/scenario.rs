// SPDX-License-Identifier: GPL-2.0

//! What is created, and in whose namespaces.

use nextid::{IpcKind, ipc_id};

/// Whose namespaces the objects are created in.
#[derive(Clone, Copy)]
pub enum Namespaces {
    /// Those of root: a new IPC namespace is all that is needed.
    Root,
    /// Those of an unprivileged user: a new user namespace, and all others in it.
    Unprivileged,
}

/// A process to create, with its threads and children.
///
/// One whose id is 1 is the first of a new pid namespace.
pub struct Process {
    pub name: &'static str,
    pub ids: &'static [i64],
    pub threads: &'static [Thread],
    pub children: &'static [Process],
}

/// A thread to create.
pub struct Thread {
    pub name: &'static str,
    pub ids: &'static [i64],
}

/// A System V IPC object to create.
pub struct Object {
    pub kind: IpcKind,
    pub sequence: i64,
    pub index: i64,
}

impl Object {
    pub fn id(&self) -> i64 {
        ipc_id(self.sequence, self.index)
    }
}

/// Objects that are created together.
pub struct Scenario {
    pub title: &'static str,
    pub namespaces: Namespaces,
    pub first: Process,
    pub objects: &'static [Object],
}

/// All scenarios.
pub const ALL: &[Scenario] = &[
    Scenario {
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
            Object { kind: IpcKind::MessageQueue, sequence: 3, index: 9 },
            Object { kind: IpcKind::MessageQueue, sequence: 65535, index: 0 },
            Object { kind: IpcKind::SemaphoreSet, sequence: 12, index: 700 },
            Object { kind: IpcKind::SharedMemory, sequence: 0, index: 4095 },
        ],
    },
    Scenario {
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
            Object { kind: IpcKind::MessageQueue, sequence: 1, index: 1 },
            Object { kind: IpcKind::SemaphoreSet, sequence: 1, index: 2 },
            Object { kind: IpcKind::SharedMemory, sequence: 1, index: 3 },
        ],
    },
];

/// A process or thread of a scenario.
pub struct Task {
    /// Its name, drawn as a part of the tree.
    pub label: String,
    pub name: &'static str,
    pub ids: &'static [i64],
}

impl Scenario {
    /// Each process and thread.
    pub fn tasks(&self) -> Vec<Task> {
        let (mut tasks, mut parents) = (Vec::new(), Vec::new());
        self.first.list(None, &mut tasks, &mut parents);
        for (task, branch) in drawn_tree::draw(&parents) {
            tasks[task].label.insert_str(0, &branch);
        }
        tasks
    }

    /// How many objects there are to create.
    pub fn len(&self) -> usize {
        self.tasks().len() + self.objects.len()
    }
}

impl Process {
    /// Lists the process, its threads and its children, from top to bottom of their tree.
    fn list(&self, parent: Option<usize>, tasks: &mut Vec<Task>, parents: &mut Vec<Option<usize>>) {
        let place = tasks.len();
        tasks.push(Task { label: self.name.to_owned(), name: self.name, ids: self.ids });
        parents.push(parent);
        for &Thread { name, ids } in self.threads {
            tasks.push(Task { label: format!("thread {name}"), name, ids });
            parents.push(Some(place));
        }
        for child in self.children {
            child.list(Some(place), tasks, parents);
        }
    }
}
