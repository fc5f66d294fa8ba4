// SPDX-License-Identifier: GPL-2.0

//! Each allocation of a system call made to fail in turn, by `/proc/thread-self/fail-nth`: the call
//! either fails for want of memory, and what was armed stays so, or does all that it is to do.

use std::fmt;
use std::fs;
use std::os::fd::RawFd;
use std::thread::Builder;

use anyhow::{Context, Result, bail};
use nextid::IpcKind;
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};

use crate::file::{Ids, NextId, State, Word, read_other};
use crate::ktap::Ktap;
use crate::slab;
use crate::sys::{self, Creation};

/// What allocations fail: all that may wait as well, and of a single page too.
const SETTINGS: [(&str, &str); 5] = [
    ("failslab/ignore-gfp-wait", "N"),
    ("failslab/verbose", "0"),
    ("fail_page_alloc/ignore-gfp-wait", "N"),
    ("fail_page_alloc/min-order", "0"),
    ("fail_page_alloc/verbose", "0"),
];

/// More allocations than any of the calls makes.
const ENOUGH: u32 = 5000;

/// Objects by which a slab cache may grow over one call that fails in each of its allocations.
const OBJECTS_MORE: i64 = 16;

/// What is armed, or is to be, in two nested pid namespaces or for an IPC object.
const TASK: Ids = Ids::list(30_000, 2);
const OBJECT: Ids = Ids::list(3 << 15 | 9, 1);

#[derive(Clone, Copy)]
enum Call {
    /// Arm so many ids in place of `TASK`.
    Arm(usize),
    /// Open the file, and read so many ids.
    Read(usize),
    /// Open the file, reserve so many ids, and close it.
    Reserve(Word, usize),
    Process(Creation),
    Thread,
    Object(IpcKind),
}

const CALLS: [Call; 15] = [
    Call::Arm(1),
    Call::Arm(33),
    Call::Arm(5000),
    Call::Read(1),
    Call::Read(5000),
    Call::Reserve(Word::Pid, 1),
    Call::Reserve(Word::Pid, 5000),
    Call::Reserve(Word::Ipc(IpcKind::SharedMemory), 100),
    Call::Process(Creation::Fork),
    Call::Process(Creation::Vfork),
    Call::Process(Creation::Clone3),
    Call::Thread,
    Call::Object(IpcKind::MessageQueue),
    Call::Object(IpcKind::SemaphoreSet),
    Call::Object(IpcKind::SharedMemory),
];

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arm(count) => write!(f, "arm {count}"),
            Self::Read(count) => write!(f, "read {count}"),
            Self::Reserve(word, count) => write!(f, "reserve {count} {word:?}"),
            Self::Process(how) => write!(f, "{how:?}"),
            Self::Thread => write!(f, "thread"),
            Self::Object(kind) => write!(f, "{kind:?}"),
        }
    }
}

/// The calling thread's `fail-nth`.
struct FailNth(RawFd);

impl FailNth {
    fn open() -> Result<Self> {
        let flags = libc::O_RDWR | libc::O_CLOEXEC;
        let fd = sys::open(c"/proc/thread-self/fail-nth", flags).context(
            "cannot open /proc/thread-self/fail-nth: it takes a kernel that was built with \
                 --config faults",
        )?;
        Ok(Self(fd))
    }

    /// Makes the `nth` allocation from here on fail; none if 0.
    fn set(&self, nth: u32) -> Result<()> {
        sys::write(self.0, nth.to_string().as_bytes())?;
        Ok(())
    }

    /// Returns whether the allocation was reached, and lets all others succeed.
    fn take(&self) -> Result<bool> {
        let mut buffer = [0; 16];
        let len = sys::read(self.0, &mut buffer)?;
        let left: u32 = std::str::from_utf8(&buffer[..len])?.trim().parse()?;
        self.set(0)?;
        Ok(left == 0)
    }
}

/// Returns whether all is well.
pub fn run() -> Result<bool> {
    for (file, value) in SETTINGS {
        let path = format!("/sys/kernel/debug/{file}");
        fs::write(&path, value).with_context(|| format!("cannot write {path}"))?;
    }
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC)?;
    let init = sys::create(Creation::Fork, &|| match sweep_all() {
        Ok(passed) => i32::from(!passed),
        Err(error) => {
            println!("Bail out! {error:#}");
            1
        }
    })?;
    Ok(sys::wait(init)?.1 == 0)
}

fn sweep_all() -> Result<bool> {
    let mut sweep =
        Sweep { file: NextId::open()?, fail: FailNth::open()?, buffer: vec![0; 64 << 10] };
    let mut ktap = Ktap::new(CALLS.len());
    for call in CALLS {
        // What the first time leaves in caches stays there.
        let _ = sweep.run(call)?;
        let before = slab::objects()?;
        let mut wrong = Vec::new();
        match sweep.run(call)? {
            Ok(outcome) => println!("# {call}: {outcome}"),
            Err(what) => wrong.push(what),
        }
        for (cache, more) in slab::grown(&before, &slab::objects()?, OBJECTS_MORE) {
            wrong.push(format!("{cache} has {more} objects more, not {OBJECTS_MORE} at most"));
        }
        ktap.report(call, wrong);
    }
    Ok(ktap.passed())
}

/// How often a call failed, and how often it went on without the allocation.
struct Outcome {
    failed: u32,
    succeeded: u32,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.failed + self.succeeded;
        write!(f, "{all} allocations failed in turn, {} of them made the call fail", self.failed)
    }
}

struct Sweep {
    file: NextId,
    fail: FailNth,
    buffer: Vec<u8>,
}

impl Sweep {
    /// Makes a call, over and over, with one allocation after the other failing, or tells what is
    /// wrong.
    fn run(&mut self, call: Call) -> Result<std::result::Result<Outcome, String>> {
        let mut outcome = Outcome { failed: 0, succeeded: 0 };
        for nth in 1..ENOUGH {
            let before = match call {
                Call::Read(count) => Ids::list(7, count),
                Call::Object(_) => OBJECT,
                _ => TASK,
            };
            let (result, reached) = loop {
                self.file.arm(before, &mut self.buffer)?;
                self.fail.set(nth)?;
                let result = self.call(call);
                let reached = self.fail.take()?;
                match (call, result) {
                    // The thread before, which was joined, may have its ids for a moment still.
                    (Call::Thread, Err(Errno::EBUSY)) => sys::sleep(1000),
                    _ => break (result, reached),
                }
            };
            let (after, errors): (State, &[Errno]) = match (call, result) {
                (_, Err(_)) => (Some(before), &[Errno::ENOMEM, Errno::EAGAIN]),
                (Call::Arm(count), _) => (Some(Ids::list(7, count)), &[]),
                (Call::Read(_) | Call::Reserve(..), _) => (Some(before), &[]),
                _ => (None, &[]),
            };
            let state = self.file.state(&mut self.buffer)?;
            let wrong = match result {
                _ if state != after => format!("{state:?} is armed, not {after:?}"),
                Err(errno) if !errors.contains(&errno) => format!("it failed with {errno}"),
                Ok(id) if id != 0 && i64::from(id) != before.first => {
                    format!("{before:?} came out as {id}")
                }
                Err(errno) if !reached => {
                    format!("it failed with {errno}, though no allocation did")
                }
                Ok(_) if !reached => return Ok(Ok(outcome)),
                Ok(_) => {
                    outcome.succeeded += 1;
                    continue;
                }
                Err(_) => {
                    outcome.failed += 1;
                    continue;
                }
            };
            return Ok(Err(format!("allocation {nth} of {call} failed: {wrong}")));
        }
        bail!("{call} makes more than {ENOUGH} allocations")
    }

    /// Returns the id of what was created, or 0.
    fn call(&mut self, call: Call) -> sys::Result<i32> {
        match call {
            Call::Arm(count) => self.file.arm(Ids::list(7, count), &mut self.buffer).map(|()| 0),
            Call::Read(_) => read_other(c"/proc/thread-self/next_id", &mut self.buffer).map(|_| 0),
            Call::Reserve(word, count) => {
                let file = NextId::open()?;
                let ids = Ids::list(1000, count).with(word);
                let reserved = file.reserve(ids, &mut self.buffer);
                file.close();
                reserved.map(|()| 0)
            }
            Call::Process(how) => {
                let pid = sys::create(how, &|| 0)?;
                sys::wait(pid)?;
                Ok(pid)
            }
            Call::Thread => {
                let thread = Builder::new()
                    .stack_size(64 << 10)
                    .spawn(sys::gettid)
                    .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
                thread.join().map_err(|_| Errno::EIO)
            }
            Call::Object(kind) => {
                let id = sys::create_object(kind)?;
                sys::remove_object(kind, id)?;
                Ok(id)
            }
        }
    }
}
