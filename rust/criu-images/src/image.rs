// SPDX-License-Identifier: GPL-2.0

//! An image file: magic numbers, then entries, each with its length before it.

use std::io::{BufReader, Read};

use prost::Message;

use crate::error::{Error, Problem, Result};
use crate::section::Section;
use crate::source::Images;

/// The number that all images but the inventory begin with.
pub const COMMON_MAGIC: u32 = 0x5456_4319;

/// The most bytes of an entry. The largest that CRIU writes has 4 bytes for each thread.
const MAX_ENTRY: u32 = 16 << 20;

/// The number of each kind of image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u32)]
pub enum Magic {
    /// What all of the dump has in common.
    Inventory = 0x5831_3116,
    /// The tree of processes.
    Pstree = 0x5027_3030,
    /// A thread, and its process where it is the first of that.
    Core = 0x5505_3847,
    /// The memory of a process.
    Mm = 0x5749_2820,
    /// The namespaces of a process.
    Ids = 0x5443_2030,
    /// The limits of an IPC namespace.
    Limits = 0x5311_5007,
    /// Where pages are.
    Pagemap = 0x5608_4025,
    /// Shared memory segments.
    Segments = 0x4628_3044,
    /// Message queues.
    Queues = 0x5545_3737,
    /// Semaphore sets.
    Semaphores = 0x5957_3019,
}

/// An image that is being read.
pub struct Image {
    file: BufReader<Section>,
    length: u64,
    /// How much has been read.
    offset: u64,
    /// Where the current entry begins.
    entry: u64,
}

impl Image {
    /// Opens an image that has to be there.
    pub fn open(images: &Images, name: &str, magic: Magic) -> Result<Self> {
        Self::find(images, name, magic)?.ok_or_else(|| images.missing(name))
    }

    /// Opens an image that need not be there.
    pub fn find(images: &Images, name: &str, magic: Magic) -> Result<Option<Self>> {
        let Some(section) = images.find(name)? else { return Ok(None) };
        let length = section.length();
        let mut image = Self { file: BufReader::new(section), length, offset: 0, entry: 0 };
        if magic != Magic::Inventory {
            image.expect(COMMON_MAGIC)?;
        }
        image.expect(magic as u32)?;
        Ok(Some(image))
    }

    fn expect(&mut self, expected: u32) -> Result<()> {
        let found = self.word()?;
        if found == expected {
            return Ok(());
        }
        self.entry = self.offset - 4;
        Err(self.error(Problem::Magic { found, expected }))
    }

    /// Reads the next entry; none at the end of the file.
    pub fn next<M: Message + Default>(&mut self) -> Result<Option<M>> {
        self.entry = self.offset;
        if self.offset == self.length {
            return Ok(None);
        }
        let length = self.word()?;
        if length > MAX_ENTRY {
            return Err(self.error(Problem::TooLarge(length)));
        }
        let bytes = self.bytes(length.into())?;
        M::decode(&*bytes).map(Some).map_err(|error| self.error(error.into()))
    }

    /// Reads an entry that has to be there.
    pub fn entry<M: Message + Default>(&mut self) -> Result<M> {
        self.next()?.ok_or_else(|| self.error(Problem::Truncated { wanted: 4, left: 0 }))
    }

    /// Reads the entry of a file that has but one.
    pub fn only_entry<M: Message + Default>(&mut self) -> Result<M> {
        let entry = self.entry()?;
        if self.offset < self.length {
            self.entry = self.offset;
            return Err(self.invalid("more than one entry"));
        }
        Ok(entry)
    }

    /// Reads `length` bytes of data, which is padded to a multiple of `unit`.
    pub fn data(&mut self, length: u64, unit: u64) -> Result<Vec<u8>> {
        let padded = length.checked_next_multiple_of(unit).unwrap_or(u64::MAX);
        let mut data = self.bytes(padded)?;
        data.truncate(data.len() - usize::try_from(padded - length).unwrap_or_default());
        Ok(data)
    }

    /// Passes over `length` bytes, and returns where they begin.
    pub fn skip(&mut self, length: u64) -> Result<u64> {
        let start = self.offset;
        self.check_left(length)?;
        let skipped = i64::try_from(length).map_err(|_| self.invalid("too long"))?;
        self.file.seek_relative(skipped).map_err(|error| self.error(error.into()))?;
        self.offset += length;
        Ok(start)
    }

    fn word(&mut self) -> Result<u32> {
        let mut word = [0; 4];
        self.check_left(4)?;
        self.read_exact(&mut word)?;
        Ok(u32::from_le_bytes(word))
    }

    fn bytes(&mut self, length: u64) -> Result<Vec<u8>> {
        self.check_left(length)?;
        let length = usize::try_from(length).map_err(|_| self.invalid("too long"))?;
        let mut bytes = vec![0; length];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn check_left(&self, wanted: u64) -> Result<()> {
        let left = self.length - self.offset;
        if wanted > left {
            return Err(self.error(Problem::Truncated { wanted, left }));
        }
        Ok(())
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact(bytes).map_err(|error| self.error(error.into()))?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// An error in what the current entry says.
    pub fn invalid(&self, what: impl Into<String>) -> Error {
        self.error(Problem::Invalid(what.into()))
    }

    fn error(&self, problem: Problem) -> Error {
        Error { path: self.file.get_ref().path().to_owned(), offset: Some(self.entry), problem }
    }
}
