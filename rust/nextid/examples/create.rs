// SPDX-License-Identifier: GPL-2.0

//! Creates an object of each kind with an id that was chosen, and tells what came out.
//!
//! It takes root, and a kernel with `CONFIG_NEXT_ID`: `cargo run --example create`

use std::thread::Builder;

use nextid::{
    Error, IPC_PRIVATE, IpcKind, MessageQueue, NextId, Pids, Pty, SemaphoreSet, SharedMemory,
    ipc_id,
};

fn main() -> Result<(), Error> {
    // This thread's file. It is kept open: to arm is one system call.
    let mut next = NextId::open()?;

    let child = next.arm(Pids(&[4242]))?.fork(|| 0)?;
    println!("process {}", child.pid());
    child.wait()?;

    // Children come first: a process of several threads cannot fork safely.
    let thread = next.arm(Pids(&[4243]))?.thread(Builder::new(), || ())?;
    println!("thread 4243");
    thread.join().expect("it does not panic");

    let id = ipc_id(3, 9);
    let queue = next.arm(MessageQueue(id))?.create(IPC_PRIVATE, 0o600)?;
    let set = next.arm(SemaphoreSet(id))?.create(IPC_PRIVATE, 5, 0o600)?;
    let segment = next.arm(SharedMemory(id))?.create(IPC_PRIVATE, 4096, 0o600)?;
    let objects = [
        (IpcKind::MessageQueue, queue),
        (IpcKind::SemaphoreSet, set),
        (IpcKind::SharedMemory, segment),
    ];
    for (kind, id) in objects {
        println!("{kind} {id}");
        if let Err(error) = kind.remove(id) {
            eprintln!("cannot remove {kind} {id}: {error}");
        }
    }

    let _master = next.arm(Pty(42))?.open("/dev/ptmx")?;
    println!("/dev/pts/42");
    Ok(())
}
