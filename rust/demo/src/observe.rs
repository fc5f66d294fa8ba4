// SPDX-License-Identifier: GPL-2.0

//! What `/proc` and `/proc/sysvipc` tell of a tree.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ptr;

use anyhow::{Context, Result, ensure};
use nextid::IpcKind;
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;
use procfs::process::Process;
use testing::wait_until;

/// Rows to compare.
pub struct Table {
    /// What they are of.
    pub title: &'static str,
    /// What [`Observed::shown`] has.
    pub header: &'static str,
    /// One for each process, thread and object.
    pub rows: Vec<Observed>,
}

/// A process, a thread or an IPC object.
#[derive(PartialEq)]
pub struct Observed {
    /// Its name, or its kind.
    pub name: String,
    /// Its id in the innermost namespace.
    pub id: i32,
    /// Its ids, and what else is compared and shown.
    pub shown: String,
    /// What is compared, but too long to show.
    contents: Vec<u8>,
}

impl Observed {
    fn task(name: impl Into<String>, id: i32, shown: String) -> Self {
        Self { name: name.into(), id, shown, contents: Vec::new() }
    }

    /// All that is compared, in a line.
    fn line(&self) -> String {
        format!("{} {} {:?}", self.name, self.shown, self.contents)
    }
}

/// The rows that are not the same, as a text; empty where all are.
#[must_use]
pub fn difference(before: &[Table], after: &[Table]) -> String {
    let rows = |tables: &[Table]| -> Vec<_> {
        tables.iter().flat_map(|table| table.rows.iter().map(Observed::line)).collect()
    };
    let (before, after) = (rows(before), rows(after));
    let gone = before.iter().filter(|&row| !after.contains(row)).map(|row| ("was", row));
    let new = after.iter().filter(|&row| !before.contains(row)).map(|row| ("is", row));
    let lines: Vec<_> = gone.chain(new).map(|(when, row)| format!("  {when:>3} {row}")).collect();
    lines.join("\n")
}

/// The tree below `first`, and the objects in its IPC namespace.
///
/// # Errors
///
/// Where `/proc` cannot be read, as when a process ends meanwhile.
pub fn tables(first: Pid) -> Result<[Table; 2]> {
    // A process that has just been woken is about to sleep again.
    let mut rows = Ok(Vec::new());
    wait_until(|| {
        rows = processes(first);
        rows.as_ref().is_ok_and(|rows| rows.iter().all(|row| !row.shown.ends_with('R')))
    });
    let processes = Table { title: "/proc", header: "  pid  ppid  pgrp   sid", rows: rows? };

    let own = File::open("/proc/self/ns/ipc")?;
    setns(File::open(format!("/proc/{first}/ns/ipc"))?, CloneFlags::CLONE_NEWIPC)?;
    let rows = objects();
    setns(own, CloneFlags::CLONE_NEWIPC)?;
    let header = "    id         key  mode  owner  contents";
    Ok([processes, Table { title: "/proc/sysvipc", header, rows: rows? }])
}

fn processes(first: Pid) -> Result<Vec<Observed>> {
    let mut rows = Vec::new();
    add_process(&mut rows, &Process::new(first.as_raw())?, 0, "")?;
    Ok(rows)
}

/// Adds `process`, its threads, and all that is below it.
fn add_process(
    rows: &mut Vec<Observed>,
    process: &Process,
    parent: i32,
    indent: &str,
) -> Result<()> {
    let status = process.status()?;
    let [pid, group, session] =
        [&status.nspid, &status.nspgid, &status.nssid].map(|ids| innermost(ids.as_deref()));
    let state = status.state.get(..1).unwrap_or_default();
    let mut row = Observed::task(
        format!("{indent}{}", status.name),
        pid,
        format!("{pid:>5} {parent:>5} {group:>5} {session:>5}  {state}"),
    );
    if state == "Z" {
        // How it ended, as wait(2) would tell it.
        row.contents.extend(process.stat()?.exit_code.unwrap_or_default().to_ne_bytes());
    }
    rows.push(row);

    let indent = format!("{indent}  ");
    let mut threads = BTreeMap::new();
    let mut children = BTreeMap::new();
    for task in process.tasks()? {
        let task = task?;
        let status = task.status()?;
        threads.insert(innermost(status.nspid.as_deref()), status.name);
        for child in task.children()? {
            let child = Process::new(i32::try_from(child)?)?;
            children.insert(innermost(child.status()?.nspid.as_deref()), child);
        }
    }
    threads.remove(&pid);
    for (tid, name) in threads {
        rows.push(Observed::task(format!("{indent}thread {name}"), tid, format!("{tid:>5}")));
    }
    for child in children.into_values() {
        add_process(rows, &child, pid, &indent)?;
    }
    Ok(())
}

/// The id in the innermost pid namespace.
fn innermost(ids: Option<&[i32]>) -> i32 {
    ids.and_then(|ids| ids.last().copied()).unwrap_or_default()
}

/// The objects of the caller's IPC namespace.
fn objects() -> Result<Vec<Observed>> {
    let mut rows = Vec::new();
    for kind in IpcKind::ALL {
        let list = fs::read_to_string(kind.list())?;
        let mut lines = list.lines();
        let columns: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
        for line in lines {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let field = |name: &str| {
                columns.iter().position(|&it| it == name).map_or("", |place| fields[place])
            };
            let id: i32 = fields[1].parse()?;
            let (size, contents) = match kind {
                IpcKind::MessageQueue => (
                    format!("{} messages, {} bytes", field("qnum"), field("cbytes")),
                    messages(id)?,
                ),
                IpcKind::SemaphoreSet => {
                    (format!("{} semaphores", field("nsems")), values(id, field("nsems").parse()?)?)
                }
                IpcKind::SharedMemory => {
                    (format!("{} bytes", field("size")), memory(id, field("size").parse()?)?)
                }
            };
            let (key, owner) = (fields[0].parse::<i32>()?, [field("uid"), field("gid")].join(":"));
            let shown = format!("{id:>6}  {key:#010x}  {:>4}  {owner:>5}  {size}", field("perms"));
            rows.push(Observed { name: kind.to_string(), id, shown, contents });
        }
    }
    Ok(rows)
}

/// All messages of a queue, which keeps them: the type and the text of each.
fn messages(id: i32) -> Result<Vec<u8>> {
    /// `MSG_COPY`: the message at a place is copied.
    const COPY: i32 = 0o40000;
    let mut all = Vec::new();
    for place in 0.. {
        let mut message = [0_u8; 8 + 8192];
        let flags = COPY | libc::IPC_NOWAIT;
        // SAFETY: There is room for a type and 8192 bytes of text.
        let got = unsafe { libc::msgrcv(id, message.as_mut_ptr().cast(), 8192, place, flags) };
        match Errno::result(got) {
            Ok(length) => all.extend_from_slice(&message[..8 + usize::try_from(length)?]),
            Err(Errno::ENOMSG) => break,
            Err(errno) => return Err(errno).context("cannot copy a message"),
        }
    }
    Ok(all)
}

fn values(id: i32, count: usize) -> Result<Vec<u8>> {
    let mut values = vec![0_u16; count];
    // SAFETY: There is room for the value of each semaphore.
    Errno::result(unsafe { libc::semctl(id, 0, libc::GETALL, values.as_mut_ptr()) })?;
    Ok(values.into_iter().flat_map(u16::to_ne_bytes).collect())
}

fn memory(id: i32, size: usize) -> Result<Vec<u8>> {
    // SAFETY: The kernel chooses a place where nothing is.
    let place = unsafe { libc::shmat(id, ptr::null(), libc::SHM_RDONLY) };
    ensure!(place as isize != -1, "cannot attach segment {id}: {}", Errno::last());
    // SAFETY: The segment has `size` bytes, and nobody uses it meanwhile.
    let bytes = unsafe { std::slice::from_raw_parts(place.cast::<u8>(), size) }.to_vec();
    // SAFETY: It is attached there, and the slice is gone.
    Errno::result(unsafe { libc::shmdt(place) })?;
    Ok(bytes)
}
