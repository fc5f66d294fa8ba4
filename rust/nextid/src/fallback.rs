// SPDX-License-Identifier: GPL-2.0

//! What kernels without `next_id` have. See [`crate::Method::Fallback`].
//!
//! Each function fails with the errno that `next_id` would give: `EBUSY` where the id is not to be
//! had, whoever has it.

use std::ffi::c_int;
use std::fs;
use std::io;
use std::panic::resume_unwind;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{ForkResult, Pid, gettid};

use crate::{Action, Id};

/// Forks a process with `ids`.
///
/// # Safety
///
/// As for `fork(2)`: only what is async-signal-safe may be done in the child of a process with
/// several threads.
pub unsafe fn fork(ids: &[Id]) -> nix::Result<ForkResult> {
    let tids = ids.iter().map(|&id| i32::try_from(id)).collect::<Result<Vec<_>, _>>();
    let tids = tids.map_err(|_| Errno::EINVAL)?;
    // SAFETY: All-zero bytes are a valid `clone_args`.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = libc::SIGCHLD as u64;
    args.set_tid = tids.as_ptr() as u64;
    args.set_tid_size = tids.len() as u64;
    // SAFETY: `args` is valid, and so is what it points to. No stack is given: it is a fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    match Errno::result(pid) {
        Ok(0) => Ok(ForkResult::Child),
        // The kernel's pids are ints.
        #[allow(clippy::cast_possible_truncation)]
        Ok(pid) => Ok(ForkResult::Parent { child: Pid::from_raw(pid as i32) }),
        Err(Errno::EEXIST) => Err(Errno::EBUSY),
        Err(errno) => Err(errno),
    }
}

/// Creates a thread with `id`.
pub fn thread<T, F>(id: Id, builder: Builder, run: F) -> io::Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    if id < 1 {
        return Err(Errno::EINVAL.into());
    }
    sysctl("ns_last_pid", id - 1)?;
    let (tell, told) = mpsc::channel();
    let thread = builder.spawn(move || {
        let right = Id::from(gettid().as_raw()) == id;
        // It is waited for.
        let _ = tell.send(right);
        if right { run() } else { resume_unwind(Box::new(())) }
    })?;
    if told.recv() == Ok(true) {
        return Ok(thread);
    }
    let _ = thread.join();
    Err(Errno::EBUSY.into())
}

/// Creates an object of System V IPC with `ids`, which can be but one.
pub fn ipc(action: Action, ids: &[Id], create: impl Fn() -> c_int) -> nix::Result<c_int> {
    let (Some(kind), &[wanted]) = (action.sysvipc(), ids) else {
        return Err(Errno::EINVAL);
    };
    let wanted = c_int::try_from(wanted).map_err(|_| Errno::EINVAL)?;
    sysctl(&format!("{kind}_next_id"), wanted.into())
        .map_err(|error| error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw))?;
    let id = Errno::result(create()).inspect_err(|_| use_up(action))?;
    if id == wanted {
        return Ok(id);
    }
    remove(action, id);
    Err(Errno::EBUSY)
}

/// Creates an object and removes it, which takes with it an id that a failed creation has left in
/// the sysctl: another task's next object would get it, and to write the sysctl cannot unset it.
/// In a namespace that is full it stays.
fn use_up(action: Action) {
    // SAFETY: No pointer is passed.
    let id = unsafe {
        match action {
            Action::MessageQueue => libc::msgget(libc::IPC_PRIVATE, 0),
            Action::SemaphoreSet => libc::semget(libc::IPC_PRIVATE, 1, 0),
            _ => libc::shmget(libc::IPC_PRIVATE, 1, 0),
        }
    };
    if id >= 0 {
        remove(action, id);
    }
}

fn remove(action: Action, id: c_int) {
    // SAFETY: IPC_RMID takes no pointer.
    unsafe {
        match action {
            Action::MessageQueue => libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()),
            Action::SemaphoreSet => libc::semctl(id, 0, libc::IPC_RMID),
            _ => libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()),
        };
    }
}

fn sysctl(name: &str, value: Id) -> io::Result<()> {
    let written = fs::write(format!("/proc/sys/kernel/{name}"), value.to_string());
    written.map_err(|error| match error.kind() {
        // It is for those who have the capability alone.
        io::ErrorKind::PermissionDenied => Errno::EPERM.into(),
        _ => error,
    })
}
