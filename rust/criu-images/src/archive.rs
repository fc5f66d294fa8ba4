// SPDX-License-Identifier: GPL-2.0

//! An archive with images in it: a tar file, as it is or compressed.
//!
//! Images come in any order, and a compressed archive cannot be read backwards. So what may be
//! needed of it is copied into a temporary file on the way; a tar file as it is serves for that
//! itself. Then any part of any image can be read, and memory has but the list of them.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::env;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;
use prost::Message;
use tar::{Entries, Entry};

use crate::error::{Error, Problem, Result};
use crate::layout::{CHECKPOINT, INVENTORY, PARENT};
use crate::proto::PagemapHead;
use crate::section::Section;

/// The most bytes that may stand between two files, before the names of either: the headers of tar,
/// long names and extended attributes.
const MAX_HEADERS: u64 = 1 << 20;

/// The most bytes of a path, `PATH_MAX`.
const MAX_PATH: usize = 4096;

/// How files begin that are compressed in a way that is read.
const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// How much is copied at once.
const CHUNK: usize = 64 << 10;

/// How much of an image of pagemaps has its head.
const HEAD: u64 = 64;

/// The images in an archive.
#[derive(Debug)]
pub struct Archive {
    /// What has their bytes.
    file: Arc<File>,
    images: HashMap<PathBuf, Span>,
    /// Where the link `parent` of a folder leads, for each that has one.
    parents: HashMap<PathBuf, PathBuf>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u64,
    length: u64,
}

impl Archive {
    /// Reads the archive `file`, which is at `path`.
    pub fn read(path: &Path, file: File) -> Result<Self> {
        let whole =
            Section::whole(file.try_clone().map_err(|it| damaged(path, &it))?, path.into())?;
        let mut start = [0; 6];
        let known = usize::try_from(whole.length()).map_or(start.len(), |it| it.min(start.len()));
        whole.read_exact_at(&mut start[..known], 0)?;

        let mut scan = Scan::default();
        let (is_gzip, is_zstd) = (start.starts_with(GZIP), start.starts_with(ZSTD));
        let read = match start {
            _ if is_gzip => scan.unpack(MultiGzDecoder::new(BufReader::new(file))),
            _ if is_zstd => zstd::Decoder::new(file).and_then(|it| scan.unpack(it)),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(other_compression(path, "xz")),
            [b'B', b'Z', b'h', ..] => return Err(other_compression(path, "bzip2")),
            [0x04, 0x22, 0x4d, 0x18, ..] => return Err(other_compression(path, "lz4")),
            _ => scan.index(file, whole.length()),
        };
        match read {
            Ok(file) => {
                Ok(Self { file: Arc::new(file), images: scan.images, parents: scan.parents })
            }
            Err(error) if scan.files == 0 && !is_gzip && !is_zstd => Err(invalid(
                path,
                format!(
                    "neither a folder with images of CRIU nor an archive of one, which is a tar \
                     file, also compressed by gzip or zstd: {error}"
                ),
            )),
            Err(error) => Err(damaged(path, &error)),
        }
    }

    /// Opens an image, which is called `path` in errors.
    pub fn find(&self, image: &Path, path: PathBuf) -> Option<Section> {
        let Span { start, length } = *self.images.get(image)?;
        Some(Section::part(Arc::clone(&self.file), start, length, path))
    }

    /// The folder of the dump that is to be restored: what others build on is not it.
    pub fn main_folder(&self, path: &Path) -> Result<PathBuf> {
        let parents: HashSet<_> = self.parents.values().collect();
        let images = self.images.keys().filter(|image| image.ends_with(INVENTORY));
        let folders = images.filter_map(|image| image.parent());
        let mut folders: Vec<&Path> =
            folders.filter(|&it| !parents.contains(&it.to_owned())).collect();
        folders.sort_unstable();
        let usual = |folder: &&&Path| **folder == Path::new(CHECKPOINT);
        match (&*folders, folders.iter().find(usual)) {
            ([folder], _) | (_, Some(folder)) => Ok((*folder).to_owned()),
            ([], _) if self.images.keys().any(|image| image.ends_with(INVENTORY)) => {
                Err(invalid(path, "the links `parent` of its dumps lead in a circle".to_owned()))
            }
            ([], _) => {
                let message = format!("no dump of CRIU: there is no {INVENTORY} in this archive");
                Err(invalid(path, message))
            }
            (several, None) => {
                let names: Vec<_> =
                    several.iter().map(|folder| format!("`{}`", folder.display())).collect();
                Err(invalid(
                    path,
                    format!("several dumps, in {}: unpack it, and name one", names.join(", ")),
                ))
            }
        }
    }

    /// The folder that the dump in `folder` builds on; an error says where it should be.
    pub fn parent_of(&self, folder: &Path) -> std::result::Result<PathBuf, String> {
        let Some(parent) = self.parents.get(folder) else {
            return Err("there is no link `parent` with its images".to_owned());
        };
        if self.images.keys().any(|image| image.parent() == Some(parent)) {
            return Ok(parent.clone());
        }
        Err(format!("nothing of that, `{}`, is in this archive", parent.display()))
    }
}

fn invalid(path: &Path, what: String) -> Error {
    Error { path: path.to_owned(), offset: None, problem: Problem::Invalid(what) }
}

fn other_compression(path: &Path, name: &str) -> Error {
    let what = format!("an archive that {name} compressed, and not gzip or zstd: unpack it before");
    invalid(path, what)
}

fn damaged(path: &Path, error: &io::Error) -> Error {
    let error = io::Error::new(error.kind(), format!("the archive cannot be read on: {error}"));
    Error { path: path.to_owned(), offset: None, problem: error.into() }
}

/// What was found so far.
#[derive(Default)]
struct Scan {
    /// How many files, of any kind.
    files: u64,
    images: HashMap<PathBuf, Span>,
    parents: HashMap<PathBuf, PathBuf>,
    /// The images of pages that are the memory of a process, and no shared memory.
    private: HashSet<PathBuf>,
}

/// What is done with a file of an archive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It is not needed.
    None,
    /// That it is there tells something.
    Presence,
    /// Its beginning tells which pages are the memory of a process.
    Head,
    /// All of it may be needed.
    All,
}

impl Scan {
    /// Finds the images in a tar file that is not compressed, and leaves them there.
    fn index(&mut self, file: File, length: u64) -> io::Result<File> {
        let left = Rc::default();
        let mut archive = tar::Archive::new(Metered { inner: file, left: Rc::clone(&left) });
        let mut entries = archive.entries_with_seek()?;
        while let Some((path, entry, used)) = self.next(&mut entries, &left)? {
            let span = Span { start: entry.raw_file_position(), length: entry.size() };
            if span.start.checked_add(span.length).is_none_or(|end| end > length) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if matches!(used, Use::All | Use::Presence) {
                self.images.insert(path, span);
            }
        }
        Ok(archive.into_inner().inner)
    }

    /// Copies the images of a tar file that is being unpacked into a temporary file.
    fn unpack(&mut self, unpacked: impl Read) -> io::Result<File> {
        let mut copy = temporary_file()?;
        let mut start = 0;
        let left = Rc::default();
        let mut archive = tar::Archive::new(Metered { inner: unpacked, left: Rc::clone(&left) });
        let mut entries = archive.entries()?;
        while let Some((path, mut entry, used)) = self.next(&mut entries, &left)? {
            match used {
                Use::None => {}
                Use::Presence => {
                    self.images.insert(path, Span { start, length: 0 });
                }
                Use::Head => {
                    let mut head = Vec::new();
                    (&mut entry).take(HEAD).read_to_end(&mut head)?;
                    self.private.extend(pages_of(&path, &head));
                }
                Use::All => {
                    let length = append(&mut copy, &mut entry)?;
                    if length < entry.size() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.images.insert(path, Span { start, length });
                    start += length;
                }
            }
            // What is left of it is no header.
            io::copy(&mut entry, &mut io::sink())?;
        }
        copy.set_len(start)?;
        // The checksums follow the tar file.
        io::copy(&mut archive.into_inner().inner, &mut io::sink())?;
        Ok(copy)
    }

    /// The next regular file, and what it is used for. Notes the links `parent` on the way.
    fn next<'a, R: Read>(
        &mut self,
        entries: &mut Entries<'a, R>,
        left: &Cell<Option<u64>>,
    ) -> io::Result<Option<(PathBuf, Entry<'a, R>, Use)>> {
        loop {
            left.set(Some(MAX_HEADERS));
            let Some(entry) = entries.next() else { return Ok(None) };
            left.set(None);
            let mut entry = entry?;
            self.files += 1;
            let Some(path) = inside(&entry.path()?) else { continue };
            let kind = entry.header().entry_type();
            if kind.is_symlink() && path.ends_with(PARENT) {
                let folder = path.parent().unwrap_or(&path).to_owned();
                let link = entry.link_name()?.unwrap_or_default();
                self.parents.extend(inside(&folder.join(link)).map(|to| (folder, to)));
            }
            let used = use_of(&path, &self.private);
            if used != Use::None && is_sparse(&mut entry)? {
                return Err(io::Error::other(format!(
                    "{} is kept as a sparse file; pack it without --sparse",
                    path.display()
                )));
            }
            if kind.is_file() || kind.is_contiguous() {
                return Ok(Some((path, entry, used)));
            }
        }
    }
}

/// What the file at `path` is used for, where it is not known to have `private` memory.
fn use_of(path: &Path, private: &HashSet<PathBuf>) -> Use {
    let name = path.file_name().and_then(|name| name.to_str());
    let Some(stem) = name.and_then(|name| name.strip_suffix(".img")) else { return Use::None };
    match stem.split_once('-').unwrap_or((stem, "")) {
        ("inventory" | "pstree" | "core" | "ids" | "ipcns" | "mm", _) => Use::All,
        ("pagemap", of) if of.starts_with("shmem-") => Use::All,
        ("pagemap", _) => Use::Head,
        ("pages", of) if of.strip_suffix(".comp").is_some() => Use::Presence,
        ("pages", _) if !private.contains(path) => Use::All,
        _ => Use::None,
    }
}

/// The image of pages that the image of pagemaps at `path`, which begins with `head`, tells of.
fn pages_of(path: &Path, head: &[u8]) -> Option<PathBuf> {
    let length = u32::from_le_bytes(head.get(8..12)?.try_into().ok()?);
    let head = head.get(12..)?.get(..usize::try_from(length).ok()?)?;
    let id = PagemapHead::decode(head).ok()?.pages_id;
    Some(path.with_file_name(format!("pages-{id}.img")))
}

/// Whether a file has holes, of which the archive tells in one of the ways of GNU tar.
fn is_sparse<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<bool> {
    if entry.header().entry_type().is_gnu_sparse() {
        return Ok(true);
    }
    let Some(extensions) = entry.pax_extensions()? else { return Ok(false) };
    Ok(extensions.flatten().any(|it| it.key_bytes().starts_with(b"GNU.sparse.")))
}

/// A path in the archive without what means nothing in it; none where it leads out of it, or is
/// longer than a path can be.
fn inside(path: &Path) -> Option<PathBuf> {
    if path.as_os_str().len() > MAX_PATH {
        return None;
    }
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::ParentDir if !inside.pop() => return None,
            _ => {}
        }
    }
    Some(inside)
}

/// A file that nobody else sees, and that is gone with this process.
fn temporary_file() -> io::Result<File> {
    // Where /tmp is memory, large files belong elsewhere.
    let folder = env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    tempfile::tempfile_in(&folder).map_err(|error| {
        let message = format!("cannot make a temporary file in {}: {error}", folder.display());
        io::Error::new(error.kind(), message)
    })
}

/// Appends all of `from`; what is zero becomes a hole. Returns how long it is.
fn append(to: &mut File, from: &mut impl Read) -> io::Result<u64> {
    let mut length = 0;
    let mut chunk = vec![0; CHUNK];
    loop {
        let mut filled = 0;
        while filled < CHUNK {
            match from.read(&mut chunk[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            return Ok(length);
        }
        let bytes = &chunk[..filled];
        if bytes.iter().all(|&byte| byte == 0) {
            to.seek_relative(i64::try_from(filled).expect("a chunk is small"))?;
        } else {
            to.write_all(bytes)?;
        }
        length += filled as u64;
    }
}

/// A reader that stops where the headers of a file are longer than any that are meant: they are
/// kept in memory.
struct Metered<R> {
    inner: R,
    /// How many bytes may be read; none where the bytes of a file are, which are not kept.
    left: Rc<Cell<Option<u64>>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        if let Some(left) = self.left.get() {
            let Some(left) = left.checked_sub(read as u64) else {
                return Err(io::Error::other("a name, or what describes a file, is too long"));
            };
            self.left.set(Some(left));
        }
        Ok(read)
    }
}

impl<R: Seek> Seek for Metered<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// A tar file in which two processes have memory, and a segment has.
    fn archive() -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, name, bytes).unwrap();
        };
        let head = |pages_id| {
            let head = PagemapHead { pages_id }.encode_to_vec();
            [&[0; 8], &u32::try_from(head.len()).unwrap().to_le_bytes()[..], &head].concat()
        };
        add("checkpoint/pages-2.img", &vec![b'2'; 100_000]);
        add("checkpoint/pagemap-1.img", &head(1));
        add("checkpoint/pagemap-7.img", &head(2));
        add("checkpoint/pagemap-shmem-0.img", &head(3));
        add("checkpoint/pages-1.img", &vec![b'1'; 200_000]);
        add("checkpoint/pages-3.img", &vec![b'3'; 400_000]);
        add("rootfs-diff.tar", &vec![b'r'; 800_000]);
        archive.into_inner().unwrap()
    }

    #[test]
    fn what_is_not_needed_is_not_unpacked() {
        let mut scan = Scan::default();
        let copy = scan.unpack(&*archive()).unwrap();
        // The memory of a process whose pagemap came too late, the pagemap of the segment, its
        // pages.
        assert_eq!(copy.metadata().unwrap().len(), 100_000 + 14 + 400_000);
        let mut images: Vec<_> = scan.images.into_keys().collect();
        images.sort();
        let names = ["pagemap-shmem-0.img", "pages-2.img", "pages-3.img"];
        assert_eq!(images, names.map(|name| Path::new(CHECKPOINT).join(name)));
    }

    /// They would only fill the memory.
    #[test]
    fn a_path_that_is_too_long_is_none() {
        assert_eq!(inside(Path::new(&"x/".repeat(MAX_PATH / 2 + 1))), None);
        assert_eq!(inside(Path::new("a/./b/../c")), Some("a/c".into()));
    }

    #[test]
    fn what_is_zero_takes_no_room() {
        use std::os::unix::fs::MetadataExt;

        let mut copy = temporary_file().unwrap();
        let mut bytes = vec![0; 64 << 20];
        bytes[32 << 20] = 1;
        append(&mut copy, &mut &*bytes).unwrap();
        assert!(copy.metadata().unwrap().blocks() * 512 < 1 << 20);
        let mut copied = vec![0; bytes.len()];
        copy.set_len(bytes.len() as u64).unwrap();
        std::os::unix::fs::FileExt::read_exact_at(&copy, &mut copied, 0).unwrap();
        assert!(copied == bytes);
    }
}
