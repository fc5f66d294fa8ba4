// SPDX-License-Identifier: GPL-2.0

//! The kernel's pure core on the host, beside an [`oracle`] for what it must do.
//!
//! `list`, `map` and `parser` are the kernel's own files, taken out of the series by the build
//! script; [`parse`] joins two of them as `kernel/nextid.rs` does.

pub mod oracle;

mod bare_tests;
mod command;
mod list_tests;
mod map_tests;

// The modules `list`, `map` and `parser`.
include!(concat!(env!("OUT_DIR"), "/modules.rs"));

use kernel::alloc::GFP_KERNEL_ACCOUNT;

pub use command::{Command, Errno};
use list::IdList;
use parser::{Action, Kind, Parser};

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
