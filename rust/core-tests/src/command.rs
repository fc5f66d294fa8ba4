// SPDX-License-Identifier: GPL-2.0

//! What a text asks for, and what one that is refused gets.

use kernel::alloc::AllocError;

use crate::parser::ParseError;

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
