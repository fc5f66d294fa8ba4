// SPDX-License-Identifier: GPL-2.0

//! Exit statuses, as the help lists them.

use std::fmt;

use nextid::{Action, Error, Holder};
use nix::errno::Errno;
use nix::unistd::getpid;

pub const OTHER: u8 = 1;
pub const NOT_SUPPORTED: u8 = 3;
pub const NOT_PERMITTED: u8 = 4;
pub const IN_USE: u8 = 5;
pub const OUT_OF_RANGE: u8 = 6;
pub const BAD_IMAGES: u8 = 7;

/// Ids that are in use, found before anything was made.
#[derive(Debug)]
pub struct InUse(pub Vec<Holder>);

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ids are in use, and nothing was made:")?;
        for holder in &self.0 {
            write!(f, "\n  {holder}")?;
        }
        let own = getpid().as_raw();
        if self.0.iter().any(|holder| matches!(holder, Holder::Task { pid, .. } if *pid == own)) {
            f.write_str(
                "\nnextid itself is in the way. The shell that starts it can give it another id: \
                 echo \"PID <free id>\" >/proc/self/next_id; nextid restore ...",
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for InUse {}

/// Something else that stands in the way, found before anything was made.
#[derive(Debug)]
pub struct Hindrance {
    /// The exit status.
    pub status: u8,
    pub text: String,
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Hindrance {}

/// A dump of what this tool does not know how to make.
#[derive(Debug)]
pub struct NotUnderstood(pub String);

impl fmt::Display for NotUnderstood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotUnderstood {}

/// A namespace that could not be made.
#[derive(Debug)]
pub struct NoNamespace {
    pub kind: &'static str,
    pub error: Errno,
}

impl fmt::Display for NoNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot make {} namespace: {}", self.kind, self.error)?;
        if self.error == Errno::EPERM {
            f.write_str(
                "; that takes CAP_SYS_ADMIN: be root, or run it by unshare --user --map-root-user",
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for NoNamespace {}

/// What went wrong in a process that was being restored.
#[derive(Debug)]
pub struct Remote {
    pub status: u8,
    pub text: String,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; all that was made is undone", self.text)
    }
}

impl std::error::Error for Remote {}

/// The exit status for an `error` of the library.
pub fn status_of(error: &Error) -> u8 {
    match error {
        Error::NotSupported(_) => NOT_SUPPORTED,
        Error::NotPermitted { .. } => NOT_PERMITTED,
        Error::Taken { .. } | Error::KeyInUse { .. } => IN_USE,
        Error::OutOfRange { .. } | Error::TooManyLevels { .. } | Error::Count { .. } => {
            OUT_OF_RANGE
        }
        _ => OTHER,
    }
}

/// The exit status for `error`.
pub fn status(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<Error>() {
            return status_of(error);
        }
        if let Some(remote) = cause.downcast_ref::<Remote>() {
            return remote.status;
        }
        if let Some(hindrance) = cause.downcast_ref::<Hindrance>() {
            return hindrance.status;
        }
        if let Some(NoNamespace { error: Errno::EPERM, .. }) = cause.downcast_ref() {
            return NOT_PERMITTED;
        }
        if cause.is::<InUse>() {
            return IN_USE;
        }
        if cause.is::<criu_images::Error>() || cause.is::<NotUnderstood>() {
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
    if error.chain().any(is_limited) {
        text += "; that many processes and threads are not allowed: see the limits pids.max of the \
                 cgroup, ulimit -u (RLIMIT_NPROC) and kernel.threads-max";
    }
    text
}

/// Whether a process or thread could not be made for want of room.
fn is_limited(cause: &(dyn std::error::Error + 'static)) -> bool {
    match cause.downcast_ref() {
        Some(Error::System {
            action: Action::Fork | Action::Spawn | Action::Thread,
            source,
            ..
        }) => source.raw_os_error() == Some(Errno::EAGAIN as i32),
        _ => false,
    }
}
