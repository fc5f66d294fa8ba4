// SPDX-License-Identifier: GPL-2.0

//! Where images come from: a folder, or an archive, and the dumps that they build on.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat};

use crate::archive::Archive;
use crate::error::{Error, Problem, Result};
use crate::layout::{CHECKPOINT, INVENTORY, PARENT};
use crate::section::Section;

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
        let failed = |errno: Errno| Error::at(path, io::Error::from(errno));
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
                Err(errno) => Err(Error::at(&path, io::Error::from(errno))),
            },
            Place::Archive(archive, folder) => Ok(archive.find(&folder.join(name), path)),
        }
    }

    /// The error that a file is not there.
    pub(crate) fn missing(&self, name: &str) -> Error {
        Error::at(&self.path_of(name), Errno::ENOENT.into())
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

fn open_folder(from: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    openat(from, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens a file. One that is no regular file can only be looked at, of which [`Section::whole`]
/// tells: to open a pipe could take for ever, and to open a device can do something.
fn open_file(from: impl AsFd, path: &Path) -> nix::Result<File> {
    let mode = fstatat(&from, path, AtFlags::empty())?.st_mode;
    let is_file = SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFREG;
    let access = if is_file { OFlag::O_RDONLY } else { OFlag::O_PATH };
    // It may be another one by now.
    let flags = access | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
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
