// SPDX-License-Identifier: GPL-2.0

//! What kernels without `next_id` have. See [`crate::Method::Fallback`].
//!
//! Each function fails with the errno that `next_id` would give: `EBUSY` where the id is not to be
//! had, whoever has it.

use std::ffi::c_int;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::unistd::{ForkResult, Pid};

use crate::kind::IpcKind;

/// Forks a process with `ids`, in which what `pthread_atfork(3)` has registered does not run.
///
/// # Safety
///
/// As for `fork(2)`: only what is async-signal-safe may be done in the child of a process with
/// several threads.
pub unsafe fn fork(ids: &[i64]) -> io::Result<ForkResult> {
    let tids = ids.iter().map(|&id| i32::try_from(id)).collect::<Result<Vec<_>, _>>();
    let tids = tids.map_err(|_| Errno::EINVAL)?;
    // Where libc keeps the id of this thread. It is for the kernel to put the child's there.
    let mut own_tid = 0_u64;
    // SAFETY: `own_tid` is valid for the write of a pointer, which a kernel of 64 bits writes as
    // one of 64 even to a program of 32.
    let known = unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, &raw mut own_tid) };
    // It is EINVAL without CONFIG_CHECKPOINT_RESTORE, but it is not the ids that are wrong then.
    Errno::result(known).map_err(|_| Errno::ENOSYS)?;
    // SAFETY: All-zero bytes are a valid `clone_args`.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = libc::SIGCHLD as u64;
    args.flags = (libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID) as u64;
    args.child_tid = own_tid;
    args.set_tid = tids.as_ptr() as u64;
    args.set_tid_size = tids.len() as u64;
    // SAFETY: `args` is valid, and so is what it points to: libc's word for the id of the thread
    // lives as long as the thread. No stack is given: it is a fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    match Errno::result(pid) {
        Ok(0) => Ok(ForkResult::Child),
        // The kernel's pids are ints.
        #[allow(clippy::cast_possible_truncation)]
        Ok(pid) => Ok(ForkResult::Parent { child: Pid::from_raw(pid as i32) }),
        Err(Errno::EEXIST) => Err(Errno::EBUSY.into()),
        // No capability is missing then.
        Err(Errno::EPERM | Errno::ENOSYS) if !is_clone3_allowed() => Err(io::Error::other(
            "set_tid takes clone3(2), which a seccomp filter refuses, or this kernel does not have",
        )),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether `clone3(2)` is there, and no filter refuses it.
fn is_clone3_allowed() -> bool {
    // SAFETY: No pointer is passed, and nothing is created for a structure without size.
    let created = unsafe { libc::syscall(libc::SYS_clone3, ptr::null::<u8>(), 0) };
    Errno::result(created) == Err(Errno::EINVAL)
}

/// Keeps those who take the same lock from choosing the id of a thread, until it is dropped.
#[must_use]
pub struct ThreadTurn(#[expect(dead_code, reason = "it is held")] Flock<File>);

/// Has the next thread, or process, get `id`, if it is free and no other comes first. Waits for its
/// turn, which lasts until the thread is there: processes that create threads side by side would
/// use up what another wrote.
pub fn next_thread(id: i64) -> io::Result<ThreadTurn> {
    const PATH: &str = "/proc/sys/kernel/ns_last_pid";

    let pid_max = fs::read_to_string("/proc/sys/kernel/pid_max")?;
    if id < 1 || pid_max.trim().parse().is_ok_and(|pid_max: i64| id >= pid_max) {
        return Err(Errno::EINVAL.into());
    }
    let set = || {
        let file = File::options().write(true).open(PATH)?;
        let mut file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        file.write_all((id - 1).to_string().as_bytes())?;
        Ok(ThreadTurn(file))
    };
    set().map_err(|error| not_set(PATH, id - 1, error))
}

/// Creates an object of System V IPC with id `wanted`, by `create`.
pub fn ipc(
    kind: IpcKind,
    wanted: i64,
    create: impl Fn() -> io::Result<c_int>,
) -> io::Result<c_int> {
    sysctl(kind.next_id_sysctl(), wanted)?;
    let id = create().inspect_err(|_| use_up(kind))?;
    if i64::from(id) == wanted {
        return Ok(id);
    }
    kind.remove(id)?;
    Err(Errno::EBUSY.into())
}

/// Creates an object and removes it, which takes with it an id that a failed creation has left in
/// the sysctl: another task's next object would get it, and to write the sysctl cannot unset it.
/// In a namespace that is full it stays.
fn use_up(kind: IpcKind) {
    if let Ok(id) = kind.get(libc::IPC_PRIVATE, 1, 0) {
        // It is this process's own.
        let _ = kind.remove(id);
    }
}

fn sysctl(path: &str, value: i64) -> io::Result<()> {
    fs::write(path, value.to_string()).map_err(|error| not_set(path, value, error))
}

/// Why a sysctl is not set, which failed with `error`.
fn not_set(path: &str, value: i64, error: io::Error) -> io::Error {
    match error.kind() {
        // It is for those who have the capability alone.
        io::ErrorKind::PermissionDenied => Errno::EPERM.into(),
        io::ErrorKind::InvalidInput => error,
        kind => io::Error::new(kind, format!("cannot write {value} to {path}: {error}")),
    }
}
