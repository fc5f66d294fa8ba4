// SPDX-License-Identifier: GPL-2.0

//! The contents of a shared memory segment: its pages, some of which may be in the dump that this
//! one builds on, and some compressed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Problem, Result};
use crate::image::{Image, Magic};
use crate::proto::{PagemapEntry, PagemapHead};
use crate::section::Section;
use crate::source::Images;

/// The size of a page, in bytes: x86's, and the usual one elsewhere.
pub const PAGE_SIZE: u64 = 4096;

/// Flags of a run of pages: they are in the parent dump; can be fetched later, from the machine
/// that was dumped; are in this dump; begin at a multiple of the size of a page.
const IN_PARENT: u32 = 1 << 0;
const LAZY: u32 = 1 << 1;
const PRESENT: u32 = 1 << 2;
const ALIGNED: u32 = 1 << 3;

/// The most bytes that CRIU compresses as one block.
const MAX_BLOCK: u64 = 4 << 20;

/// What a segment has in it. Runs of bytes, in order; what is between them is zero.
#[derive(Debug, Default)]
pub struct Contents {
    runs: Vec<Run>,
}

/// A run of bytes of a segment.
#[derive(Clone, Debug)]
struct Run {
    /// Where in the segment it begins.
    at: u64,
    length: u64,
    stored: Stored,
}

/// Where the bytes of a run are.
#[derive(Clone, Debug)]
enum Stored {
    /// In a file, from a place on.
    Plain { file: Arc<Named>, offset: u64 },
    /// In compressed blocks, from a place in what they hold on.
    Compressed { blocks: Arc<Blocks>, skip: u64 },
    /// In the dump that this one builds on.
    InParent,
}

/// A file, which is opened when it is read: there may be more segments than files that may be open.
#[derive(Debug)]
struct Named {
    images: Images,
    name: String,
}

/// Pages that CRIU 4.3 compressed.
#[derive(Debug)]
struct Blocks {
    file: Arc<Named>,
    /// Where in the file they begin.
    offset: u64,
    /// How many bytes each block holds, but for the last one.
    size: u64,
    /// How many bytes they hold together.
    length: u64,
    /// How many bytes of the file each one takes. None where it is all zero; as many as it holds
    /// where it is not compressed.
    stored: Vec<u32>,
}

impl Contents {
    /// A segment of `size` bytes, which are in the image of segments from `offset` on.
    pub fn inline(images: &Images, name: String, offset: u64, size: u64) -> Self {
        let file = Arc::new(Named { images: images.clone(), name });
        Self { runs: vec![Run { at: 0, length: size, stored: Stored::Plain { file, offset } }] }
    }

    /// The pages of the segment `id`, which has `size` bytes.
    pub fn paged(images: &Images, id: i32, size: u64) -> Result<Self> {
        let mut runs = layer(images, id, size)?.unwrap_or_default();
        let mut images = images;
        while runs.iter().any(Run::is_in_parent) {
            images = images.parent()?;
            let below = layer(images, id, size)?.unwrap_or_default();
            runs = laid_over(runs, &below).map_err(|at| Error {
                path: images.path_of(&pagemap(id)),
                offset: None,
                problem: Problem::Invalid(format!(
                    "the page at {at} is not here, where a dump that builds on this one has it"
                )),
            })?;
        }
        Ok(Self { runs })
    }

    /// Reads all into `memory`, which is as long as the segment, in whole pages or not, and zero.
    pub fn read_into(&self, memory: &mut [u8]) -> Result<()> {
        let mut reader = Reader::default();
        for run in &self.runs {
            // The last page may reach beyond the segment.
            let start = usize::try_from(run.at).unwrap_or(usize::MAX).min(memory.len());
            let length = usize::try_from(run.length).unwrap_or(usize::MAX);
            let end = start.saturating_add(length).min(memory.len());
            reader.read(&run.stored, &mut memory[start..end])?;
        }
        Ok(())
    }

    /// Unpacks all that is compressed, to see whether it can be.
    pub fn check(&self) -> Result<()> {
        let mut reader = Reader::default();
        for run in &self.runs {
            if let Stored::Compressed { blocks, skip } = &run.stored {
                reader.unpack(blocks, *skip, run.length, |_, _| {})?;
            }
        }
        Ok(())
    }
}

impl Run {
    fn is_in_parent(&self) -> bool {
        matches!(self.stored, Stored::InParent)
    }

    fn end(&self) -> u64 {
        self.at + self.length
    }

    /// What of it is from `start` to `end`, which are in it.
    fn part(&self, start: u64, end: u64) -> Self {
        let skipped = start - self.at;
        let mut stored = self.stored.clone();
        match &mut stored {
            Stored::Plain { offset: place, .. } | Stored::Compressed { skip: place, .. } => {
                *place += skipped;
            }
            Stored::InParent => {}
        }
        Self { at: start, length: end - start, stored }
    }
}

/// Puts what is `below` in the place of the runs that are said to be there; an error is where none
/// is.
fn laid_over(runs: Vec<Run>, below: &[Run]) -> std::result::Result<Vec<Run>, u64> {
    let mut laid = Vec::new();
    for run in runs {
        if !run.is_in_parent() {
            laid.push(run);
            continue;
        }
        let mut at = run.at;
        let first = below.partition_point(|it| it.end() <= at);
        for it in below[first..].iter().take_while(|it| it.at < run.end()) {
            if it.at > at {
                return Err(at);
            }
            let end = it.end().min(run.end());
            laid.push(it.part(at, end));
            at = end;
        }
        if at < run.end() {
            return Err(at);
        }
    }
    Ok(laid)
}

fn pagemap(id: i32) -> String {
    format!("pagemap-shmem-{id}.img")
}

/// The runs of pages that one dump has of a segment; none where it knows no such.
fn layer(images: &Images, id: i32, size: u64) -> Result<Option<Vec<Run>>> {
    let Some(mut image) = Image::find(images, &pagemap(id), Magic::Pagemap)? else {
        return Ok(None);
    };
    let head: PagemapHead = image.entry()?;
    let pages = pages(images, head.pages_id)?;
    let mut layer = Layer {
        size: size.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX),
        file: Arc::new(Named { images: images.clone(), name: pages_name(head.pages_id) }),
        available: pages.length(),
        offset: 0,
        runs: Vec::new(),
    };
    while let Some(entry) = image.next()? {
        layer.add(&image, pages.path(), entry)?;
    }
    // The pages are the dumped machine's, whose size the images do not tell. The file has those of
    // this segment and no others, so what is left of it tells.
    let Layer { offset, available, .. } = layer;
    if offset != available {
        return Err(image.invalid(format!(
            "{offset} bytes of pages, and {} has {available}: pages of another size?",
            pages.path().display()
        )));
    }
    Ok(Some(layer.runs))
}

fn pages_name(id: u32) -> String {
    format!("pages-{id}.img")
}

fn pages(images: &Images, id: u32) -> Result<Section> {
    if let Some(pages) = images.find(&pages_name(id))? {
        return Ok(pages);
    }
    let compressed = format!("pages-{id}.comp.img");
    if images.find(&compressed)?.is_some() {
        return Err(Error {
            path: images.path_of(&compressed),
            offset: None,
            problem: Problem::Invalid(format!(
                "pages that the CRIU of CRaC compressed as a whole: make {} of it before, by lz4 -d",
                pages_name(id)
            )),
        });
    }
    Err(images.missing(&pages_name(id)))
}

/// A layer that is being read.
struct Layer {
    /// How many bytes the segment has, in whole pages.
    size: u64,
    file: Arc<Named>,
    /// How many bytes the file has.
    available: u64,
    /// How many of them were met so far.
    offset: u64,
    runs: Vec<Run>,
}

impl Layer {
    fn add(&mut self, image: &Image, path: &Path, entry: PagemapEntry) -> Result<()> {
        let flags = match (entry.flags, entry.in_parent()) {
            (None, false) => PRESENT,
            (flags, in_parent) => flags.unwrap_or(0) | if in_parent { IN_PARENT } else { 0 },
        };
        let unknown = flags & !(IN_PARENT | LAZY | PRESENT | ALIGNED);
        if unknown != 0 {
            return Err(image.invalid(format!("pages with flags {unknown:#x}, of a newer CRIU")));
        }
        let pages = entry.nr_pages.unwrap_or(entry.compat_nr_pages.into());
        let length = pages.checked_mul(PAGE_SIZE);
        let Some(end) = length.and_then(|length| entry.vaddr.checked_add(length)) else {
            return Err(image.invalid(format!("{pages} pages")));
        };
        if end > self.size {
            let size = self.size;
            return Err(image.invalid(format!("pages up to {end}, and the segment ends at {size}")));
        }
        let (at, length) = (entry.vaddr, end - entry.vaddr);
        if at % PAGE_SIZE != 0 || self.runs.last().is_some_and(|last| at < last.end()) {
            return Err(image.invalid(format!("pages at {at}, which are not in their order")));
        }

        let stored = if flags & PRESENT == 0 {
            if flags & IN_PARENT == 0 {
                let what = "pages that are not in this dump: one that is lazy cannot be read";
                return Err(image.invalid(what));
            }
            Stored::InParent
        } else {
            if flags & ALIGNED != 0 {
                self.offset = self.offset.next_multiple_of(PAGE_SIZE).min(self.available);
            }
            self.stored(image, path, length, entry)?
        };
        self.runs.push(Run { at, length, stored });
        Ok(())
    }

    /// Where the next `length` bytes are.
    fn stored(
        &mut self,
        image: &Image,
        path: &Path,
        length: u64,
        entry: PagemapEntry,
    ) -> Result<Stored> {
        let (file, offset) = (Arc::clone(&self.file), self.offset);
        let (stored, wanted) = if entry.compressed_size.is_empty() {
            (Stored::Plain { file, offset }, length)
        } else {
            let size = u64::from(entry.region_pages().max(1)) * PAGE_SIZE;
            let blocks = Blocks { file, offset, size, length, stored: entry.compressed_size };
            let wanted = blocks.check().map_err(|what| image.invalid(what))?;
            (Stored::Compressed { blocks: Arc::new(blocks), skip: 0 }, wanted)
        };
        let left = self.available - offset;
        if wanted > left {
            let problem = Problem::Truncated { wanted, left };
            return Err(Error { path: path.to_owned(), offset: Some(offset), problem });
        }
        self.offset += wanted;
        Ok(stored)
    }
}

impl Blocks {
    /// Checks what is said of them, and returns how many bytes of the file they take.
    fn check(&self) -> std::result::Result<u64, String> {
        if self.size > MAX_BLOCK {
            return Err(format!(
                "compressed blocks of {} bytes: CRIU writes smaller ones",
                self.size
            ));
        }
        let blocks = self.length.div_ceil(self.size);
        if blocks != self.stored.len() as u64 {
            return Err(format!(
                "{blocks} compressed blocks, and the sizes of {}",
                self.stored.len()
            ));
        }
        let mut sum = 0;
        for (block, &stored) in (0..).zip(&self.stored) {
            let holds = self.holds(block);
            if u64::from(stored) > holds {
                return Err(format!("a compressed block of {stored} bytes, which holds {holds}"));
            }
            sum += u64::from(stored);
        }
        Ok(sum)
    }

    /// How many bytes a block holds.
    fn holds(&self, block: u64) -> u64 {
        self.size.min(self.length - block * self.size)
    }
}

/// Reads runs; keeps the files open that it met.
#[derive(Default)]
struct Reader {
    open: HashMap<*const Named, Section>,
    packed: Vec<u8>,
    block: Vec<u8>,
}

impl Reader {
    fn read(&mut self, stored: &Stored, memory: &mut [u8]) -> Result<()> {
        match stored {
            Stored::Plain { file, offset } => self.open(file)?.read_exact_at(memory, *offset),
            Stored::Compressed { blocks, skip } => {
                self.unpack(blocks, *skip, memory.len() as u64, |at, bytes| {
                    memory[at..at + bytes.len()].copy_from_slice(bytes);
                })
            }
            Stored::InParent => unreachable!("what is there took its place"),
        }
    }

    /// Unpacks `length` bytes from `skip` on, and calls `put` with each piece that is not zero, and
    /// where among them it begins.
    fn unpack(
        &mut self,
        blocks: &Blocks,
        skip: u64,
        length: u64,
        mut put: impl FnMut(usize, &[u8]),
    ) -> Result<()> {
        self.open(&blocks.file)?;
        let mut offset = blocks.offset;
        for (block, &stored) in (0..).zip(&blocks.stored) {
            let start = block * blocks.size;
            let end = start + blocks.holds(block);
            let (from, to) = (start.max(skip), end.min(skip + length));
            if from < to && stored > 0 {
                self.unpack_block(blocks, offset, stored, to_index(end - start))?;
                put(
                    to_index(from - skip),
                    &self.block[to_index(from - start)..to_index(to - start)],
                );
            }
            offset += u64::from(stored);
        }
        Ok(())
    }

    /// Unpacks a block of `stored` bytes, which holds `holds`.
    fn unpack_block(&mut self, blocks: &Blocks, at: u64, stored: u32, holds: usize) -> Result<()> {
        self.block.resize(holds, 0);
        let file = &self.open[&Arc::as_ptr(&blocks.file)];
        if stored as usize == holds {
            return file.read_exact_at(&mut self.block, at);
        }
        self.packed.resize(stored as usize, 0);
        file.read_exact_at(&mut self.packed, at)?;
        let unpacked = lz4_flex::block::decompress_into(&self.packed, &mut self.block);
        let what = match unpacked {
            Ok(length) if length == holds => return Ok(()),
            Ok(length) => format!("it holds {length} bytes and not {holds}"),
            Err(error) => error.to_string(),
        };
        Err(Error {
            path: file.path().to_owned(),
            offset: Some(at),
            problem: Problem::Invalid(format!("a damaged block of LZ4-compressed pages: {what}")),
        })
    }

    fn open(&mut self, file: &Arc<Named>) -> Result<&Section> {
        match self.open.entry(Arc::as_ptr(file)) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(place) => {
                let missing = || file.images.missing(&file.name);
                Ok(place.insert(file.images.find(&file.name)?.ok_or_else(missing)?))
            }
        }
    }
}

/// A number of bytes of a block, which [`MAX_BLOCK`] limits, or of a segment that is in memory.
fn to_index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("it fits into memory")
}
