// SPDX-License-Identifier: GPL-2.0

//! What all programs have in common.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use demo::restore;
use nix::unistd::Pid;
use testing::wait_until;

use crate::processes;

/// A program to dump and restore.
pub trait Program {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Starts it in a folder of its own, and returns the first process of the tree to dump.
    fn start(&self, folder: &Path) -> Result<Pid>;

    /// Lets it work.
    fn ask(&self, folder: &Path) -> Result<Answer>;

    /// Dumps and ends it.
    fn dump(&self, criu: &Path, first: Pid, _folder: &Path, images: &Path) -> Result<()> {
        restore::dump(criu, first, images)
    }

    /// What `nextid` is to restore: a folder, or an archive.
    fn dumped(&self, images: &Path) -> PathBuf {
        images.to_owned()
    }

    /// Restores it, and returns its first process.
    fn restore(&self, criu: &Path, _folder: &Path, images: &Path) -> Result<Pid> {
        restore::by_criu(criu, images)
    }

    /// Ends it, in whatever state it is.
    fn end(&self, first: Pid, _folder: &Path) {
        processes::kill_tree(first);
    }
}

/// What a program answers: how often it was asked, which it alone remembers, and what stays.
pub struct Answer {
    count: u64,
    rest: String,
}

impl Answer {
    /// Reads the first line of `text`, the count before the rest.
    pub fn new(text: &str) -> Result<Self> {
        let line = text.lines().next().unwrap_or_default().trim();
        let (count, rest) = line.split_once(' ').unwrap_or((line, ""));
        let count = count.parse().with_context(|| format!("no answer: {text:?}"))?;
        Ok(Self { count, rest: rest.to_owned() })
    }

    /// Whether this is the next answer after `previous`.
    pub fn follows(&self, previous: &Self) -> bool {
        self.count == previous.count + 1 && self.rest == previous.rest
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.count, self.rest)
    }
}

/// Asks a program that has just been started until it answers.
pub fn ask_until_ready(program: &dyn Program, folder: &Path) -> Result<Answer> {
    let mut answer = program.ask(folder);
    wait_until(|| {
        if answer.is_err() {
            answer = program.ask(folder);
        }
        answer.is_ok()
    });
    answer.context("it does not answer")
}
