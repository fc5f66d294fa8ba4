// SPDX-License-Identifier: GPL-2.0

//! The System V IPC objects of an IPC namespace.

use std::collections::HashSet;

use crate::error::Result;
use crate::image::{Image, Magic};
use crate::pages::{Contents, PAGE_SIZE};
use crate::proto::{
    IpcDescEntry, IpcMsg, IpcMsgEntry, IpcSemEntry, IpcShmEntry, IpcVarEntry, MmEntry,
};
use crate::source::Images;

/// The largest value of a semaphore, `SEMVMX`.
const MAX_VALUE: u16 = 32767;

/// The most bytes of a message: `msgmax` is an int.
const MAX_MESSAGE: u32 = i32::MAX.unsigned_abs();

/// In the mode of a segment: it is gone once no process has it attached (`SHM_DEST`).
const REMOVED: u32 = 0o1000;

/// What an area of memory is: a shared memory segment of System V (`VMA_AREA_SYSVIPC`).
const IS_SEGMENT: u32 = 1 << 10;

/// All objects of an IPC namespace, and its limits.
#[derive(Debug, Default)]
pub struct Ipc {
    /// The limits, none where the dump tells none. There may be more than they allow.
    pub limits: Vec<Limit>,
    /// The message queues.
    pub queues: Vec<MessageQueue>,
    /// The semaphore sets.
    pub semaphores: Vec<SemaphoreSet>,
    /// The shared memory segments.
    pub segments: Vec<Segment>,
}

/// A limit of an IPC namespace, which is a sysctl.
#[derive(Debug, PartialEq, Eq)]
pub struct Limit {
    /// The name of its file in `/proc/sys/kernel`.
    pub name: &'static str,
    /// Its values, in the units of `proc_sys_kernel(5)`: four for `sem`, one for any other.
    pub values: Vec<u64>,
}

/// What objects of all kinds have.
///
/// User and group are as the user namespace of the tree numbers them where it has one of its own
/// ([`crate::Dump::own_user_namespace`]), else as that of CRIU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// The id.
    pub id: i32,
    /// The key, 0 for none.
    pub key: i32,
    /// The user who owns it.
    pub uid: u32,
    /// The group that owns it.
    pub gid: u32,
    /// The permission bits.
    pub mode: u16,
}

/// A message queue.
#[derive(Debug)]
pub struct MessageQueue {
    /// What it has in common with the others.
    pub permissions: Permissions,
    /// How much it may hold, in bytes.
    pub capacity: u32,
    /// Its messages, in the order in which they were sent.
    pub messages: Vec<Message>,
}

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type, at least 1.
    pub kind: i64,
    /// Its text.
    pub text: Vec<u8>,
}

/// A semaphore set.
#[derive(Debug)]
pub struct SemaphoreSet {
    /// What it has in common with the others.
    pub permissions: Permissions,
    /// The value of each semaphore.
    pub values: Vec<u16>,
}

/// A shared memory segment.
#[derive(Debug)]
pub struct Segment {
    /// What it has in common with the others.
    pub permissions: Permissions,
    /// Its size, in bytes.
    pub size: u64,
    /// The flags for `shmget(2)` that say which huge pages it has; 0 for none.
    pub huge_pages: i32,
    /// Whether it is marked for removal: it is gone once no process has it attached, and has no
    /// key.
    pub removed: bool,
    /// Where it is marked for removal, the processes that have it attached, by their ids.
    pub attached: Vec<i32>,
    contents: Contents,
}

impl MessageQueue {
    /// The least capacity, in bytes, with which its messages can be sent to it.
    ///
    /// It may hold more than its capacity, where that was lowered later. The capacity limits how
    /// many messages there are as well: those without text have no bytes that count.
    #[must_use]
    pub fn needed_capacity(&self) -> usize {
        let bytes: usize = self.messages.iter().map(|message| message.text.len()).sum();
        bytes.max(self.messages.len())
    }
}

impl Segment {
    /// Reads the contents into `memory`, which is as long as the segment, in whole pages or not,
    /// and zero.
    ///
    /// # Errors
    ///
    /// Where the images end too early, or pages that are compressed cannot be unpacked.
    pub fn read_into(&self, memory: &mut [u8]) -> Result<()> {
        self.contents.read_into(memory)
    }

    /// Checks that the contents can be read, as far as reading the dump has not told already.
    ///
    /// # Errors
    ///
    /// Where pages that are compressed cannot be unpacked.
    pub fn check(&self) -> Result<()> {
        self.contents.check()
    }
}

impl Ipc {
    /// Reads the images of the IPC namespace that CRIU calls `namespace`.
    pub(crate) fn read(images: &Images, namespace: u32, pids: &[i32]) -> Result<Self> {
        let name = |kind| format!("ipcns-{kind}-{namespace}.img");
        let open = |kind, magic| Image::find(images, &name(kind), magic);
        let mut ipc = Self::default();
        if let Some(mut image) = open("var", Magic::Limits)? {
            let entry = image.only_entry()?;
            ipc.limits = dumped_limits(&image, entry)?;
        }
        if let Some(mut image) = open("msg", Magic::Queues)? {
            let mut ids = HashSet::new();
            while let Some(entry) = image.next()? {
                let queue = queue(&mut image, &entry)?;
                check_new(&mut ids, &image, queue.permissions)?;
                ipc.queues.push(queue);
            }
        }
        if let Some(mut image) = open("sem", Magic::Semaphores)? {
            let mut ids = HashSet::new();
            while let Some(entry) = image.next()? {
                let set = semaphore_set(&mut image, &entry)?;
                check_new(&mut ids, &image, set.permissions)?;
                ipc.semaphores.push(set);
            }
        }
        if let Some(mut image) = open("shm", Magic::Segments)? {
            let mut ids = HashSet::new();
            while let Some(entry) = image.next()? {
                let segment = segment(images, &name("shm"), &mut image, &entry)?;
                check_new(&mut ids, &image, segment.permissions)?;
                ipc.segments.push(segment);
            }
        }
        if ipc.segments.iter().any(|segment| segment.removed) {
            ipc.find_attached(images, pids)?;
        }
        Ok(ipc)
    }

    /// Finds out which of the processes `pids` have a segment attached that is marked for removal.
    fn find_attached(&mut self, images: &Images, pids: &[i32]) -> Result<()> {
        for &pid in pids {
            // A zombie has none.
            let Some(mut image) = Image::find(images, &format!("mm-{pid}.img"), Magic::Mm)? else {
                continue;
            };
            let memory: MmEntry = image.only_entry()?;
            let areas = memory.vmas.iter().filter(|area| area.status & IS_SEGMENT != 0);
            let attached: HashSet<u64> = areas.map(|area| area.shmid).collect();
            for segment in self.segments.iter_mut().filter(|segment| segment.removed) {
                let id = u64::from(segment.permissions.id.unsigned_abs());
                if attached.contains(&id) {
                    segment.attached.push(pid);
                }
            }
        }
        Ok(())
    }

    /// The least limits under which all the objects can be made, in the order of those of the dump.
    ///
    /// The latter may be lower: lowering a limit leaves what there is.
    #[must_use]
    pub fn needed_limits(&self) -> Vec<Limit> {
        let messages = self.queues.iter().flat_map(|queue| &queue.messages);
        let capacities =
            self.queues.iter().map(|it| u64::from(it.capacity).max(it.needed_capacity() as u64));
        let sets = self.semaphores.iter().map(|set| set.values.len() as u64);
        let sizes = self.segments.iter().map(|segment| segment.size);
        limits(
            [
                sets.clone().max().unwrap_or(0),
                sets.clone().sum(),
                0, // of operations in one call
                self.semaphores.len() as u64,
            ],
            [
                messages.map(|message| message.text.len() as u64).max().unwrap_or(0),
                capacities.max().unwrap_or(0),
                self.queues.len() as u64,
            ],
            [
                sizes.clone().max().unwrap_or(0),
                sizes.map(|size| size.div_ceil(PAGE_SIZE)).fold(0, u64::saturating_add),
                self.segments.len() as u64,
            ],
        )
    }
}

/// The limits that objects depend on.
///
/// Of what else CRIU writes, `auto_msgmni` does nothing since Linux 3.19; and where
/// `shm_rmid_forced` is set, a segment is gone as soon as no process has it attached.
fn dumped_limits(image: &Image, entry: IpcVarEntry) -> Result<Vec<Limit>> {
    let sem = <[u32; 4]>::try_from(entry.sem_ctls)
        .map_err(|sem| image.invalid(format!("{} limits of semaphores", sem.len())))?;
    let msg = [entry.msg_ctlmax, entry.msg_ctlmnb, entry.msg_ctlmni];
    let shm = [entry.shm_ctlmax, entry.shm_ctlall, entry.shm_ctlmni.into()];
    Ok(limits(sem.map(u64::from), msg.map(u64::from), shm))
}

/// Limits with these values, in the order in which CRIU writes them.
fn limits(sem: [u64; 4], msg: [u64; 3], shm: [u64; 3]) -> Vec<Limit> {
    let names = ["msgmax", "msgmnb", "msgmni", "shmmax", "shmall", "shmmni"];
    let others = names.into_iter().zip(msg.into_iter().chain(shm));
    let others = others.map(|(name, value)| Limit { name, values: vec![value] });
    std::iter::once(Limit { name: "sem", values: sem.into() }).chain(others).collect()
}

/// Checks that no other object of a kind has the id of one that was just read.
fn check_new(ids: &mut HashSet<i32>, image: &Image, permissions: Permissions) -> Result<()> {
    if ids.insert(permissions.id) {
        return Ok(());
    }
    Err(image.invalid(format!("id {} is there twice", permissions.id)))
}

fn queue(image: &mut Image, entry: &IpcMsgEntry) -> Result<MessageQueue> {
    let permissions = permissions(image, &entry.desc)?;
    let mut messages = Vec::new();
    for _ in 0..entry.qnum {
        let header: IpcMsg = image.entry()?;
        let kind = i64::try_from(header.mtype).ok().filter(|&kind| kind > 0);
        let Some(kind) = kind else {
            return Err(image.invalid(format!("a message of type {}", header.mtype)));
        };
        if header.msize > MAX_MESSAGE {
            return Err(image.invalid(format!("a message of {} bytes", header.msize)));
        }
        messages.push(Message { kind, text: image.data(header.msize.into(), 8)? });
    }
    Ok(MessageQueue { permissions, capacity: entry.qbytes, messages })
}

fn semaphore_set(image: &mut Image, entry: &IpcSemEntry) -> Result<SemaphoreSet> {
    let permissions = permissions(image, &entry.desc)?;
    let values = image.data(2 * u64::from(entry.nsems), 8)?;
    let values = values.chunks_exact(2).map(|value| u16::from_le_bytes([value[0], value[1]]));
    let values: Vec<u16> = values.collect();
    if values.is_empty() {
        return Err(image.invalid(format!("set {} has no semaphores", permissions.id)));
    }
    if let Some(value) = values.iter().find(|&&value| value > MAX_VALUE) {
        return Err(image.invalid(format!("set {} has the value {value}", permissions.id)));
    }
    Ok(SemaphoreSet { permissions, values })
}

fn segment(images: &Images, name: &str, image: &mut Image, entry: &IpcShmEntry) -> Result<Segment> {
    let permissions = permissions(image, &entry.desc)?;
    let contents = if entry.in_pagemaps() {
        Contents::paged(images, permissions.id, entry.size)?
    } else {
        let padded = entry.size.checked_next_multiple_of(4).unwrap_or(u64::MAX);
        let offset = image.skip(padded)?;
        Contents::inline(images, name.to_owned(), offset, entry.size)
    };
    let Ok(huge_pages) = i32::try_from(entry.hugetlb_flag()) else {
        return Err(image.invalid("huge page flags of no kind"));
    };
    let removed = entry.desc.mode & REMOVED != 0;
    let attached = Vec::new();
    Ok(Segment { permissions, size: entry.size, huge_pages, removed, attached, contents })
}

fn permissions(image: &Image, entry: &IpcDescEntry) -> Result<Permissions> {
    let Ok(id) = i32::try_from(entry.id) else {
        return Err(image.invalid(format!("id {}, which is beyond int", entry.id)));
    };
    let mode = u16::try_from(entry.mode & 0o777).expect("it has 9 bits");
    let key = i32::from_ne_bytes(entry.key.to_ne_bytes());
    Ok(Permissions { id, key, uid: entry.uid, gid: entry.gid, mode })
}
