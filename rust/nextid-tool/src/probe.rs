// SPDX-License-Identifier: GPL-2.0

//! `nextid probe`: what this kernel can do, and what the caller may do.
//!
//! Nothing is guessed from capabilities: the kernel is asked. Processes are asked for by the ids of
//! this one, which cannot be had: who may ask is told that they are in use. The others have no such
//! question, so a message queue is created and removed, a pseudoterminal is opened and closed, and
//! the id of this process, which is in use, is to be reserved.

use std::fmt;
use std::fs;
use std::io;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result, anyhow};
use nextid::{
    Action, Error, IPC_PRIVATE, Ids, IpcKind, Kind, MessageQueue, Method, NextId, Pids, Pty,
    Reservation, Status,
};
use nix::sys::utsname::uname;
use serde::Serialize;

use crate::failure;
use crate::reserve::LAST_PID;

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
    fn new(what: impl Into<String>, result: Result<()>) -> Self {
        Self {
            what: what.into(),
            possible: result.is_ok(),
            status: result.as_ref().err().map_or(0, failure::status),
            why: result.err().map(|error| failure::text(&error)),
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
            opened => !matches!(opened, Err(Error::NotSupported(_))),
        };
        let mut checks = Vec::new();
        match NextId::open_or_fallback() {
            Ok(mut next) => check_all(&mut next, &mut checks)?,
            Err(error) => checks.push(Check::new("open the file", Err(error.into()))),
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
    let has_file = next.method() != Method::Fallback;
    if has_file {
        let armed = next.arm(Pids(&[1])).map(drop);
        checks.push(Check::new("arm ids", armed.map_err(Into::into)));
    }
    let own = own_ids()?;
    for levels in 1..=own.len() {
        let what = match levels {
            1 if has_file => "processes and threads".to_owned(),
            1 => "processes".to_owned(),
            2 => "  with an id in the pid namespace above".to_owned(),
            _ => format!("  with an id {} pid namespaces above", levels - 1),
        };
        let refused = next.arm(Pids(&own[..levels])).and_then(|armed| armed.fork(|| 0).map(drop));
        checks.push(Check::new(what, in_use_or_made(refused)));
    }
    if !has_file {
        checks.push(Check::new("threads", rewrite_last_pid()));
    }
    checks.push(Check::new("System V IPC objects", create_queue(next)));
    if has_file {
        // Other openers begin with low indexes.
        let opened = next.arm(Pty(4000)).and_then(|armed| armed.open("/dev/ptmx").map(drop));
        checks.push(Check::new("pseudoterminals", in_use_or_made(opened)));
        // None can reserve 1.
        let reserved = Reservation::new([(Kind::Task, &[own[0].max(2)][..])]).map(drop);
        checks.push(Check::new("reservations", in_use_or_made(reserved)));
    }
    Ok(())
}

/// Who may not ask is not told that it is in use.
fn in_use_or_made(asked: nextid::Result<()>) -> Result<()> {
    match asked {
        Err(Error::Taken { .. }) => Ok(()),
        asked => Ok(asked?),
    }
}

/// The ids of this process, innermost first, as far as `/proc` shows.
fn own_ids() -> Result<Vec<i64>> {
    let status = Status::read("/proc/self").context("cannot read /proc/self/status")?;
    Ok(status.ids("NSpid").into_iter().rev().collect())
}

/// Writes what it says to the sysctl that threads take without the file.
fn rewrite_last_pid() -> Result<()> {
    let written = fs::read_to_string(LAST_PID).and_then(|pid| fs::write(LAST_PID, pid.trim()));
    written.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Error::NotPermitted { action: Action::Thread, ids: Ids::default() }.into()
        }
        _ => anyhow!("cannot write {LAST_PID}: {error}"),
    })
}

fn create_queue(next: &mut NextId) -> Result<()> {
    // The kernel begins with low indexes: one near the end is free as a rule.
    let created = next.arm(MessageQueue(32_700)).and_then(|armed| armed.create(IPC_PRIVATE, 0));
    match created {
        Ok(queue) => Ok(IpcKind::MessageQueue.remove(queue)?),
        Err(error) => in_use_or_made(Err(error)),
    }
}
