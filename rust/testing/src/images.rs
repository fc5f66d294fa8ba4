// SPDX-License-Identifier: GPL-2.0

//! Writes images of CRIU, for tests of what reads them.

use std::fs;
use std::io;
use std::path::Path;

use criu_images::proto::core_entry::March;
use criu_images::proto::{
    CoreEntry, InventoryEntry, PstreeEntry, TaskCoreEntry, TaskKobjIdsEntry, ThreadCoreEntry,
};
use criu_images::{COMMON_MAGIC, Magic};
use prost::Message;

/// An image that is being written.
#[derive(Clone, Debug)]
pub struct Image(Vec<u8>);

impl Image {
    /// An image of this kind, which has no entries yet.
    #[must_use]
    pub fn new(magic: Magic) -> Self {
        let mut bytes = Vec::new();
        // The inventory has no magic number in front of its own.
        if magic != Magic::Inventory {
            bytes.extend(COMMON_MAGIC.to_le_bytes());
        }
        bytes.extend((magic as u32).to_le_bytes());
        Self(bytes)
    }

    /// The image with another entry.
    ///
    /// # Panics
    ///
    /// Where the entry has 4 GiB or more.
    #[must_use]
    pub fn entry(mut self, entry: &impl Message) -> Self {
        let length = u32::try_from(entry.encoded_len()).expect("it is short");
        self.0.extend(length.to_le_bytes());
        entry.encode(&mut self.0).expect("a vector grows");
        self
    }

    /// The image with more entries.
    ///
    /// # Panics
    ///
    /// Where one of them has 4 GiB or more.
    #[must_use]
    pub fn entries(self, entries: &[impl Message]) -> Self {
        entries.iter().fold(self, Self::entry)
    }
}

impl AsRef<[u8]> for Image {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A process to write.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// That of its parent, or 0.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Its session.
    pub session: i32,
    /// How it ended, as `wait(2)` tells it, if it did.
    pub ended: Option<i32>,
    /// Whether it is stopped.
    pub is_stopped: bool,
    /// Whether it is a subreaper.
    pub is_subreaper: bool,
    /// The id of another thread, or 0.
    pub thread: i32,
}

/// Writes the images of a tree: each process after its parent, in a pid namespace of its own if the
/// first is 1. Each is called `task`.
///
/// # Errors
///
/// Where a file cannot be written.
pub fn write_tree(folder: &Path, processes: &[Process]) -> io::Result<()> {
    let write = |name: &str, image: Image| fs::write(folder.join(name), image);
    let inventory = InventoryEntry {
        img_version: 2,
        fdinfo_per_id: Some(true),
        root_ids: Some(namespaces(1)),
        ..InventoryEntry::default()
    };
    write("inventory.img", Image::new(Magic::Inventory).entry(&inventory))?;
    let tree: Vec<PstreeEntry> = processes.iter().map(entry_of_tree).collect();
    write("pstree.img", Image::new(Magic::Pstree).entries(&tree))?;

    let pid_namespace = if processes.first().is_some_and(|first| first.pid == 1) { 2 } else { 1 };
    for process in processes {
        let core = CoreEntry { tc: Some(task(process)), ..thread() };
        let core = Image::new(Magic::Core).entry(&core);
        write(&format!("core-{}.img", process.pid), core)?;
        if process.thread != 0 {
            let core = Image::new(Magic::Core).entry(&thread());
            write(&format!("core-{}.img", process.thread), core)?;
        }
        let ids = Image::new(Magic::Ids).entry(&namespaces(pid_namespace));
        write(&format!("ids-{}.img", process.pid), ids)?;
    }
    Ok(())
}

fn entry_of_tree(process: &Process) -> PstreeEntry {
    let &Process { pid, parent, group, session, thread, .. } = process;
    let threads = [pid, thread].into_iter().filter(|&tid| tid != 0).map(unsigned);
    PstreeEntry {
        pid: unsigned(pid),
        ppid: unsigned(parent),
        pgid: unsigned(group),
        sid: unsigned(session),
        threads: threads.collect(),
    }
}

/// What is in the core of a process, and not in those of its other threads.
fn task(process: &Process) -> TaskCoreEntry {
    /// `TASK_ALIVE`, `TASK_STOPPED` and `TASK_DEAD` of CRIU.
    const ALIVE: u32 = 1;
    const STOPPED: u32 = 3;
    const DEAD: u32 = 6;

    TaskCoreEntry {
        task_state: match process {
            Process { ended: Some(_), .. } => DEAD,
            Process { is_stopped: true, .. } => STOPPED,
            _ => ALIVE,
        },
        exit_code: unsigned(process.ended.unwrap_or_default()),
        comm: b"task".to_vec(),
        child_subreaper: Some(process.is_subreaper),
        ..TaskCoreEntry::default()
    }
}

/// The core of a thread.
fn thread() -> CoreEntry {
    let thread = ThreadCoreEntry { comm: Some(b"task".to_vec()), ..ThreadCoreEntry::default() };
    CoreEntry { mtype: March::X8664.into(), thread_core: Some(thread), ..CoreEntry::default() }
}

/// The namespaces of a process.
fn namespaces(pid: u32) -> TaskKobjIdsEntry {
    TaskKobjIdsEntry {
        vm_id: 1,
        files_id: 1,
        fs_id: 1,
        sighand_id: 1,
        pid_ns_id: Some(pid),
        net_ns_id: Some(1),
        ipc_ns_id: Some(1),
        uts_ns_id: Some(1),
        mnt_ns_id: Some(1),
        user_ns_id: Some(1),
        ..TaskKobjIdsEntry::default()
    }
}

/// A number that is not below 0, as the images have it.
fn unsigned(number: i32) -> u32 {
    u32::try_from(number).expect("ids and statuses are not below 0")
}
