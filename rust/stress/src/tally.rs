// SPDX-License-Identifier: GPL-2.0

//! What all processes of a round count, in memory that they share.

use std::fmt::{self, Display, Write};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

use crate::scenario::SLOTS;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Lists armed.
    Arms,
    /// Files read.
    Reads,
    /// Files of others read.
    OthersRead,
    /// Processes with the ids asked for.
    Processes,
    /// Threads with the ids asked for.
    Threads,
    /// Programs executed with ids armed.
    Execs,
    /// IPC objects with the id asked for.
    Objects,
    /// Creations refused, each with the error that is documented.
    Refusals,
    /// Creations refused because the id was taken.
    Taken,
    /// Creations refused by a limit, and made again with what was still armed.
    Retries,
    /// Processes killed in the middle of their work.
    Kills,
    /// Reservations that were made.
    Reservations,
}

impl Count {
    pub const ALL: [Self; 12] = [
        Self::Arms,
        Self::Reads,
        Self::OthersRead,
        Self::Processes,
        Self::Threads,
        Self::Execs,
        Self::Objects,
        Self::Refusals,
        Self::Taken,
        Self::Retries,
        Self::Kills,
        Self::Reservations,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Arms => "arms",
            Self::Reads => "reads",
            Self::OthersRead => "reads of others",
            Self::Processes => "processes",
            Self::Threads => "threads",
            Self::Execs => "execs",
            Self::Objects => "ipc objects",
            Self::Refusals => "refusals",
            Self::Taken => "taken",
            Self::Retries => "retries",
            Self::Kills => "kills",
            Self::Reservations => "reservations",
        }
    }
}

const MESSAGES: usize = 16;
const MESSAGE_LEN: usize = 240;

/// A message, as bytes that several processes may write to.
struct Message {
    len: AtomicUsize,
    text: [std::sync::atomic::AtomicU8; MESSAGE_LEN],
}

/// Valid when it is all zeroes.
#[repr(C)]
pub struct Tally {
    counts: [AtomicU64; Count::ALL.len()],
    failures: AtomicUsize,
    messages: [Message; MESSAGES],
    /// The process and thread id in the initial pid namespace of each worker, 0 where there is
    /// none.
    peers: [(AtomicI32, AtomicI32); SLOTS],
    /// The next victim's number.
    pub victims: AtomicU32,
}

impl Tally {
    /// Returns a new one, shared with the processes that are forked from here on.
    ///
    /// # Errors
    ///
    /// Fails where memory is short.
    pub fn new() -> nix::Result<&'static Self> {
        let size = NonZeroUsize::new(size_of::<Self>()).expect("it is not empty");
        // SAFETY: New memory is nobody's.
        let memory = unsafe {
            mmap_anonymous(
                None,
                size,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
            )?
        };
        // SAFETY: It is large enough, page-aligned, all zeroes, consists of atomics, and is never
        // unmapped.
        Ok(unsafe { memory.cast::<Self>().as_ref() })
    }

    pub fn count(&self, what: Count) {
        self.counts[what as usize].fetch_add(1, Relaxed);
    }

    pub fn get(&self, what: Count) -> u64 {
        self.counts[what as usize].load(Relaxed)
    }

    /// Notes that something is not as it must be. Does not allocate.
    pub fn fail(&self, what: fmt::Arguments<'_>) {
        let number = self.failures.fetch_add(1, Relaxed);
        if let Some(message) = self.messages.get(number) {
            let _ = message.append(what);
        }
    }

    pub fn failures(&self) -> usize {
        self.failures.load(Relaxed)
    }

    /// Returns the first failures.
    pub fn messages(&self) -> impl Iterator<Item = String> {
        self.messages.iter().take(self.failures()).map(Message::text)
    }

    /// Lets others find a thread, by its slot.
    pub fn register(&self, slot: usize, process: i32, thread: i32) {
        self.peers[slot].0.store(process, Relaxed);
        self.peers[slot].1.store(thread, Relaxed);
    }

    /// Returns the process and thread id of the thread in a slot.
    pub fn peer(&self, slot: usize) -> (i32, i32) {
        (self.peers[slot].0.load(Relaxed), self.peers[slot].1.load(Relaxed))
    }
}

impl Message {
    fn append(&self, text: fmt::Arguments<'_>) -> fmt::Result {
        struct Writer<'a>(&'a Message);
        impl Write for Writer<'_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for byte in text.bytes() {
                    let len = self.0.len.load(Relaxed);
                    self.0.text.get(len).ok_or(fmt::Error)?.store(byte, Relaxed);
                    self.0.len.store(len + 1, Relaxed);
                }
                Ok(())
            }
        }
        Writer(self).write_fmt(text)
    }

    fn text(&self) -> String {
        let bytes = self.text[..self.len.load(Relaxed)].iter().map(|byte| byte.load(Relaxed));
        String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for count in Count::ALL {
            write!(f, "{separator}{} {}", self.get(count), count.name())?;
            separator = ", ";
        }
        Ok(())
    }
}
