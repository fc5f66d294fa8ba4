// SPDX-License-Identifier: GPL-2.0

//! The kernel's pure core on the host, beside an [`oracle`] for what it must do.
//!
//! `list` and `parser` are the kernel's own files, taken out of the series by the build script;
//! [`parse`] joins them as `kernel/nextid.rs` does.

pub mod oracle;

mod list_tests;

// The modules `list` and `parser`.
include!(concat!(env!("OUT_DIR"), "/modules.rs"));

use kernel::alloc::{AllocError, GFP_KERNEL_ACCOUNT};

use list::IdList;
use parser::{ParseError, Parser};

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

/// Reads a command that arrives in `pieces`, and returns the ids that it arms: none for `RESET`.
///
/// # Errors
///
/// The errno that the writer gets.
pub fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<isize>, Errno> {
    let mut ids = IdList::<kernel::alloc::allocator::Kmalloc>::new();
    let mut push = |id| Ok::<_, Errno>(ids.push(id, GFP_KERNEL_ACCOUNT)?);
    let mut parser = Parser::new();
    let mut pieces = pieces.into_iter().peekable();
    loop {
        let piece = pieces.next().unwrap_or_default();
        if parser.feed(piece, pieces.peek().is_none(), &mut push)?.is_break() {
            return Ok(ids.iter().collect());
        }
    }
}

/// Checks that the core says of `text` what the oracle says, whole and in pieces.
///
/// # Panics
///
/// Where they differ.
pub fn check(text: &[u8]) {
    let expected = oracle::parse(text);
    assert_eq!(parse([text]), expected, "whole: {:?}", text.escape_ascii().to_string());
    assert_eq!(parse([text, b""]), expected, "then nothing: {:?}", text.escape_ascii().to_string());
    assert_eq!(parse(text.chunks(1)), expected, "in bytes: {:?}", text.escape_ascii().to_string());
    // A piece length that differs from text to text, and is the same each time for one text.
    let length = 2 + text.iter().fold(text.len(), |sum, &byte| sum + usize::from(byte)) % 13;
    assert_eq!(
        parse(text.chunks(length)),
        expected,
        "in pieces of {length}: {:?}",
        text.escape_ascii().to_string()
    );
}
