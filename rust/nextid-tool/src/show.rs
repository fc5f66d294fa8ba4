// SPDX-License-Identifier: GPL-2.0

//! `nextid show`: what the threads of a process have armed.

use std::fmt;
use std::fs;

use anyhow::{Context, Result};
use nextid::{Ids, Pending};
use serde::Serialize;

use crate::report::printable;

#[derive(Serialize)]
pub struct Process {
    pid: i32,
    threads: Vec<Thread>,
}

#[derive(Serialize)]
struct Thread {
    tid: i32,
    name: String,
    armed: Option<Armed>,
}

/// What is armed.
#[derive(Serialize)]
struct Armed {
    /// The kernel's word for it.
    kind: &'static str,
    ids: Vec<i64>,
}

impl From<Pending> for Armed {
    fn from(pending: Pending) -> Self {
        Self { kind: pending.word(), ids: pending.ids.0 }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Thread { tid, name, armed } in &self.threads {
            let name = printable(name);
            match armed {
                Some(Armed { kind, ids }) => {
                    writeln!(f, "{tid} ({name}): {kind} {}", Ids::from(&**ids))?;
                }
                None => writeln!(f, "{tid} ({name}): nothing armed")?,
            }
        }
        Ok(())
    }
}

/// Looks at process `pid`.
pub fn show(pid: i32) -> Result<Process> {
    let mut threads = Vec::new();
    let folder = format!("/proc/{pid}/task");
    for entry in fs::read_dir(&folder).with_context(|| format!("no process {pid}: {folder}"))? {
        let path = entry?.path();
        let tid = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().parse()?;
        match thread(pid, tid) {
            // It has ended meanwhile.
            Err(_) if !path.exists() => {}
            shown => threads.push(shown?),
        }
    }
    threads.sort_by_key(|thread| thread.tid);
    Ok(Process { pid, threads })
}

fn thread(pid: i32, tid: i32) -> Result<Thread> {
    Ok(Thread { tid, name: name(pid, tid)?, armed: nextid::armed_by(pid, tid)?.map(Armed::from) })
}

/// The name of a thread. It need not be UTF-8: the kernel cuts it off after 15 bytes.
fn name(pid: i32, tid: i32) -> Result<String> {
    let comm = format!("/proc/{pid}/task/{tid}/comm");
    let name = fs::read(&comm).with_context(|| format!("cannot read {comm}"))?;
    Ok(String::from_utf8_lossy(&name).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use nix::unistd::{getpid, gettid};

    use super::*;

    #[test]
    fn a_name_that_is_cut_inside_a_character_is_shown() {
        fs::write("/proc/thread-self/comm", b"caf\xc3").expect("to write");
        let name = name(getpid().as_raw(), gettid().as_raw()).expect("to read");
        assert_eq!(name, "caf\u{fffd}");
    }
}
