// SPDX-License-Identifier: GPL-2.0

//! A `next_id` file: how it is opened, what is written to it, what is read from it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use nix::errno::Errno;

use crate::error::{Action, Error, Feature, Result};
use crate::ids::Ids;
use crate::kind::Kind;

/// The calling thread, in `/proc`.
const THREAD: &str = "/proc/thread-self";

/// Opens the file of the calling thread.
pub(crate) fn open() -> Result<File> {
    // Anybody may open it to write, its owner alone to read: a process that is not dumpable does
    // not own it.
    let file = OpenOptions::new().write(true).open(format!("{THREAD}/next_id"));
    file.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) if Path::new(THREAD).exists() => Error::NotSupported(Feature::File),
        Some(Errno::ENOENT) => Error::NoProc,
        _ => Error::system(Action::Open, error),
    })
}

/// Writes a command with a list of ids. `text` is a buffer for it.
pub(crate) fn write(
    mut file: &File,
    text: &mut Vec<u8>,
    word: fmt::Arguments<'_>,
    ids: &[i64],
) -> io::Result<()> {
    text.clear();
    write!(text, "{word}")?;
    for id in ids {
        write!(text, " {id}")?;
    }
    file.write_all(text)
}

/// Whether the kernel knows a word that takes a list of ids. It is asked with a count that no list
/// can have: the error tells, and what is armed or reserved stays as it is.
pub(crate) fn knows(mut file: &File, word: &str) -> bool {
    let refused = file.write_all(format!("{word}65537").as_bytes());
    refused.is_err_and(|error| error.raw_os_error() == Some(Errno::E2BIG as i32))
}

/// Ids that a thread has armed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pending {
    /// The kind of object that they are for. None where the next task or System V IPC object gets
    /// them, whichever comes first.
    pub kind: Option<Kind>,
    /// The ids.
    pub ids: Ids,
}

impl Pending {
    /// The kernel's word for the command that armed them.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.kind.map_or("LONG", Kind::word)
    }
}

/// The word, and the ids.
impl fmt::Display for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.word(), self.ids)
    }
}

/// Returns what thread `tid` of process `pid` has armed.
///
/// # Errors
///
/// [`Error::NotSupported`] where this kernel has no `next_id` file; [`Error::NotPermitted`] where
/// the caller may not trace the process; [`Error::System`] where there is no such thread, and for
/// any other reason.
pub fn armed_by(pid: i32, tid: i32) -> Result<Option<Pending>> {
    read(&format!("/proc/{pid}/task/{tid}"))
}

/// What the calling thread has armed.
pub(crate) fn read_own() -> Result<Option<Pending>> {
    read(THREAD)
}

/// What the thread whose folder in `/proc` is `folder` has armed.
fn read(folder: &str) -> Result<Option<Pending>> {
    let error = |error: io::Error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) if Path::new(folder).exists() => Error::NotSupported(Feature::File),
        Some(Errno::EACCES | Errno::EPERM) => {
            Error::NotPermitted { action: Action::Read, ids: Ids::default() }
        }
        _ => Error::system(Action::Read, error),
    };
    let state = fs::read_to_string(format!("{folder}/next_id")).map_err(error)?;
    parse(&state).map_err(|error| Error::system(Action::Read, error))
}

/// Reads `UNSET\n`, or a word for a kind, or `LONGS` for none, and ` (n) X0 ... X<n-1>\n`.
fn parse(text: &str) -> io::Result<Option<Pending>> {
    let line = text.strip_suffix('\n');
    let pending = match line {
        Some("UNSET") => return Ok(None),
        Some(line) => parse_pending(line),
        None => None,
    };
    let error = || io::Error::new(io::ErrorKind::InvalidData, format!("unknown state {text:?}"));
    Ok(Some(pending.ok_or_else(error)?))
}

fn parse_pending(line: &str) -> Option<Pending> {
    let (word, list) = line.split_once(" (")?;
    let (count, ids) = list.split_once(") ")?;
    let kind = if word == "LONGS" { None } else { Some(Kind::of_word(word)?) };
    let ids: Ids = ids.split(' ').map(str::parse).collect::<std::result::Result<_, _>>().ok()?;
    (count.parse() == Ok(ids.len())).then_some(Pending { kind, ids })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::IpcKind;

    #[test]
    fn a_state_is_read_back() {
        let parse = |text| parse(text).expect("a state");
        let armed = |kind, ids: &[i64]| Some(Pending { kind, ids: ids.into() });
        assert_eq!(parse("UNSET\n"), None);
        assert_eq!(parse("LONGS (1) 4242\n"), armed(None, &[4242]));
        assert_eq!(parse("LONGS (3) 7 -512 9001\n"), armed(None, &[7, -512, 9001]));
        assert_eq!(parse("PID (2) 7 512\n"), armed(Some(Kind::Task), &[7, 512]));
        let segment = Some(IpcKind::SharedMemory.into());
        assert_eq!(parse("SHM (1) 98313\n"), armed(segment, &[98313]));
        assert_eq!(parse("PTY (1) 0\n"), armed(Some(Kind::Pty), &[0]));
    }

    #[test]
    fn a_state_that_is_not_the_kernels_is_refused() {
        for text in [
            "",
            "UNSET",
            "LONGS (2) 7\n",
            "LONGS (1) 7 \n",
            "LONGS (0) \n",
            "LONGS () 7\n",
            "LONG (1) 7\n",
            "PIDS (1) 7\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
