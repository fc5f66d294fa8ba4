// SPDX-License-Identifier: GPL-2.0

//! Threads that only sleep.

use std::ffi::{CString, c_int, c_void};
use std::ptr;
use std::sync::mpsc;
use std::thread::{self, Builder};

use anyhow::{Context, Result, ensure};
use criu_images::Thread;
use nextid::{Method, NextId, Pids};
use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;

/// Creates a thread with its name and with `ids`, its own first.
pub fn create(next: &mut NextId, thread: &Thread, ids: &[i64]) -> Result<()> {
    let name = CString::new(&*thread.name)?;
    if next.method() != Method::Fallback && is_clone3_refused() {
        return clone(next, thread.tid, ids, name);
    }
    let (sender, receiver) = mpsc::channel();
    next.arm(Pids(ids))?.thread(Builder::new(), move || {
        // It is waited for.
        let _ = sender.send(prctl::set_name(&name));
        loop {
            thread::park();
        }
    })?;
    Ok(receiver.recv()??)
}

/// Whether clone3(2), by which the C library makes threads, is refused with another error than that
/// it is not there: by a seccomp filter, as containers have them.
fn is_clone3_refused() -> bool {
    // SAFETY: No pointer is passed, and nothing is created for a structure without size.
    let created = unsafe { libc::syscall(libc::SYS_clone3, ptr::null::<u8>(), 0) };
    !matches!(Errno::result(created), Err(Errno::EINVAL | Errno::ENOSYS))
}

/// Creates it by clone(2). It has no thread-local memory of its own, and so makes system calls
/// only.
fn clone(next: &mut NextId, tid: i32, ids: &[i64], name: CString) -> Result<()> {
    const STACK: usize = 16 << 10;

    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM;
    // Both are the thread's for good.
    let stack = vec![0_u128; STACK / size_of::<u128>()].leak();
    let name = name.into_raw();
    let armed = next.arm(Pids(ids))?;
    // SAFETY: The stack is large enough for a few calls, and grows down from its end.
    let created = unsafe {
        libc::clone(sleep, stack.as_mut_ptr_range().end.cast(), flags, name.cast::<c_void>())
    };
    drop(armed);
    let created = Errno::result(created).with_context(|| format!("cannot create thread {tid}"))?;
    ensure!(created == tid, "a thread came out as {created}, not {tid}");
    Ok(())
}

/// The life of such a thread, whose name is given.
extern "C" fn sleep(name: *mut c_void) -> c_int {
    let nothing = ptr::null::<u8>();
    // SAFETY: The name ends with a zero byte, and stays. Without files and without a limit,
    // ppoll(2) waits for good.
    unsafe {
        libc::syscall(libc::SYS_prctl, libc::PR_SET_NAME, name, 0, 0, 0);
        loop {
            libc::syscall(libc::SYS_ppoll, nothing, 0, nothing, nothing, 0);
        }
    }
}
