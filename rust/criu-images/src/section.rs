// SPDX-License-Identifier: GPL-2.0

//! A file with bytes of a dump, wherever it is.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Problem, Result};

/// A file, or the part of an archive that is one.
#[derive(Debug)]
pub struct Section {
    file: Arc<File>,
    start: u64,
    length: u64,
    /// Where the next read begins, counted from `start`.
    position: u64,
    path: PathBuf,
}

impl Section {
    /// All of a file, which has to be a regular one.
    pub fn whole(file: File, path: PathBuf) -> Result<Self> {
        let metadata = file.metadata().map_err(|error| Error::at(&path, error))?;
        if !metadata.is_file() {
            let problem = Problem::Invalid("this is no regular file".to_owned());
            return Err(Error { path, offset: None, problem });
        }
        Ok(Self::part(Arc::new(file), 0, metadata.len(), path))
    }

    /// A part of a file.
    pub fn part(file: Arc<File>, start: u64, length: u64, path: PathBuf) -> Self {
        Self { file, start, length, position: 0, path }
    }

    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `bytes` from what begins at `offset`.
    pub fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        let read = if offset.saturating_add(bytes.len() as u64) <= self.length {
            self.file.read_exact_at(bytes, self.start + offset)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        };
        read.map_err(|error| Error {
            path: self.path.clone(),
            offset: Some(offset),
            problem: error.into(),
        })
    }
}

impl Read for Section {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.length - self.position).unwrap_or(usize::MAX);
        let length = bytes.len().min(left);
        let read = self.file.read_at(&mut bytes[..length], self.start + self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.length.checked_add_signed(by),
        };
        match position.filter(|&position| position <= self.length) {
            Some(position) => {
                self.position = position;
                Ok(position)
            }
            None => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}
