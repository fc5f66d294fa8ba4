// SPDX-License-Identifier: GPL-2.0

//! What keeps a command from being done, and the exit statuses that say so.

use std::fmt;

use nextid::{Action, Error, IpcKind};
use nix::errno::Errno;

use crate::report::{self, BAD};

pub const OTHER: u8 = 1;
pub const WRONG_COMMAND_LINE: u8 = 2;
pub const NOT_SUPPORTED: u8 = 3;
pub const NOT_PERMITTED: u8 = 4;
pub const IN_USE: u8 = 5;
pub const OUT_OF_RANGE: u8 = 6;
pub const BAD_IMAGES: u8 = 7;

/// What each exit status says, for the help and the man page.
pub const STATUSES: [(u8, &str); 8] = [
    (0, "all is as asked"),
    (OTHER, "something else failed"),
    (WRONG_COMMAND_LINE, "the command line is wrong"),
    (NOT_SUPPORTED, "this kernel does not support it"),
    (NOT_PERMITTED, "a capability is missing"),
    (IN_USE, "an id is in use, or reserved"),
    (
        OUT_OF_RANGE,
        "an id or a limit is out of range, there are more ids than pid namespaces, or an owner has
no number in this user namespace",
    ),
    (BAD_IMAGES, "the images of a dump are damaged, or not understood"),
];

/// What this tool itself finds to be wrong.
#[derive(Debug)]
pub struct Failure {
    /// The exit status.
    pub status: u8,
    pub text: String,
}

impl Failure {
    pub fn new(status: u8, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// A dump has what this tool does not know how to make.
    pub fn not_understood(text: impl Into<String>) -> Self {
        Self::new(BAD_IMAGES, text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// The exit status for an `error` of the library.
pub fn status_of(error: &Error) -> u8 {
    match error {
        Error::NotSupported(_) => NOT_SUPPORTED,
        Error::NotPermitted { .. } => NOT_PERMITTED,
        Error::Taken { .. } | Error::KeyInUse { .. } => IN_USE,
        Error::OutOfRange { .. }
        | Error::TooManyLevels { .. }
        | Error::TooManyReserved { .. }
        | Error::Count { .. } => OUT_OF_RANGE,
        _ => OTHER,
    }
}

/// The exit status for `error`.
pub fn status(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<Error>() {
            return status_of(error);
        }
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.status;
        }
        if cause.is::<criu_images::Error>() {
            return BAD_IMAGES;
        }
    }
    OTHER
}

/// What to tell a person of `error`: its causes, who has the ids that are in use, and what limits
/// apply.
pub fn text(error: &anyhow::Error) -> String {
    let causes = error.chain().map(|cause| {
        let holders = cause.downcast_ref().map(Error::holders).unwrap_or_default();
        let holders = holders.iter().map(|holder| format!("\n  {holder}"));
        cause.to_string() + &holders.collect::<String>()
    });
    let mut text = causes.collect::<Vec<_>>().join(": ");
    if let Some(limits) = error.chain().find_map(limits_of) {
        text.push_str("; there can be no more of them: see the limits ");
        text.push_str(limits);
    }
    text
}

/// Tells a person of `error`.
pub fn tell(error: &anyhow::Error) {
    report::tell(format_args!("{BAD}nextid:{BAD:#} {}", text(error)));
}

/// The limits for what could not be made for want of room.
fn limits_of(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let Some(Error::System { action, source, .. }) = cause.downcast_ref() else { return None };
    Some(match (action, Errno::from_raw(source.raw_os_error()?)) {
        (Action::Fork | Action::Spawn | Action::Thread, Errno::EAGAIN) => {
            "pids.max of the cgroup, ulimit -u (RLIMIT_NPROC) and kernel.threads-max"
        }
        (Action::Create(IpcKind::MessageQueue), Errno::ENOSPC) => "kernel.msgmni",
        (Action::Create(IpcKind::SemaphoreSet), Errno::ENOSPC) => "kernel.sem",
        (Action::Create(IpcKind::SharedMemory), Errno::ENOSPC) => "kernel.shmmni and kernel.shmall",
        (Action::OpenPty, Errno::ENOSPC) => "kernel.pty.max, and max= of the devpts",
        _ => return None,
    })
}
