// SPDX-License-Identifier: GPL-2.0

//! Pseudoterminals.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::slice;

use nix::errno::Errno;
use nix::libc::{self, c_uint};

use crate::error::{Action, Result};
use crate::kind::Kind;
use crate::next_id::{Armed, Request, sealed};

/// The index of a pseudoterminal to be opened, which is its name in `/dev/pts`.
///
/// ```no_run
/// use nextid::{NextId, Pty};
///
/// // Its other side is /dev/pts/7.
/// let master = NextId::open()?.arm(Pty(7))?.open("/dev/ptmx")?;
/// # Ok::<(), nextid::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pty(pub i64);

impl sealed::Request for Pty {}

impl Request for Pty {
    fn kind(&self) -> Kind {
        Kind::Pty
    }

    fn ids(&self) -> &[i64] {
        slice::from_ref(&self.0)
    }
}

impl Armed<'_, Pty> {
    /// Opens a pseudoterminal with this index by the file `ptmx`, such as `/dev/ptmx`, and returns
    /// the master side. It does not become the controlling terminal.
    ///
    /// # Errors
    ///
    /// [`Error::Taken`](crate::Error::Taken) where the index is in use,
    /// [`Error::OutOfRange`](crate::Error::OutOfRange) where this instance of devpts has no such
    /// index, [`Error::NotPermitted`](crate::Error::NotPermitted),
    /// [`Error::UsedUp`](crate::Error::UsedUp) where something else got it, and
    /// [`Error::System`](crate::Error::System) for any other reason. It is disarmed then.
    pub fn open(self, ptmx: impl AsRef<Path>) -> Result<File> {
        let options =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).clone();
        let opened = options.open(ptmx).and_then(|master| Ok((index(&master)?, master)));
        match opened {
            Ok((index, master)) if i64::from(index) == self.first() => {
                self.consumed();
                Ok(master)
            }
            Ok(_) => Err(self.used_up(Action::OpenPty)),
            Err(error) => Err(self.refused(Action::OpenPty, error)),
        }
    }
}

/// The index of a pseudoterminal whose master side is open.
fn index(master: &File) -> io::Result<c_uint> {
    let mut index = 0;
    // SAFETY: The request writes an `unsigned int`.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut index) };
    Errno::result(result)?;
    Ok(index)
}
