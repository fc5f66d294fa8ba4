// SPDX-License-Identifier: GPL-2.0

//! The System V IPC objects of a dump, with their contents.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ptr;

use anyhow::{Context, Result};
use criu_images::{Ipc, Limit, MessageQueue, Permissions, Segment, SemaphoreSet};
use nextid::{IpcKind, NextId};
use nix::errno::Errno;
use nix::libc::{self, c_int, c_void};

use crate::failure::{self, Failure};

/// Which IPC namespace objects are made in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// One of their own.
    New,
    /// The one that this process is in, which others use, too.
    Current,
}

/// Objects that were made; those in a namespace that others use are removed unless they are kept.
pub struct Objects<'a> {
    removed_on_drop: Vec<(IpcKind, i32)>,
    /// What processes inherit.
    pub attachments: Vec<Attachment<'a>>,
}

impl Objects<'_> {
    /// No objects.
    pub fn none() -> Self {
        Self { removed_on_drop: Vec::new(), attachments: Vec::new() }
    }

    /// Lets them stay.
    pub fn keep(mut self) {
        self.removed_on_drop.clear();
        for attachment in &self.attachments {
            attachment.detach();
        }
    }
}

impl Drop for Objects<'_> {
    fn drop(&mut self) {
        for (kind, id) in self.removed_on_drop.drain(..).rev() {
            // There is nobody left to tell of an error.
            let _ = kind.remove(id);
        }
    }
}

/// A segment that is marked for removal, and goes with the last process that has it attached. So
/// this process keeps it attached, and its children inherit that.
pub struct Attachment<'a> {
    segment: &'a Segment,
    memory: *mut c_void,
}

impl Attachment<'_> {
    /// Detaches the segment from this process, unless the process with this id had it attached when
    /// it was dumped. Where the dump does not tell who had, the first process has.
    pub fn leave_to(&self, pid: i32, is_first: bool) {
        let attached = &self.segment.attached;
        let had_it = if attached.is_empty() { is_first } else { attached.contains(&pid) };
        if !had_it {
            self.detach();
        }
    }

    fn detach(&self) {
        // SAFETY: It was attached there, and nothing refers to it.
        unsafe { libc::shmdt(self.memory) };
    }
}

/// Creates all objects of `ipc`, sets the limits of a new namespace, and calls `progress` after
/// each object.
pub fn restore<'a>(
    next: &mut NextId,
    ipc: &'a Ipc,
    place: Place,
    progress: impl Fn(),
) -> Result<Objects<'a>> {
    let is_new = place == Place::New;
    for (dumped, needed) in ipc.limits.iter().zip(&ipc.needed_limits()).filter(|_| is_new) {
        set_limit(dumped, u64::max)?;
        set_limit(needed, u64::max)?;
    }
    let mut objects = Objects::none();
    let made = |objects: &mut Objects, kind, permissions: &Permissions| {
        if !is_new {
            objects.removed_on_drop.push((kind, permissions.id));
        }
    };
    for queue in &ipc.queues {
        create_queue(next, queue)?;
        made(&mut objects, IpcKind::MessageQueue, &queue.permissions);
        fill_queue(queue)?;
        progress();
    }
    for set in &ipc.semaphores {
        create_semaphores(next, set)?;
        made(&mut objects, IpcKind::SemaphoreSet, &set.permissions);
        set_semaphores(set)?;
        progress();
    }
    for segment in &ipc.segments {
        create_segment(next, segment)?;
        made(&mut objects, IpcKind::SharedMemory, &segment.permissions);
        objects.attachments.extend(fill_segment(segment)?);
        progress();
    }
    for limit in ipc.limits.iter().filter(|_| is_new) {
        set_limit(limit, |to, _| to)?;
    }
    Ok(objects)
}

/// All objects of `ipc`: their kinds, and what they have in common.
pub fn objects(ipc: &Ipc) -> impl Iterator<Item = (IpcKind, Permissions)> {
    let queues = ipc.queues.iter().map(|it| (IpcKind::MessageQueue, it.permissions));
    let sets = ipc.semaphores.iter().map(|it| (IpcKind::SemaphoreSet, it.permissions));
    let segments = ipc.segments.iter().map(|it| (IpcKind::SharedMemory, it.permissions));
    queues.chain(sets).chain(segments)
}

/// The limits of the current namespace that do not allow for the objects of `ipc` in addition to
/// those that are there.
pub fn exceeded_limits(ipc: &Ipc) -> Result<Vec<Failure>> {
    let queues = List::read(IpcKind::MessageQueue)?;
    let (sets, segments) = (List::read(IpcKind::SemaphoreSet)?, List::read(IpcKind::SharedMemory)?);
    let pages = segments.column("size").map(|size| size.div_ceil(criu_images::PAGE_SIZE)).sum();
    let mut exceeded = Vec::new();
    for Limit { name, values } in ipc.needed_limits() {
        // What is limited for all objects together; all else is limited for each.
        let used: Vec<u64> = match name {
            "sem" => vec![0, sets.column("nsems").sum(), 0, sets.count()],
            "msgmni" => vec![queues.count()],
            "shmall" => vec![pages],
            "shmmni" => vec![segments.count()],
            _ => vec![0],
        };
        let needed: Vec<u64> =
            values.iter().zip(&used).map(|(needed, used)| needed.saturating_add(*used)).collect();
        let now = limit_here(name)?;
        if needed.iter().zip(&now).any(|(needed, now)| needed > now) {
            let text =
                |values: &[u64]| values.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
            exceeded.push(Failure {
                status: failure::OUT_OF_RANGE,
                text: format!(
                    "kernel.{name} is {} in this IPC namespace, and {} is needed: raise it",
                    text(&now),
                    text(&needed)
                ),
            });
        }
    }
    Ok(exceeded)
}

/// The keys of `ipc` that objects in the current namespace have.
pub fn keys_in_use(ipc: &Ipc) -> Result<Option<Failure>> {
    let mut used = HashMap::new();
    for kind in IpcKind::ALL {
        used.extend(List::read(kind)?.keys().map(|(key, id)| ((kind, key), id)));
    }
    let has_key = |(kind, it): (IpcKind, Permissions)| {
        let id = used.get(&(kind, it.key)).filter(|_| it.key != 0)?;
        Some(format!("\n  {:#010x} is the key of {kind} {id}", it.key))
    };
    let taken: String = objects(ipc).filter_map(has_key).collect();
    Ok((!taken.is_empty()).then(|| Failure {
        status: failure::IN_USE,
        text: format!("keys are in use, and nothing was made:{taken}"),
    }))
}

/// Whether the current namespace removes segments as soon as no process has them attached, so that
/// they would be gone before anything can attach them.
pub fn forced_removal(ipc: &Ipc) -> Result<Option<Failure>> {
    const NAME: &str = "shm_rmid_forced";

    let has_segments = ipc.segments.iter().any(|segment| !segment.removed);
    if !has_segments || limit_here(NAME)? == [0] {
        return Ok(None);
    }
    let text = format!(
        "kernel.{NAME} is set in this IPC namespace, where a segment is gone when no process has it \
         attached: set it to 0"
    );
    Ok(Some(Failure::new(failure::OTHER, text)))
}

/// The objects of a kind in the current namespace.
struct List {
    /// The names of the columns, and then the lines.
    text: String,
}

impl List {
    fn read(kind: IpcKind) -> Result<Self> {
        let path = kind.list();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        Ok(Self { text })
    }

    fn count(&self) -> u64 {
        self.text.lines().skip(1).count() as u64
    }

    /// What is in the column with this name.
    fn column(&self, name: &str) -> impl Iterator<Item = u64> {
        let names = self.text.lines().next().unwrap_or_default();
        let place = names.split_whitespace().position(|it| it == name);
        let lines = self.text.lines().skip(1);
        lines.filter_map(move |line| line.split_whitespace().nth(place?)?.parse().ok())
    }

    /// The key and the id of each.
    fn keys(&self) -> impl Iterator<Item = (i32, i32)> {
        self.text.lines().skip(1).filter_map(|line| {
            let mut fields = line.split_whitespace().map(str::parse);
            Some((fields.next()?.ok()?, fields.next()?.ok()?))
        })
    }
}

/// Sets a limit to what `choose` makes of each of its values, as given and as they are here. One
/// that stays the same needs no privilege, nor a `/proc/sys` that can be written.
fn set_limit(limit: &Limit, choose: fn(u64, u64) -> u64) -> Result<()> {
    let name = limit.name;
    let now = limit_here(name)?;
    let values: Vec<u64> =
        limit.values.iter().zip(&now).map(|(&to, &now)| choose(to, now)).collect();
    if values == now {
        return Ok(());
    }
    let values = values.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    fs::write(limit_file(name), &values)
        .with_context(|| format!("cannot set kernel.{name} to {values}"))
}

fn limit_file(name: &str) -> String {
    format!("/proc/sys/kernel/{name}")
}

/// The values of a limit in the current namespace.
fn limit_here(name: &str) -> Result<Vec<u64>> {
    let now = fs::read_to_string(limit_file(name));
    let now = now.with_context(|| format!("cannot read kernel.{name}"))?;
    let now = now.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>();
    now.with_context(|| format!("kernel.{name} is no number"))
}

fn create_queue(next: &mut NextId, queue: &MessageQueue) -> Result<()> {
    let Permissions { id, key, mode, .. } = queue.permissions;
    next.arm(nextid::MessageQueue(id.into()))?.create(key, mode)?;
    Ok(())
}

/// Gives a queue its owner, its capacity and its messages.
fn fill_queue(queue: &MessageQueue) -> Result<()> {
    let id = queue.permissions.id;
    // SAFETY: All-zero bytes are a valid `msqid_ds`.
    let mut state: libc::msqid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is valid to be filled.
    checked(unsafe { libc::msgctl(id, libc::IPC_STAT, &raw mut state) }, "look at queue", id)?;
    own(&mut state.msg_perm, &queue.permissions);
    let mut set_up = |capacity| {
        state.msg_qbytes = capacity;
        // SAFETY: `state` is valid.
        checked(unsafe { libc::msgctl(id, libc::IPC_SET, &raw mut state) }, "set up queue", id)
    };
    let capacity = queue.capacity.into();
    let needed = queue.needed_capacity() as libc::msglen_t;
    set_up(needed.max(capacity))?;

    for message in &queue.messages {
        // A `msgbuf`: the type, and the text right after it.
        let mut buffer = libc::c_long::from(message.kind).to_ne_bytes().to_vec();
        buffer.extend_from_slice(&message.text);
        // SAFETY: `buffer` has the type, and as many bytes of text as are told.
        let sent = unsafe {
            libc::msgsnd(id, buffer.as_ptr().cast(), message.text.len(), libc::IPC_NOWAIT)
        };
        checked(sent, "send a message to queue", id)?;
    }
    if needed > capacity { set_up(capacity) } else { Ok(()) }
}

fn create_semaphores(next: &mut NextId, set: &SemaphoreSet) -> Result<()> {
    let Permissions { id, key, mode, .. } = set.permissions;
    let count = u16::try_from(set.values.len()).map_err(|_| {
        Failure::not_understood(format!("set {id} has {} semaphores", set.values.len()))
    })?;
    next.arm(nextid::SemaphoreSet(id.into()))?.create(key, count, mode)?;
    Ok(())
}

/// Gives a set its owner and its values.
fn set_semaphores(set: &SemaphoreSet) -> Result<()> {
    let id = set.permissions.id;
    // SAFETY: All-zero bytes are a valid `semid_ds`.
    let mut state: libc::semid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is valid to be filled.
    let stat = unsafe { libc::semctl(id, 0, libc::IPC_STAT, &raw mut state) };
    checked(stat, "look at semaphore set", id)?;
    own(&mut state.sem_perm, &set.permissions);
    // SAFETY: `state` is valid.
    let own = unsafe { libc::semctl(id, 0, libc::IPC_SET, &raw mut state) };
    checked(own, "set up semaphore set", id)?;
    // SAFETY: There are as many values as semaphores.
    let values = unsafe { libc::semctl(id, 0, libc::SETALL, set.values.as_ptr()) };
    checked(values, "set the values of semaphore set", id)
}

fn create_segment(next: &mut NextId, segment: &Segment) -> Result<()> {
    let Permissions { id, key, mode, .. } = segment.permissions;
    let size = usize::try_from(segment.size)?;
    let armed = next.arm(nextid::SharedMemory(id.into()))?;
    if segment.huge_pages == 0 {
        armed.create(key, size, mode)?;
    } else {
        armed
            .create_with_flags(key, size, mode, segment.huge_pages)
            .with_context(|| format!("segment {id} has huge pages"))?;
    }
    Ok(())
}

/// Gives a segment its owner and its contents. One that is marked for removal is left attached.
fn fill_segment(segment: &Segment) -> Result<Option<Attachment<'_>>> {
    let id = segment.permissions.id;
    let size = usize::try_from(segment.size)?;
    // SAFETY: All-zero bytes are a valid `shmid_ds`.
    let mut state: libc::shmid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is valid to be filled.
    checked(unsafe { libc::shmctl(id, libc::IPC_STAT, &raw mut state) }, "look at segment", id)?;
    own(&mut state.shm_perm, &segment.permissions);
    // SAFETY: `state` is valid.
    checked(unsafe { libc::shmctl(id, libc::IPC_SET, &raw mut state) }, "set up segment", id)?;

    // SAFETY: The kernel chooses a place where nothing is.
    let memory = unsafe { libc::shmat(id, ptr::null(), 0) };
    if memory as isize == -1 {
        return Err(io::Error::last_os_error()).context(format!("cannot attach segment {id}"));
    }
    let attachment = Attachment { segment, memory };
    // SAFETY: The segment has `size` bytes, and nobody else uses it: it is new.
    let result = segment.read_into(unsafe { std::slice::from_raw_parts_mut(memory.cast(), size) });
    if segment.removed && result.is_ok() {
        IpcKind::SharedMemory
            .remove(id)
            .with_context(|| format!("cannot mark segment {id} for removal"))?;
        return Ok(Some(attachment));
    }
    attachment.detach();
    result?;
    Ok(None)
}

/// Sets the owner and the permission bits.
fn own(state: &mut libc::ipc_perm, permissions: &Permissions) {
    state.uid = permissions.uid;
    state.gid = permissions.gid;
    // It has more bits on some machines.
    #[allow(clippy::useless_conversion)]
    let mode = permissions.mode.into();
    state.mode = mode;
}

fn checked(result: c_int, what: &str, id: i32) -> Result<()> {
    Errno::result(result).with_context(|| format!("cannot {what} {id}"))?;
    Ok(())
}
