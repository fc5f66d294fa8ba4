// SPDX-License-Identifier: GPL-2.0

//! Threads that only sleep.

use std::ffi::{CString, c_int, c_void};
use std::ptr;
use std::sync::mpsc;
use std::thread::{self, Builder};

use anyhow::Result;
use criu_images::Thread;
use nextid::{Method, NextId, Pids};
use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;

/// The stack of a thread, in units that are aligned as a stack must be.
const STACK: usize = (16 << 10) / size_of::<u128>();

/// Creates threads with their names, each with the ids that `ids_of` tells for its own, that first.
/// The calling thread gets the name of one of them.
pub fn create_all(
    next: &mut NextId,
    threads: &[Thread],
    ids_of: impl Fn(i32) -> Vec<i64>,
) -> Result<()> {
    if next.method() == Method::Fallback {
        let create = |thread: &Thread| create_by_library(next, thread, &ids_of(thread.tid));
        return threads.iter().try_for_each(create);
    }
    // They are the threads' for good.
    let stacks = vec![0_u128; STACK * threads.len()].leak();
    let mut name = None;
    for (thread, stack) in threads.iter().zip(stacks.chunks_exact_mut(STACK)) {
        // A thread inherits its name.
        if name != Some(&thread.name) {
            prctl::set_name(&CString::new(&*thread.name)?)?;
            name = Some(&thread.name);
        }
        clone(next, &ids_of(thread.tid), stack)?;
    }
    Ok(())
}

/// Creates a thread in one call, by clone(2): a seccomp filter may refuse clone3(2). It has no
/// thread-local memory of its own, and so makes system calls only.
fn clone(next: &mut NextId, ids: &[i64], stack: &mut [u128]) -> Result<()> {
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM;
    next.arm(Pids(ids))?.thread_by(|| {
        let top = stack.as_mut_ptr_range().end.cast();
        // SAFETY: The stack is large enough for a few calls, and grows down from its end. The
        // thread takes no argument.
        let created = unsafe { libc::clone(sleep, top, flags, ptr::null_mut()) };
        Ok(Errno::result(created)?)
    })?;
    Ok(())
}

/// The life of such a thread.
extern "C" fn sleep(_: *mut c_void) -> c_int {
    let nothing = ptr::null::<u8>();
    loop {
        // SAFETY: Without files and without a limit, ppoll(2) waits for good.
        unsafe { libc::syscall(libc::SYS_ppoll, nothing, 0, nothing, nothing, 0) };
    }
}

/// Creates a thread by the library, which knows what the kernel has in place of `next_id`.
fn create_by_library(next: &mut NextId, thread: &Thread, ids: &[i64]) -> Result<()> {
    let name = CString::new(&*thread.name)?;
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
