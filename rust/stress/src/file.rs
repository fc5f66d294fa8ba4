// SPDX-License-Identifier: GPL-2.0

//! The file `next_id` of a thread, and what it says.

use std::ffi::CStr;
use std::fmt;
use std::io::{Cursor, Write};
use std::os::fd::RawFd;

use nextid::IpcKind;
use nix::errno::Errno;
use nix::libc;

use crate::sys;

/// Room for the text of a few ids, on the stack.
pub const SHORT_TEXT: usize = 256;

/// The word that a command begins with: what its ids are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// A task or an IPC object.
    Long,
    /// A task.
    Pid,
    /// An IPC object of this kind.
    Ipc(IpcKind),
}

impl Word {
    const ALL: [Self; 5] = [
        Self::Long,
        Self::Pid,
        Self::Ipc(IpcKind::MessageQueue),
        Self::Ipc(IpcKind::SemaphoreSet),
        Self::Ipc(IpcKind::SharedMemory),
    ];

    fn in_command(self) -> &'static str {
        match self {
            Self::Long => "LONG",
            Self::Pid => "PID",
            Self::Ipc(IpcKind::MessageQueue) => "MSG",
            Self::Ipc(IpcKind::SemaphoreSet) => "SEM",
            Self::Ipc(_) => "SHM",
        }
    }

    /// How a read of the file says it.
    fn in_state(self) -> &'static str {
        if self == Self::Long { "LONGS" } else { self.in_command() }
    }
}

/// The ids `first`, `first + 1`, and so on: a reader can tell whether a list that it sees is whole.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    pub word: Word,
    pub first: i64,
    pub count: usize,
}

/// What a file says.
pub type State = Option<Ids>;

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ids from {}", self.count, self.word.in_command(), self.first)
    }
}

impl Ids {
    pub const fn list(first: i64, count: usize) -> Self {
        Self { word: Word::Long, first, count }
    }

    pub fn one(id: i32) -> Self {
        Self::list(id.into(), 1)
    }

    pub fn with(self, word: Word) -> Self {
        Self { word, ..self }
    }

    pub fn id(self, index: usize) -> i64 {
        self.first + index as i64
    }
}

/// The file of the calling thread. It is closed at exec or exit, not before.
#[derive(Clone, Copy)]
pub struct NextId {
    fd: RawFd,
}

impl NextId {
    pub fn open() -> sys::Result<Self> {
        let flags = libc::O_RDWR | libc::O_CLOEXEC;
        Ok(Self { fd: sys::open(c"/proc/thread-self/next_id", flags)? })
    }

    /// Arms `ids`. The text is made in `buffer`, whose length it must fit.
    pub fn arm(self, ids: Ids, buffer: &mut [u8]) -> sys::Result<()> {
        self.command_with("", ids, buffer)
    }

    /// Reserves `ids`, each for an object of its own. The text is made in `buffer`.
    pub fn reserve(self, ids: Ids, buffer: &mut [u8]) -> sys::Result<()> {
        self.command_with("RESERVE ", ids, buffer)
    }

    fn command_with(self, verb: &str, ids: Ids, buffer: &mut [u8]) -> sys::Result<()> {
        let mut text = Cursor::new(buffer);
        let mut whole = write!(text, "{verb}{}", ids.word.in_command());
        // What can have one id alone has no count.
        if !verb.is_empty() || !matches!(ids.word, Word::Ipc(_)) {
            whole = whole.and_then(|()| write!(text, "{}", ids.count));
        }
        for index in 0..ids.count {
            whole = whole.and_then(|()| write!(text, " {}", ids.id(index)));
        }
        whole.map_err(|_| Errno::EOVERFLOW)?;
        let len = usize::try_from(text.position()).map_err(|_| Errno::EOVERFLOW)?;
        self.command(&text.get_ref()[..len])
    }

    /// Closes the file. What it reserves is given back, unless a child has a copy of it.
    pub fn close(self) {
        sys::close(self.fd);
    }

    /// Arms a few ids, without a buffer.
    pub fn arm_few(self, ids: Ids) -> sys::Result<()> {
        self.arm(ids, &mut [0; SHORT_TEXT])
    }

    pub fn reset(self) -> sys::Result<()> {
        self.command(b"RESET")
    }

    pub fn command(self, text: &[u8]) -> sys::Result<()> {
        match sys::write(self.fd, text)? {
            len if len == text.len() => Ok(()),
            _ => Err(Errno::EIO),
        }
    }

    /// Reads what is armed. The text must fit `buffer`.
    pub fn state(self, buffer: &mut [u8]) -> sys::Result<State> {
        read_state(self.fd, buffer)
    }

    /// Reads what is armed, where that is a few ids at most.
    pub fn state_of_few(self) -> sys::Result<State> {
        self.state(&mut [0; SHORT_TEXT])
    }
}

/// Reads the file at `path`, which may be another thread's.
pub fn read_other(path: &CStr, buffer: &mut [u8]) -> sys::Result<State> {
    let fd = sys::open(path, libc::O_RDONLY | libc::O_CLOEXEC)?;
    let state = read_state(fd, buffer);
    sys::close(fd);
    state
}

fn read_state(fd: RawFd, buffer: &mut [u8]) -> sys::Result<State> {
    let len = sys::read(fd, buffer)?;
    // Nobody ever arms what does not parse: EBADMSG is the kernel's mistake.
    parse(&buffer[..len]).ok_or(Errno::EBADMSG)
}

/// Parses `UNSET\n`, or `LONGS (n) X0 ... X<n-1>\n`, or that with another word, with ids that
/// follow one another.
fn parse(text: &[u8]) -> Option<State> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
    if text == "UNSET" {
        return Some(None);
    }
    let (word, list) = text.split_once(" (")?;
    let word = Word::ALL.into_iter().find(|known| known.in_state() == word)?;
    let (count, list) = list.split_once(") ")?;
    let mut list = list.split(' ').map(str::parse);
    let ids = Ids::list(list.next()?.ok()?, count.parse().ok()?).with(word);
    let follow = (1..ids.count).all(|index| list.next() == Some(Ok(ids.id(index))));
    (follow && list.next().is_none()).then_some(Some(ids))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lists_are_read() {
        assert_eq!(parse(b"UNSET\n"), Some(None));
        assert_eq!(parse(b"LONGS (1) 7\n"), Some(Some(Ids::one(7))));
        assert_eq!(parse(b"LONGS (3) -1 0 1\n"), Some(Some(Ids::list(-1, 3))));
        assert_eq!(parse(b"PID (2) 7 8\n"), Some(Some(Ids::list(7, 2).with(Word::Pid))));
        let queue = Word::Ipc(IpcKind::MessageQueue);
        assert_eq!(parse(b"MSG (1) 7\n"), Some(Some(Ids::one(7).with(queue))));
    }

    #[test]
    fn torn_lists_are_not() {
        for text in [
            "",
            "UNSET",
            "LONG (1) 7\n",
            "LONGS (2) 7\n",
            "LONGS (1) 7 8\n",
            "LONGS (2) 7 9\n",
            "LONGS (0) \n",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
