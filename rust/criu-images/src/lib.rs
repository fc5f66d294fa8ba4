// SPDX-License-Identifier: GPL-2.0

//! Reads what a restore of ids needs out of images of CRIU: the process tree, and the System V IPC
//! objects with their contents.
//!
//! ```no_run
//! use criu_images::{Dump, Images};
//!
//! let dump = Dump::read(&Images::open("/var/lib/checkpoint/web.tar.gz".as_ref())?)?;
//! for process in &dump.processes {
//!     println!("{} {}", process.pid, String::from_utf8_lossy(&process.name));
//! }
//! # Ok::<(), criu_images::Error>(())
//! ```
//!
//! It reads the formats that CRIU 4 writes, "images v1.1", and v1.2 of CRIU 4.3 with its compressed
//! pages. Files are taken for hostile: what is malformed is an [`Error`] that names file and byte,
//! and no length that a file claims is allocated before the file is seen to be as long.

mod archive;
mod error;
mod image;
mod ipc;
mod layout;
mod pages;
mod section;
mod source;
mod tree;

pub use error::{Error, Problem, Result};
pub use image::{COMMON_MAGIC, Magic};
pub use ipc::{Ipc, Limit, Message, MessageQueue, Permissions, Segment, SemaphoreSet};
pub use pages::PAGE_SIZE;
pub use source::Images;
pub use tree::{Process, State, Thread};

use image::Image;
use proto::TaskKobjIdsEntry;

/// The messages of the images, generated from CRIU's definitions: for tests, which write images.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/_.rs"));
}

/// The versions of the image format that are read: `CRTOOLS_IMAGES_V1_1` and `CRTOOLS_IMAGES_V1_2`.
const VERSIONS: [u32; 2] = [2, 3];

/// How pages may be compressed: not at all, each by itself, or several together. All by LZ4.
const COMPRESSIONS: [u32; 3] = [0, 1, 2];

/// What was dumped.
#[derive(Debug)]
pub struct Dump {
    /// The processes, each after its parent: the first is the root of the tree.
    pub processes: Vec<Process>,
    /// Whether the tree has a pid namespace of its own.
    pub own_pid_namespace: bool,
    /// Whether the tree has a user namespace of its own.
    pub own_user_namespace: bool,
    /// The IPC namespace, where the tree has one of its own.
    pub ipc: Option<Ipc>,
}

impl Dump {
    /// Reads a dump.
    ///
    /// # Errors
    ///
    /// Where there are no images, or images that are malformed or beyond what this crate reads.
    pub fn read(images: &Images) -> Result<Self> {
        let mut inventory = Image::open(images, layout::INVENTORY, Magic::Inventory)?;
        let entry: proto::InventoryEntry = inventory.only_entry()?;
        let version = entry.img_version;
        if !VERSIONS.contains(&version) {
            return Err(inventory.invalid(format!(
                "image format version {version}; 2 and 3 are understood, which CRIU 4 writes"
            )));
        }
        if !COMPRESSIONS.contains(&entry.compress()) {
            return Err(inventory.invalid(format!(
                "pages that are compressed in way {}, of a newer CRIU; LZ4 is understood, ways 1 \
                 and 2",
                entry.compress()
            )));
        }
        // The namespaces of CRIU itself, which those of the tree are compared with.
        let outside = entry.root_ids.unwrap_or_default();
        let (processes, root) = tree::read(images)?;

        let own = |id: fn(&TaskKobjIdsEntry) -> Option<u32>| id(&root) != id(&outside);
        let pids: Vec<i32> = processes.iter().map(|process| process.pid).collect();
        let ipc = match root.ipc_ns_id {
            Some(namespace) if own(|ids| ids.ipc_ns_id) => {
                Some(Ipc::read(images, namespace, &pids)?)
            }
            _ => None,
        };
        Ok(Self {
            processes,
            own_pid_namespace: own(|ids| ids.pid_ns_id),
            own_user_namespace: own(|ids| ids.user_ns_id),
            ipc,
        })
    }
}
