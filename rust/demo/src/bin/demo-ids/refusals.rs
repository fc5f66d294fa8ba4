// SPDX-License-Identifier: GPL-2.0

//! Requests that must be refused, and what is armed after each.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};

use anyhow::{Result, bail};
use demo::{Row, print_table, print_title};
use nextid::{IPC_PRIVATE, Ids, MessageQueue, NextId, Pids, ipc_id};
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, Uid, fork, pause, setresuid};

use crate::create::NOBODY;

/// A pid that is free on most systems.
const PID: i64 = 9242;

/// More than pid namespaces can be nested: 32 in the initial one.
const TOO_MANY_LEVELS: i64 = 34;

/// Makes all requests, prints them, and returns how many did not end as they must.
pub fn run() -> Result<usize> {
    // In a process of its own, since the last requests are made without privilege.
    // SAFETY: This program has no other thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => match waitpid(child, None)? {
            WaitStatus::Exited(_, failed) => Ok(usize::try_from(failed)?),
            status => bail!("the process that makes forbidden requests: {status:?}"),
        },
        ForkResult::Child => {
            let failed = request_all().unwrap_or_else(|error| {
                anstream::eprintln!("demo-ids: {error:#}");
                1
            });
            // SAFETY: It has no preconditions.
            unsafe { libc::_exit(i32::try_from(failed).unwrap_or(1)) }
        }
    }
}

fn request_all() -> Result<usize> {
    unshare(CloneFlags::CLONE_NEWIPC)?;
    // The library would refuse what the kernel is to refuse here.
    let file = OpenOptions::new().write(true).open("/proc/thread-self/next_id")?;
    let mut requests = Requests { next: NextId::open()?, file, rows: Vec::new() };

    let holder = requests.next.arm(Pids(&[PID]))?.fork(|| {
        // It is not to outlive a request that fails.
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        pause();
        0
    })?;
    requests.make("fork, the pid in use", &[PID], fork_and_wait, Err(Errno::EBUSY))?;
    kill(Pid::from_raw(holder.pid()), Signal::SIGKILL)?;
    holder.wait()?;
    requests.create("  and once it is free", &[PID], fork_and_wait, Ok(()))?;

    let pid_max: i64 = fs::read_to_string("/proc/sys/kernel/pid_max")?.trim().parse()?;
    requests.make("fork, below the range", &[0], fork_and_wait, Err(Errno::EINVAL))?;
    requests.make("fork, pid_max", &[pid_max], fork_and_wait, Err(Errno::EINVAL))?;
    let ids: Vec<i64> = (1..=TOO_MANY_LEVELS).map(|level| PID + level).collect();
    requests.make("fork, too many levels", &ids, fork_and_wait, Err(Errno::EINVAL))?;

    requests.next.arm(MessageQueue(ipc_id(7, 21)))?.create(IPC_PRIVATE, 0o600)?;
    requests.make("msgget, the index in use", &[ipc_id(8, 21)], msgget, Err(Errno::EBUSY))?;
    requests.make("msgget, below the range", &[-1], msgget, Err(Errno::EINVAL))?;
    requests.make("msgget, two ids", &[22, 23], msgget, Err(Errno::EINVAL))?;

    // What was armed with the privilege cannot be used without it, and nothing else be armed.
    requests.arm(&[PID])?;
    let nobody = Uid::from(NOBODY);
    setresuid(nobody, nobody, nobody)?;
    // Else what is armed could not be read.
    prctl::set_dumpable(true)?;
    requests.create("fork, no capability", &[PID], fork_and_wait, Err(Errno::EPERM))?;
    let armed = requests
        .arm(&[PID + 1])
        .map_err(|error| error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw));
    requests.record("arm, no capability", &[PID + 1], armed, Err(Errno::EPERM), &[PID])?;

    let headers = ["request", "asked for", "answer", "still armed"];
    print_title("Refused: what cannot be had as asked");
    print_table(headers, 2, &requests.rows);
    Ok(requests.rows.iter().filter(|row| !row.good).count())
}

/// The requests that were made.
struct Requests {
    next: NextId,
    file: File,
    rows: Vec<Row<4>>,
}

impl Requests {
    /// Arms `ids` for whatever object comes next.
    fn arm(&mut self, ids: &[i64]) -> io::Result<()> {
        let list: Vec<String> = ids.iter().map(i64::to_string).collect();
        self.file.write_all(format!("LONG{} {}", ids.len(), list.join(" ")).as_bytes())
    }

    /// Arms `ids` and lets `create` use them.
    fn make(
        &mut self,
        label: &str,
        ids: &[i64],
        create: fn() -> nix::Result<()>,
        expected: nix::Result<()>,
    ) -> Result<()> {
        self.arm(ids)?;
        self.create(label, ids, create, expected)
    }

    /// Lets `create` use `ids`, which are armed.
    fn create(
        &mut self,
        label: &str,
        ids: &[i64],
        create: fn() -> nix::Result<()>,
        expected: nix::Result<()>,
    ) -> Result<()> {
        // Ids are used up by what was created, and by nothing else.
        let left = if expected.is_ok() { &[] } else { ids };
        self.record(label, ids, create(), expected, left)
    }

    /// Records an answer, with what is armed now.
    fn record(
        &mut self,
        label: &str,
        ids: &[i64],
        answer: nix::Result<()>,
        expected: nix::Result<()>,
        left: &[i64],
    ) -> Result<()> {
        let armed = self.next.armed()?.map(|armed| armed.ids);
        let answer_text = match answer {
            Ok(()) => "created".to_owned(),
            Err(errno) => format!("{errno:?}, {}", errno.desc().to_lowercase()),
        };
        let armed_text = armed.as_ref().map_or("nothing".to_owned(), Ids::to_string);
        self.rows.push(Row {
            good: answer == expected && armed.as_deref().unwrap_or_default() == left,
            cells: [label.to_owned(), Ids::from(ids).to_string(), answer_text, armed_text],
        });
        Ok(())
    }
}

fn fork_and_wait() -> nix::Result<()> {
    // SAFETY: This program has no other thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => waitpid(child, None).map(drop),
        // SAFETY: It has no preconditions.
        ForkResult::Child => unsafe { libc::_exit(0) },
    }
}

fn msgget() -> nix::Result<()> {
    // SAFETY: No pointer is passed.
    Errno::result(unsafe { libc::msgget(IPC_PRIVATE, 0o600) }).map(drop)
}
