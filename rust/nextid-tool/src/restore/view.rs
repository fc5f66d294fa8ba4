// SPDX-License-Identifier: GPL-2.0

//! A dump, or what was restored of it, to look at.

use std::collections::HashMap;
use std::fmt;

use criu_images::{Dump, Permissions, Process, State};
use nextid::Holder;
use serde::Serialize;

use super::ipc::Place;
use super::survey::Survey;
use crate::report::{self, BAD, printable};

#[derive(Serialize)]
pub struct View {
    /// The first process, in the pid namespace of the caller; none where nothing was made.
    restored_as: Option<i32>,
    own_pid_namespace: bool,
    own_user_namespace: bool,
    own_ipc_namespace: bool,
    processes: Vec<ProcessView>,
    objects: Vec<ObjectView>,
    /// What is in the way.
    #[serde(serialize_with = "report::holders")]
    in_use: Vec<Holder>,
}

#[derive(Serialize)]
struct ProcessView {
    pid: i32,
    parent: Option<i32>,
    group: i32,
    session: i32,
    name: String,
    state: &'static str,
    threads: Vec<ThreadView>,
}

#[derive(Serialize)]
struct ThreadView {
    tid: i32,
    name: String,
}

#[derive(Serialize)]
struct ObjectView {
    kind: &'static str,
    id: i32,
    key: i32,
    uid: u32,
    gid: u32,
    mode: u16,
    #[serde(flatten)]
    contents: Contents,
}

/// How much is in an object.
#[derive(Serialize)]
#[serde(untagged)]
enum Contents {
    Queue {
        messages: usize,
        bytes: usize,
    },
    Semaphores {
        semaphores: usize,
    },
    Segment {
        /// In bytes.
        size: u64,
        huge_pages: bool,
        /// Whether it is marked for removal.
        removed: bool,
    },
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue { messages, bytes } => write!(f, "{messages} messages, {bytes} bytes"),
            Self::Semaphores { semaphores } => write!(f, "{semaphores} semaphores"),
            Self::Segment { size, huge_pages, removed } => {
                let pages = if *huge_pages { ", huge pages" } else { "" };
                let mark = if *removed { ", marked for removal" } else { "" };
                write!(f, "{size} bytes{pages}{mark}")
            }
        }
    }
}

impl View {
    pub fn new(survey: &Survey, restored_as: Option<i32>) -> Self {
        let dump = survey.dump;
        Self {
            restored_as,
            own_pid_namespace: dump.own_pid_namespace,
            own_user_namespace: dump.own_user_namespace,
            own_ipc_namespace: dump.ipc.is_some() && survey.place == Place::New,
            processes: dump.processes.iter().map(|process| process_view(dump, process)).collect(),
            objects: object_views(dump),
            in_use: survey.in_use.clone(),
        }
    }
}

fn process_view(dump: &Dump, process: &Process) -> ProcessView {
    let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let thread =
        |thread: &criu_images::Thread| ThreadView { tid: thread.tid, name: name(&thread.name) };
    ProcessView {
        pid: process.pid,
        parent: process.parent.map(|parent| dump.processes[parent].pid),
        group: process.group,
        session: process.session,
        name: name(&process.name),
        state: match process.state {
            State::Running => "running",
            State::Stopped => "stopped",
            State::Zombie { .. } => "zombie",
        },
        threads: process.threads.iter().map(thread).collect(),
    }
}

fn object_views(dump: &Dump) -> Vec<ObjectView> {
    let Some(ipc) = &dump.ipc else { return Vec::new() };
    let view = |kind, permissions: &Permissions, contents| {
        let &Permissions { id, key, uid, gid, mode } = permissions;
        ObjectView { kind, id, key, uid, gid, mode, contents }
    };
    let queues = ipc.queues.iter().map(|queue| {
        let bytes: usize = queue.messages.iter().map(|message| message.text.len()).sum();
        let contents = Contents::Queue { messages: queue.messages.len(), bytes };
        view("message queue", &queue.permissions, contents)
    });
    let semaphores = ipc.semaphores.iter().map(|set| {
        let contents = Contents::Semaphores { semaphores: set.values.len() };
        view("semaphore set", &set.permissions, contents)
    });
    let segments = ipc.segments.iter().map(|segment| {
        let contents = Contents::Segment {
            size: segment.size,
            huge_pages: segment.huge_pages != 0,
            removed: segment.removed,
        };
        view("shared memory", &segment.permissions, contents)
    });
    queues.chain(semaphores).chain(segments).collect()
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.tree_lines();
        let width =
            lines.iter().map(|line| line.0.chars().count()).max().unwrap_or_default().max(7);
        writeln!(f, "{:width$}  {:>7}  {:>7}  state", "process", "group", "session")?;
        for (name, process) in &lines {
            match process {
                Some(it) => {
                    let ProcessView { group, session, state, .. } = it;
                    writeln!(f, "{name:width$}  {group:7}  {session:7}  {state}")?;
                }
                None => writeln!(f, "{name}")?,
            }
        }
        if !self.objects.is_empty() {
            writeln!(f, "\n{:13}  {:>10}  {:>10}  mode   owner  contents", "object", "id", "key")?;
        }
        for ObjectView { kind, id, key, uid, gid, mode, contents } in &self.objects {
            let owner = format!("{uid}:{gid}");
            writeln!(f, "{kind:13}  {id:10}  {key:#010x}  {mode:04o}  {owner:>6}  {contents}")?;
        }
        for holder in &self.in_use {
            writeln!(f, "{BAD}in the way:{BAD:#} {holder}")?;
        }
        Ok(())
    }
}

impl View {
    /// The lines of the tree: processes, and threads, which have no more to tell.
    fn tree_lines(&self) -> Vec<(String, Option<&ProcessView>)> {
        let mut nodes = Vec::new();
        let mut parents = Vec::new();
        let mut places = HashMap::new();
        for process in &self.processes {
            let place = nodes.len();
            places.insert(process.pid, place);
            parents.push(process.parent.map(|parent| places[&parent]));
            nodes.push((format!("{} {}", process.pid, printable(&process.name)), Some(process)));
            for ThreadView { tid, name } in &process.threads {
                parents.push(Some(place));
                nodes.push((format!("thread {tid} {}", printable(name)), None));
            }
        }
        let line = |(node, branch): (usize, String)| {
            let (name, process) = &nodes[node];
            (branch + name, *process)
        };
        drawn_tree::draw(&parents).into_iter().map(line).collect()
    }
}
