// SPDX-License-Identifier: GPL-2.0

//! What is wrong with an image, and where.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What is wrong with an image, and where.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {problem}", path.display(), At(*offset))]
pub struct Error {
    /// The file; one in an archive is `ARCHIVE:FILE`.
    pub path: PathBuf,
    /// Where in the file, in bytes; none where it is about the file as a whole.
    pub offset: Option<u64>,
    /// What is wrong.
    pub problem: Problem,
}

impl Error {
    /// The file at `path` cannot be used.
    pub(crate) fn at(path: &Path, error: io::Error) -> Self {
        Self { path: path.to_owned(), offset: None, problem: error.into() }
    }
}

/// How a place in a file is told.
struct At(Option<u64>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |offset| write!(f, ", byte {offset}"))
    }
}

/// What is wrong with an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),

    /// It is of another kind.
    #[error(
        "magic number {found:#010x} where {expected:#010x} should be: this is no such image of CRIU"
    )]
    Magic {
        /// The number that is there.
        found: u32,
        /// The number that should be there.
        expected: u32,
    },

    /// It ends too early.
    #[error("the file is truncated: {wanted} more bytes should follow, and {left} do")]
    Truncated {
        /// How many bytes should follow.
        wanted: u64,
        /// How many do.
        left: u64,
    },

    /// An entry is larger than any that CRIU writes.
    #[error("an entry of {0} bytes, more than CRIU writes")]
    TooLarge(u32),

    /// An entry is no such message.
    #[error(transparent)]
    Decode(#[from] prost::DecodeError),

    /// The dump builds on another one, which is not there.
    #[error("this dump has only the pages that changed since another one, and {0}")]
    NoParent(String),

    /// Its contents make no sense.
    #[error("{0}")]
    Invalid(String),
}
