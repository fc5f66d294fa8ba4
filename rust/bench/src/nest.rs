// SPDX-License-Identifier: GPL-2.0

//! Running inside nested pid namespaces.

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Context, Result, anyhow};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pipe};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Runs `run` in a process of its own, in the innermost of `namespaces` new pid namespaces, each in
/// the one before.
pub fn nested<T: Serialize + DeserializeOwned>(
    namespaces: usize,
    run: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let (reader, writer) = pipe()?;
    // SAFETY: This process has no other thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(writer);
            let mut text = String::new();
            File::from(reader).read_to_string(&mut text)?;
            waitpid(child, None)?;
            let result: Result<T, String> =
                serde_json::from_str(&text).context("a process in a pid namespace died")?;
            result.map_err(|error| anyhow!("in {namespaces} nested pid namespaces: {error}"))
        }
        ForkResult::Child => {
            let result = enter(namespaces).and_then(|()| run());
            let text = serde_json::to_vec(&result.map_err(|error| format!("{error:#}")));
            // Without an answer, the parent says that this process died.
            let _ = text.map(|text| File::from(writer).write_all(&text));
            exit();
        }
    }
}

/// Returns in the innermost of `namespaces` new pid namespaces, as its first process.
fn enter(namespaces: usize) -> Result<()> {
    for _ in 0..namespaces {
        unshare(CloneFlags::CLONE_NEWPID).context("unshare(CLONE_NEWPID)")?;
        // SAFETY: This process has no other thread.
        if let ForkResult::Parent { child } = unsafe { fork() }? {
            waitpid(child, None)?;
            exit();
        }
    }
    Ok(())
}

/// Ends without what the parent would do at its own end.
fn exit() -> ! {
    // SAFETY: It has no preconditions.
    unsafe { libc::_exit(0) }
}
