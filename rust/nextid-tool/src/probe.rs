// SPDX-License-Identifier: GPL-2.0

//! `nextid probe`: what this kernel can do, and what the caller may do.
//!
//! Nothing is guessed from capabilities: the kernel is asked. Processes are asked for by the ids of
//! this one, which cannot be had: who may ask is told that they are in use. IPC has no such
//! question, so a message queue is created and removed.

use std::fmt;
use std::fs;
use std::io;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};
use nextid::{Action, Error, IPC_PRIVATE, Id, Ids, Method, NextId};
use nix::libc;
use nix::sys::utsname::uname;
use serde::Serialize;

use crate::failure;

const YES: Style = AnsiColor::Green.on_default();
const NO: Style = AnsiColor::Red.on_default();

#[derive(Serialize)]
pub struct Probe {
    kernel: String,
    /// Whether the kernel has `next_id`.
    next_id: bool,
    /// What may be done with it, or with `--fallback` where it is not there.
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    what: String,
    possible: bool,
    /// Why not.
    why: Option<String>,
    /// The exit status that says so.
    #[serde(skip)]
    status: u8,
}

impl Check {
    fn new(what: impl Into<String>, result: nextid::Result<()>) -> Self {
        Self {
            what: what.into(),
            possible: result.is_ok(),
            status: result.as_ref().err().map_or(0, failure::status_of),
            why: result.err().map(|error| error.to_string()),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes_no = |yes: bool| if yes { (YES, "yes") } else { (NO, "no") };
        let (style, text) = yes_no(self.next_id);
        let what = format!("Linux {} has next_id", self.kernel);
        let width = self.checks.iter().map(|check| check.what.len()).fold(what.len(), usize::max);
        writeln!(f, "{what:width$}  {style}{text}{style:#}")?;
        if !self.next_id {
            writeln!(f, "\nWith --fallback (see nextid --help for what is lost):")?;
        }
        for check in &self.checks {
            let (style, text) = yes_no(check.possible);
            write!(f, "{:width$}  {style}{text}{style:#}", check.what)?;
            match &check.why {
                Some(why) => writeln!(f, ": {why}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

impl Probe {
    /// Asks the kernel.
    pub fn new() -> Result<Self> {
        let kernel = uname()?.release().to_string_lossy().into_owned();
        let next_id = match NextId::open() {
            Err(error @ Error::NoProc) => return Err(error.into()),
            opened => !matches!(opened, Err(Error::NotSupported)),
        };
        let mut checks = Vec::new();
        match NextId::open_or_fallback() {
            Ok(mut next) => check_all(&mut next, &mut checks)?,
            Err(error) => checks.push(Check::new("open the file", Err(error))),
        }
        Ok(Self { kernel, next_id, checks })
    }

    /// Tells a program what the text tells people.
    pub fn exit_code(&self) -> ExitCode {
        if self.next_id {
            let failed = self.checks.iter().find(|check| !check.possible);
            failed.map_or(ExitCode::SUCCESS, |check| check.status.into())
        } else {
            failure::NOT_SUPPORTED.into()
        }
    }
}

fn check_all(next: &mut NextId, checks: &mut Vec<Check>) -> Result<()> {
    let has_file = next.method() == Method::NextId;
    if has_file {
        checks.push(Check::new("arm ids", next.arm(&[1]).map(drop)));
    }
    let own = own_ids()?;
    for levels in 1..=own.len() {
        let what = match levels {
            1 if has_file => "processes and threads".to_owned(),
            1 => "processes".to_owned(),
            2 => "  with an id in the pid namespace above".to_owned(),
            _ => format!("  with an id {} pid namespaces above", levels - 1),
        };
        let refused = next.arm(&own[..levels]).and_then(|armed| armed.fork(|| 0).map(drop));
        checks.push(Check::new(
            what,
            match refused {
                Err(Error::Taken { .. }) => Ok(()),
                other => other,
            },
        ));
    }
    if !has_file {
        checks.push(Check::new("threads", rewrite_last_pid()));
    }
    checks.push(Check::new("System V IPC objects", create_queue(next)));
    Ok(())
}

/// The ids of this process, innermost first, as far as `/proc` shows.
fn own_ids() -> Result<Vec<Id>> {
    let status =
        fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    Ok(ids.split_whitespace().rev().map(str::parse).collect::<Result<_, _>>()?)
}

/// Writes what it says to the sysctl that threads take without the file.
fn rewrite_last_pid() -> nextid::Result<()> {
    let path = "/proc/sys/kernel/ns_last_pid";
    let written = fs::read_to_string(path).and_then(|pid| fs::write(path, pid.trim()));
    let (action, ids) = (Action::Thread, Ids::default());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Error::NotPermitted { action, ids },
        kind => {
            let error = io::Error::new(kind, format!("cannot write {path}: {error}"));
            Error::System { action, ids, error }
        }
    })
}

fn create_queue(next: &mut NextId) -> nextid::Result<()> {
    // The kernel begins with low indexes: one near the end is free as a rule.
    let id = 32_700;
    let queue = match next.arm(&[id])?.message_queue(IPC_PRIVATE, 0) {
        Ok(queue) => queue,
        Err(Error::Taken { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    // SAFETY: IPC_RMID takes no pointer.
    unsafe { libc::msgctl(queue, libc::IPC_RMID, std::ptr::null_mut()) };
    Ok(())
}
