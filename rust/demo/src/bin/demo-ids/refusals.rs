// SPDX-License-Identifier: GPL-2.0

//! Requests that must be refused, and what is armed after each.

use std::fs::{self, File, OpenOptions};

use anyhow::{Result, bail};
use demo::{Row, print_table, print_title};
use nextid::{IPC_PRIVATE, Ids, MessageQueue, NextId, Pids, ipc_id};
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, Uid, fork, pause, setresuid, write};

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
    let mut requests = Requests::new()?;

    let holder = requests.next.arm(Pids(&[PID]))?.fork(|| {
        // It is not to outlive a request that fails.
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        pause();
        0
    })?;
    requests.arm(&[PID])?;
    requests.record("fork, the pid in use", fork_and_wait(), Err(Errno::EBUSY))?;
    kill(Pid::from_raw(holder.pid()), Signal::SIGKILL)?;
    holder.wait()?;
    requests.record("  and once it is free", fork_and_wait(), Ok(()))?;

    let pid_max: i64 = fs::read_to_string("/proc/sys/kernel/pid_max")?.trim().parse()?;
    requests.arm(&[0])?;
    requests.record("fork, below the range", fork_and_wait(), Err(Errno::EINVAL))?;
    requests.arm(&[pid_max])?;
    requests.record("fork, pid_max", fork_and_wait(), Err(Errno::EINVAL))?;
    requests.arm(&(1..=TOO_MANY_LEVELS).map(|level| PID + level).collect::<Vec<_>>())?;
    requests.record("fork, too many levels", fork_and_wait(), Err(Errno::EINVAL))?;

    requests.next.arm(MessageQueue(ipc_id(7, 21)))?.create(IPC_PRIVATE, 0o600)?;
    requests.arm(&[ipc_id(8, 21)])?;
    requests.record("msgget, the index in use", msgget(), Err(Errno::EBUSY))?;
    requests.arm(&[-1])?;
    requests.record("msgget, below the range", msgget(), Err(Errno::EINVAL))?;
    requests.arm(&[22, 23])?;
    requests.record("msgget, two ids", msgget(), Err(Errno::EINVAL))?;

    // What was armed with the privilege cannot be used without it, and nothing else be armed.
    requests.arm(&[PID])?;
    let nobody = Uid::from(NOBODY);
    setresuid(nobody, nobody, nobody)?;
    // Else what is armed could not be read.
    prctl::set_dumpable(true)?;
    requests.record("fork, no capability", fork_and_wait(), Err(Errno::EPERM))?;
    let armed = requests.arm(&[PID + 1]);
    requests.record("arm, no capability", armed, Err(Errno::EPERM))?;

    let headers = ["request", "asked for", "answer", "still armed"];
    print_title("Refused: what cannot be had as asked");
    print_table(headers, 2, &requests.rows);
    Ok(requests.rows.iter().filter(|row| !row.good).count())
}

/// The requests that were made.
struct Requests {
    next: NextId,
    file: File,
    /// What was asked for last.
    asked: Vec<i64>,
    /// What has to be armed.
    armed: Vec<i64>,
    rows: Vec<Row<4>>,
}

impl Requests {
    fn new() -> Result<Self> {
        Ok(Self {
            next: NextId::open()?,
            // The library would refuse what the kernel is to refuse here.
            file: OpenOptions::new().write(true).open("/proc/thread-self/next_id")?,
            asked: Vec::new(),
            armed: Vec::new(),
            rows: Vec::new(),
        })
    }

    /// Arms `ids` for whatever object comes next.
    fn arm(&mut self, ids: &[i64]) -> nix::Result<()> {
        ids.clone_into(&mut self.asked);
        let list: Vec<String> = ids.iter().map(i64::to_string).collect();
        write(&self.file, format!("LONG{} {}", ids.len(), list.join(" ")).as_bytes())?;
        ids.clone_into(&mut self.armed);
        Ok(())
    }

    /// Records the answer to what was asked for last, with what is armed now.
    fn record(
        &mut self,
        label: &str,
        answer: nix::Result<()>,
        expected: nix::Result<()>,
    ) -> Result<()> {
        if expected.is_ok() {
            // Ids are used up by what was created, and by nothing else.
            self.armed.clear();
        }
        let armed = self.next.armed()?.map(|armed| armed.ids);
        let answer_text = match answer {
            Ok(()) => "created".to_owned(),
            Err(errno) => format!("{errno:?}, {}", errno.desc().to_lowercase()),
        };
        let armed_text = armed.as_ref().map_or("nothing".to_owned(), Ids::to_string);
        self.rows.push(Row {
            good: answer == expected && armed.as_deref().unwrap_or_default() == self.armed,
            cells: [label.to_owned(), Ids::from(&*self.asked).to_string(), answer_text, armed_text],
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
