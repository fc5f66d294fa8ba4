// SPDX-License-Identifier: GPL-2.0

//! What is wrong with an image, and where.

use std::io;
use std::path::PathBuf;

/// What is wrong with an image, and where.
#[derive(Debug, thiserror::Error)]
#[error("{}, byte {offset}: {problem}", path.display())]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub problem: Problem,
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

    /// Its contents make no sense.
    #[error("{0}")]
    Invalid(String),
}
