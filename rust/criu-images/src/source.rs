// SPDX-License-Identifier: GPL-2.0

//! Where images come from: a folder, or an archive, and the dumps that they build on.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

use crate::archive::Archive;
use crate::{Error, Problem, Result};

/// The image that each dump has.
pub const INVENTORY: &str = "inventory.img";

/// Where the engines of containers put the images, in what they export.
pub const CHECKPOINT: &str = "checkpoint";

/// The link to the dump that this one builds on.
pub const PARENT: &str = "parent";

/// The most dumps that build on each other. A link that leads back to itself has no end.
const MAX_CHAIN: usize = 1000;

/// Where the images of a dump are, opened once: a folder, or an archive of one.
///
/// It may also be what the engines of containers export and `tar` unpacks, with the images in
/// `checkpoint/`. An archive is a tar file, as it is or compressed by gzip or zstd, and is read in
/// one pass. Of a compressed one, the images that a restore of ids can need are unpacked into a
/// temporary file without a name, in `$TMPDIR` or else `/var/tmp`: no path in it is ever made.
#[derive(Clone, Debug)]
pub struct Images(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    /// What it is called in errors.
    path: PathBuf,
    place: Place,
    parent: OnceLock<Images>,
    /// How many dumps build on it.
    below: usize,
}

#[derive(Debug)]
enum Place {
    Folder(OwnedFd),
    /// A folder in an archive.
    Archive(Arc<Archive>, PathBuf),
}

impl Images {
    /// Opens the folder or archive at `path`.
    ///
    /// # Errors
    ///
    /// Where it is neither, cannot be read, or has no images.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |errno: Errno| error_at(path, io::Error::from(errno));
        let place = match open_folder(AT_FDCWD, path) {
            Ok(folder) => Place::Folder(with_images(folder, path)?),
            Err(Errno::ENOTDIR) => {
                let file = open_file(AT_FDCWD, path).map_err(failed)?;
                let archive = Archive::read(path, file)?;
                let folder = archive.main_folder(path)?;
                Place::Archive(Arc::new(archive), folder)
            }
            Err(errno) => return Err(failed(errno)),
        };
        Ok(Self::new(path.to_owned(), place, 0))
    }

    /// Lets these images build on those of `parent`, wherever their own link leads.
    ///
    /// Engines of containers export a pre-dump as an archive of its own, to which no link can lead.
    #[must_use]
    pub fn built_on(self, parent: Self) -> Self {
        // It is empty before the first use.
        let _ = self.0.parent.set(parent);
        self
    }

    fn new(path: PathBuf, place: Place, below: usize) -> Self {
        Self(Arc::new(Opened { path, place, parent: OnceLock::new(), below }))
    }

    /// What a file is called in errors.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        match &self.0.place {
            Place::Folder(_) => self.0.path.join(name),
            Place::Archive(_, folder) => path_in(&self.0.path, &folder.join(name)),
        }
    }

    /// Opens a file that need not be there.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Section>> {
        let path = self.path_of(name);
        match &self.0.place {
            Place::Folder(folder) => match open_file(folder, Path::new(name)) {
                Ok(file) => Section::whole(file, path).map(Some),
                Err(Errno::ENOENT) => Ok(None),
                Err(errno) => Err(error_at(&path, io::Error::from(errno))),
            },
            Place::Archive(archive, folder) => Ok(archive.find(&folder.join(name), path)),
        }
    }

    /// The error that a file is not there.
    pub(crate) fn missing(&self, name: &str) -> Error {
        error_at(&self.path_of(name), Errno::ENOENT.into())
    }

    /// The images that these build on.
    pub(crate) fn parent(&self) -> Result<&Self> {
        if let Some(parent) = self.0.parent.get() {
            return Ok(parent);
        }
        let below = self.0.below + 1;
        let none = |why: String| Error {
            path: self.0.path.clone(),
            offset: None,
            problem: Problem::NoParent(why),
        };
        if below == MAX_CHAIN {
            return Err(none(format!("so on, {MAX_CHAIN} times: its links lead in a circle")));
        }
        let parent = match &self.0.place {
            Place::Folder(folder) => {
                let found = open_folder(folder, Path::new(PARENT));
                let found = found.map_err(|errno| none(format!("its link `parent`: {errno}")))?;
                Self::new(self.0.path.join(PARENT), Place::Folder(found), below)
            }
            Place::Archive(archive, folder) => {
                let found = archive.parent_of(folder).map_err(none)?;
                let place = Place::Archive(Arc::clone(archive), found);
                Self::new(self.0.path.clone(), place, below)
            }
        };
        Ok(self.0.parent.get_or_init(|| parent))
    }
}

/// What a file in an archive is called in errors.
pub fn path_in(archive: &Path, file: &Path) -> PathBuf {
    let mut path = OsString::from(archive);
    path.push(":");
    path.push(file);
    path.into()
}

fn error_at(path: &Path, error: io::Error) -> Error {
    Error { path: path.to_owned(), offset: None, problem: error.into() }
}

fn open_folder(from: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    openat(from, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens a file; one that is no regular file is told by [`Section::whole`].
fn open_file(from: impl AsFd, path: &Path) -> nix::Result<File> {
    // To open a pipe could take for ever.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    openat(from, path, flags, Mode::empty()).map(File::from)
}

/// The folder with the images: the one at `path`, or the one that engines of containers make in it.
fn with_images(folder: OwnedFd, path: &Path) -> Result<OwnedFd> {
    let has_images = |folder: &OwnedFd| {
        // Where it is there and cannot be opened, that is to be told.
        !matches!(open_file(folder, Path::new(INVENTORY)), Err(Errno::ENOENT))
    };
    if has_images(&folder) {
        return Ok(folder);
    }
    match open_folder(&folder, Path::new(CHECKPOINT)) {
        Ok(inner) if has_images(&inner) => Ok(inner),
        _ => Err(Error {
            path: path.to_owned(),
            offset: None,
            problem: Problem::Invalid(format!(
                "no dump of CRIU: there is neither {INVENTORY} nor {CHECKPOINT}/{INVENTORY} in it"
            )),
        }),
    }
}

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
        let metadata = file.metadata().map_err(|error| error_at(&path, error))?;
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
