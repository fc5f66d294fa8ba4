// SPDX-License-Identifier: GPL-2.0

//! The kernel's pure core on the host, beside an [`oracle`] for what it must do.
//!
//! `list`, `map` and `parser` are the kernel's own files, taken out of the series by the build
//! script; [`parse`] joins two of them as `kernel/nextid.rs` does.

pub mod oracle;

mod bare_tests;
mod list_tests;
mod map_tests;

// The modules `list`, `map` and `parser`.
include!(concat!(env!("OUT_DIR"), "/modules.rs"));

use kernel::alloc::{AllocError, GFP_KERNEL_ACCOUNT};

use list::IdList;
use parser::{Action, Kind, ParseError, Parser};

/// What a text asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// To disarm.
    Reset,
    /// To arm these ids for an object of the kind that this word names.
    Arm(&'static str, Vec<isize>),
    /// To reserve these ids, each for an object of the kind that this word names.
    Reserve(&'static str, Vec<isize>),
}

/// What a refused command gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::upper_case_acronyms)]
pub enum Errno {
    /// The text is not a command.
    EINVAL,
    /// An id does not fit a `long`.
    ERANGE,
    /// More ids are asked for than can be.
    E2BIG,
    /// Memory is short.
    ENOMEM,
    /// The writer must not ask for an id.
    EPERM,
}

impl From<ParseError> for Errno {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::Malformed => Self::EINVAL,
            ParseError::IdOutOfRange => Self::ERANGE,
            ParseError::TooManyIds => Self::E2BIG,
        }
    }
}

impl From<AllocError> for Errno {
    fn from(_: AllocError) -> Self {
        Self::ENOMEM
    }
}

/// Reads a command that arrives in `pieces`. An id is let in only if `may_arm` says so.
///
/// # Errors
///
/// The errno that the writer gets.
///
/// # Panics
///
/// Where the parser hands out ids of one command for different uses.
pub fn parse<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    may_arm: bool,
) -> Result<Command, Errno> {
    let mut action = None;
    let mut ids = IdList::<kernel::alloc::allocator::Kmalloc>::new();
    let mut push = |of_id, id| {
        if !may_arm {
            return Err(Errno::EPERM);
        }
        assert_eq!(of_id, *action.get_or_insert(of_id));
        Ok(ids.push(id, GFP_KERNEL_ACCOUNT)?)
    };
    let mut parser = Parser::new();
    let mut pieces = pieces.into_iter().peekable();
    loop {
        let piece = pieces.next().unwrap_or_default();
        if parser.feed(piece, pieces.peek().is_none(), &mut push)?.is_break() {
            break;
        }
    }
    let ids = ids.iter().collect();
    Ok(match action {
        None => Command::Reset,
        Some(Action::Arm(kind)) => Command::Arm(word(kind), ids),
        Some(Action::Reserve(kind)) => Command::Reserve(word(kind), ids),
    })
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Any => "LONG",
        Kind::Pid => "PID",
        Kind::Msg => "MSG",
        Kind::Sem => "SEM",
        Kind::Shm => "SHM",
        Kind::Pty => "PTY",
    }
}

/// Checks that the core says of `text` what the oracle says, whole and in pieces.
///
/// # Panics
///
/// Where they differ.
pub fn check(text: &[u8]) {
    let shown = text.escape_ascii();
    for may_arm in [true, false] {
        let expected = oracle::parse(text, may_arm);
        assert_eq!(parse([text], may_arm), expected, "whole: \"{shown}\"");
        assert_eq!(parse([text, b""], may_arm), expected, "then nothing: \"{shown}\"");
        assert_eq!(parse(text.chunks(1), may_arm), expected, "in bytes: \"{shown}\"");
        // A piece length that differs from text to text, and is the same each time for one text.
        let length = 2 + text.iter().fold(text.len(), |sum, &byte| sum + usize::from(byte)) % 13;
        let pieces = text.chunks(length);
        assert_eq!(parse(pieces, may_arm), expected, "in pieces of {length}: \"{shown}\"");
    }
}
