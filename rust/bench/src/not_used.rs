// SPDX-License-Identifier: GPL-2.0

//! What `next_id` costs those who do not use it.

use std::ffi::CString;
use std::fs::{self, File};

use anyhow::{Context, Result, ensure};
use nextid::IpcKind;
use nix::errno::Errno;

use crate::data::Unit;
use crate::harness::{Competitor, Session};
use crate::keys::{Case, Group};
use crate::sys::{Child, create, fork, kill, list, stat, thread, wait};

/// Measures what any program does: to be compared between kernels. A round is one operation, so
/// that other work of the kernel is in some rounds only.
pub fn measure(session: &mut Session) -> Result<()> {
    let competitors = vec![
        Competitor::new(Case::Fork, || Ok(wait(fork(&[], Child::Exits)?)?)),
        Competitor::new(Case::Thread, || Ok(thread(&[]).map(drop)?)),
        Competitor::new(Case::Msgget, || ipc(IpcKind::MessageQueue)),
        Competitor::new(Case::Semget, || ipc(IpcKind::SemaphoreSet)),
        Competitor::new(Case::Shmget, || ipc(IpcKind::SharedMemory)),
        Competitor::new(Case::StatCached, || Ok(stat(c"/proc/self/stat")?)),
        lookup(Case::StatFirst, "task", Ok(())),
        lookup(Case::StatLast, "timerslack_ns", Ok(())),
        lookup(Case::StatNone, "none", Err(Errno::ENOENT)),
        Competitor::on(
            Case::ListProc,
            || {
                let pid = fork(&[], Child::Pauses)?;
                Ok((pid, File::open(format!("/proc/{pid}"))?))
            },
            |(_, directory)| list(directory).map(drop),
            |(pid, _)| Ok(kill(pid)?),
        ),
    ];
    session.compare(
        Group::NotUsed,
        None,
        competitors.into_iter().map(Competitor::singly).collect(),
    )?;
    let bytes = vec![task_struct()?];
    session.record_in(Unit::Bytes, Group::TaskStruct, Case::ObjectSize, None, bytes);
    Ok(())
}

fn ipc(kind: IpcKind) -> Result<()> {
    Ok(kind.remove(create(kind)?)?)
}

/// Looks `entry` up in the folder of a new process, of which nothing is in the cache yet.
fn lookup(case: Case, entry: &'static str, expected: Result<(), Errno>) -> Competitor<'static> {
    let prepare = move || {
        let pid = fork(&[], Child::Pauses)?;
        Ok((pid, CString::new(format!("/proc/{pid}/{entry}"))?))
    };
    let operation = move |(_, path): &(_, CString)| {
        let result = stat(path);
        ensure!(result == expected, "{}: {result:?}", path.to_string_lossy());
        Ok(())
    };
    Competitor::on(case, prepare, operation, |(pid, _)| Ok(kill(pid)?))
}

/// The size of the kernel's `task_struct`, in bytes.
fn task_struct() -> Result<f64> {
    const PATH: &str = "/sys/kernel/slab/task_struct/object_size";
    let size: u32 = fs::read_to_string(PATH).context(PATH)?.trim().parse().context(PATH)?;
    Ok(size.into())
}
