// SPDX-License-Identifier: GPL-2.0

//! The System V IPC objects of a dump, with their contents.

use std::fs;
use std::io;
use std::ptr;

use anyhow::{Context, Result, ensure};
use criu_images::{Ipc, Limit, MessageQueue, Permissions, Segment, SemaphoreSet};
use nextid::NextId;
use nix::errno::Errno;
use nix::libc::{self, c_int};

use crate::failure::NotUnderstood;

/// Sets the limits of `ipc`, creates all its objects, and calls `progress` after each.
pub fn restore(next: &mut NextId, ipc: &Ipc, progress: impl Fn()) -> Result<()> {
    for (dumped, needed) in ipc.limits.iter().zip(&ipc.needed_limits()) {
        set_limit(dumped, u64::max)?;
        set_limit(needed, u64::max)?;
    }
    for queue in &ipc.queues {
        restore_queue(next, queue)?;
        progress();
    }
    for set in &ipc.semaphores {
        restore_semaphores(next, set)?;
        progress();
    }
    for segment in &ipc.segments {
        restore_segment(next, segment)?;
        progress();
    }
    for limit in &ipc.limits {
        set_limit(limit, |to, _| to)?;
    }
    Ok(())
}

/// Sets a limit to what `choose` makes of each of its values, as given and as they are here. One that
/// stays the same needs no privilege, nor a `/proc/sys` that can be written.
fn set_limit(limit: &Limit, choose: fn(u64, u64) -> u64) -> Result<()> {
    let name = limit.name;
    let path = format!("/proc/sys/kernel/{name}");
    let now = fs::read_to_string(&path).with_context(|| format!("cannot read kernel.{name}"))?;
    let now = now.split_whitespace().map(str::parse).collect::<Result<Vec<u64>, _>>();
    let now = now.with_context(|| format!("kernel.{name} is no number"))?;
    let values: Vec<u64> =
        limit.values.iter().zip(&now).map(|(&to, &now)| choose(to, now)).collect();
    if values == now {
        return Ok(());
    }
    let values = values.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    fs::write(path, &values).with_context(|| format!("cannot set kernel.{name} to {values}"))
}

fn restore_queue(next: &mut NextId, queue: &MessageQueue) -> Result<()> {
    let Permissions { id, key, mode, .. } = queue.permissions;
    next.arm(nextid::MessageQueue(id.into()))?.create(key, mode)?;

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

fn restore_semaphores(next: &mut NextId, set: &SemaphoreSet) -> Result<()> {
    let Permissions { id, key, mode, .. } = set.permissions;
    let count = u16::try_from(set.values.len())
        .map_err(|_| NotUnderstood(format!("set {id} has {} semaphores", set.values.len())))?;
    next.arm(nextid::SemaphoreSet(id.into()))?.create(key, count, mode)?;

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

fn restore_segment(next: &mut NextId, segment: &Segment) -> Result<()> {
    let Permissions { id, key, mode, .. } = segment.permissions;
    let size = usize::try_from(segment.size)?;
    ensure!(
        segment.huge_pages == 0,
        NotUnderstood(format!("segment {id} has huge pages, which this tool does not restore"))
    );
    next.arm(nextid::SharedMemory(id.into()))?.create(key, size, mode)?;

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
    // SAFETY: The segment has `size` bytes, and nobody else uses it: it is new.
    let result = segment.read_into(unsafe { std::slice::from_raw_parts_mut(memory.cast(), size) });
    // SAFETY: It is attached there, and the slice is gone.
    checked(unsafe { libc::shmdt(memory) }, "detach segment", id)?;
    Ok(result?)
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
