// SPDX-License-Identifier: GPL-2.0

//! What `next_id` costs those who do not use it.

use std::ffi::CString;
use std::fs::{self, File};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;

use crate::data::{Measurement, Unit};
use crate::harness::{Case, Session};
use crate::sys::{Child, Kind, fork, kill, list, stat, thread, wait};

/// Measures what any program does: to be compared between kernels. A round is one operation, so that
/// what the kernel does by the way is in some rounds only.
pub fn measure(session: &mut Session) -> Result<()> {
    let cases = vec![
        Case::new("fork, exit and wait", || Ok(wait(fork(&[], Child::Exits)?)?)),
        Case::new("thread", || Ok(thread(&[]).map(drop)?)),
        Case::new("msgget and remove", || ipc(Kind::Message)),
        Case::new("semget and remove", || ipc(Kind::Semaphore)),
        Case::new("shmget and remove", || ipc(Kind::Memory)),
        Case::new("stat of a cached entry of /proc/PID", || Ok(stat(c"/proc/self/stat")?)),
        lookup("first stat of the first entry of /proc/PID", "task", Ok(())),
        lookup("first stat of the last entry of /proc/PID", "timerslack_ns", Ok(())),
        lookup("stat of no entry of /proc/PID", "none", Err(Errno::ENOENT)),
        Case::on(
            "first list of /proc/PID",
            || {
                let pid = fork(&[], Child::Pauses)?;
                Ok((pid, File::open(format!("/proc/{pid}"))?))
            },
            |(_, directory)| list(directory).map(drop),
            |(pid, _)| Ok(kill(pid)?),
        ),
    ];
    session.compare("not used", None, cases.into_iter().map(Case::singly).collect())?;
    session.measurements.push(Measurement {
        group: "task_struct".to_owned(),
        case: "object size".to_owned(),
        size: None,
        unit: Unit::Bytes,
        rounds: vec![task_struct()?],
    });
    Ok(())
}

fn ipc(kind: Kind) -> Result<()> {
    Ok(kind.remove(kind.create()?)?)
}

/// Looks `entry` up in the folder of a new process, of which nothing is in the cache yet.
fn lookup(name: &'static str, entry: &'static str, expected: Result<(), Errno>) -> Case<'static> {
    let prepare = move || {
        let pid = fork(&[], Child::Pauses)?;
        Ok((pid, CString::new(format!("/proc/{pid}/{entry}"))?))
    };
    let operation = move |(_, path): &(_, CString)| {
        let result = stat(path);
        ensure!(result == expected, "{}: {result:?}", path.to_string_lossy());
        Ok(())
    };
    Case::on(name, prepare, operation, |(pid, _)| Ok(kill(pid)?))
}

/// The size of the kernel's `task_struct`, in bytes.
fn task_struct() -> Result<f64> {
    const PATH: &str = "/sys/kernel/slab/task_struct/object_size";
    let size: u32 = fs::read_to_string(PATH).context(PATH)?.trim().parse().context(PATH)?;
    Ok(size.into())
}
