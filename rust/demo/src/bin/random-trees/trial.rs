// SPDX-License-Identifier: GPL-2.0

//! A trial: a tree is dumped and ended, restored, and compared with what it was.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Error, Result, bail};
use demo::{observe, restore};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::history::History;
use crate::process::Tree;

/// The programs that dump and restore.
pub struct Programs<'a> {
    pub criu: &'a Path,
    pub nextid: &'a Path,
    /// Whether this kernel has no `next_id`.
    pub fallback: bool,
}

/// What a trial came to.
pub enum Outcome {
    /// The tree came back as it was.
    Same,
    /// CRIU did not dump it, and why.
    NotDumped(String),
    /// It was refused before anything was made, and why; CRIU does not restore it, either.
    Refused(String),
}

/// Lets a tree come to be, dumps it, restores and compares it. What else it comes to is an error.
pub fn run(programs: &Programs, history: &History) -> Result<Outcome> {
    let images = TempDir::new()?;
    let tree = Tree::start(history).context("the tree")?;
    let dumped = observe::tables(tree.first)
        .map(|before| (before, restore::dump(programs.criu, tree.first, images.path())));
    let (before, dumped) = dumped.inspect_err(|_| tree.end())?;
    tree.end();
    if let Err(error) = dumped {
        return Ok(Outcome::NotDumped(reason(&error)));
    }

    let fallback = programs.fallback.then_some("--fallback");
    let mut dry_run = Command::new(programs.nextid);
    dry_run.args(["restore", "--dry-run"]).arg(images.path()).args(fallback);
    if let Err(refused) = restore::call(&mut dry_run) {
        if let Ok(first) = restore::by_criu(programs.criu, images.path()) {
            end(first);
            bail!("refused, and CRIU restores it: {}", reason(&refused));
        }
        return Ok(Outcome::Refused(reason(&refused)));
    }
    let mut command = restore::nextid_command(programs.nextid, images.path());
    let first = restore::restored_by_nextid(&restore::call(command.args(fallback))?)?;
    let after = observe::tables(first);
    end(first);
    let difference = observe::difference(&before, &after?);
    if difference.is_empty() { Ok(Outcome::Same) } else { bail!("not as it was:\n{difference}") }
}

/// Ends a tree that has been restored.
fn end(first: Pid) {
    // It may have ended already.
    let _ = kill(first, Signal::SIGKILL);
    let _ = waitpid(first, None);
}

/// The last line of an error that tells of one, as CRIU and `nextid` print them: what comes before
/// may have been no hindrance.
fn reason(error: &Error) -> String {
    let text = format!("{error:#}");
    let mut lines = text.lines().map(str::trim);
    let tells = |line: &&str| {
        (line.contains("Error") && !line.ends_with("FAILED.")) || line.starts_with("nextid:")
    };
    let told = lines.clone().rfind(tells);
    told.or_else(|| lines.next()).unwrap_or_default().to_owned()
}
