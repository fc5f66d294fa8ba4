// SPDX-License-Identifier: GPL-2.0

//! Reads what a restore of ids needs out of a folder of CRIU images: the process tree, and the
//! System V IPC objects with their contents.
//!
//! ```no_run
//! let dump = criu_images::Dump::read("/var/lib/checkpoint/web".as_ref())?;
//! for process in &dump.processes {
//!     println!("{} {}", process.pid, String::from_utf8_lossy(&process.name));
//! }
//! # Ok::<(), criu_images::Error>(())
//! ```
//!
//! It reads the format that CRIU 4 writes, "images v1.1". Files are taken for hostile: what is
//! malformed is an [`Error`] that names file and byte, and no length that a file claims is
//! allocated before the file is seen to be as long.

mod error;
mod image;
mod ipc;
mod tree;

use std::path::Path;

pub use error::{Error, Problem};
pub use ipc::{Ipc, Limit, Message, MessageQueue, Permissions, Segment, SemaphoreSet};
pub use tree::{Process, State, Thread};

use image::{Image, Magic};
use proto::TaskKobjIdsEntry;

/// The messages of the images, generated from CRIU's definitions.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/_.rs"));
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The one version of the image format that is read: `CRTOOLS_IMAGES_V1_1`.
const VERSION: u32 = 2;

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
    /// Reads the images in `folder`.
    ///
    /// # Errors
    ///
    /// Where it holds no images, or images that are malformed or beyond what this crate reads.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut inventory = Image::open(folder, "inventory.img", Magic::Inventory)?;
        let entry: proto::InventoryEntry = inventory.only_entry()?;
        if entry.img_version != VERSION {
            let found = entry.img_version;
            return Err(inventory.invalid(format!(
                "image format version {found}; {VERSION} is understood, which CRIU 4 writes"
            )));
        }
        // The namespaces of CRIU itself, which those of the tree are compared with.
        let outside = entry.root_ids.unwrap_or_default();
        let (processes, root) = tree::read(folder)?;

        let own = |id: fn(&TaskKobjIdsEntry) -> Option<u32>| id(&root) != id(&outside);
        let ipc = match root.ipc_ns_id {
            Some(namespace) if own(|ids| ids.ipc_ns_id) => Some(Ipc::read(folder, namespace)?),
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
