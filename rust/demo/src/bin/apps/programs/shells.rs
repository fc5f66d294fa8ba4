// SPDX-License-Identifier: GPL-2.0

//! Shells, with jobs.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use demo::restore::call;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use testing::wait_until;

use super::start::{in_session, path};
use crate::program::{Answer, Program};

/// A shell at a terminal of tmux, with jobs in the background, one of them stopped.
pub struct Tmux;

impl Tmux {
    fn call(folder: &Path, command: &[&str]) -> Result<String> {
        let socket = path(folder, "socket");
        call(Command::new("tmux").args(["-S", &socket, "-f", "/dev/null"]).args(command))
    }

    /// Types a line.
    fn type_line(folder: &Path, line: &str) -> Result<()> {
        Self::call(folder, &["send-keys", "-l", line])?;
        Self::call(folder, &["send-keys", "Enter"]).map(drop)
    }
}

impl Program for Tmux {
    fn name(&self) -> &'static str {
        "tmux"
    }

    fn start(&self, folder: &Path) -> Result<Pid> {
        let folder_name = folder.to_string_lossy();
        let shell = "exec bash --norc --noprofile";
        Self::call(
            folder,
            &["new-session", "-d", "-x", "80", "-y", "24", "-c", &folder_name, shell],
        )?;
        for line in ["sleep 100000 & kill -STOP $!", "sleep 100000 | cat &"] {
            Self::type_line(folder, line)?;
        }
        let pid = Self::call(folder, &["display-message", "-p", "#{pid}"])?;
        Ok(Pid::from_raw(pid.trim().parse()?))
    }

    fn ask(&self, folder: &Path) -> Result<Answer> {
        let answer = folder.join("answer");
        remove(&answer)?;
        Self::type_line(
            folder,
            "jobs >list; echo $((++n)) at $(tty), $(wc -l <list) jobs >answer",
        )?;
        read(&answer)
    }
}

/// A script with job control, a stopped pipeline, and another one that runs.
pub struct Pipeline;

impl Program for Pipeline {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn start(&self, folder: &Path) -> Result<Pid> {
        let fifo = folder.join("ask");
        remove(&fifo)?;
        mkfifo(&fifo, Mode::S_IRWXU)?;
        in_session(folder, &["bash", "--norc", "-c", include_str!("pipeline.sh")])
    }

    fn ask(&self, folder: &Path) -> Result<Answer> {
        let answer = folder.join("answer");
        remove(&answer)?;
        fs::write(folder.join("ask"), "\n")?;
        read(&answer)
    }
}

fn remove(file: &Path) -> Result<()> {
    if file.exists() {
        fs::remove_file(file)?;
    }
    Ok(())
}

/// Reads a line from a file, once it is there.
fn read(file: &Path) -> Result<Answer> {
    let mut text = String::new();
    let is_there = wait_until(|| {
        text = fs::read_to_string(file).unwrap_or_default();
        text.ends_with('\n')
    });
    ensure!(is_there, "the shell does not answer");
    Answer::new(&text).context("the shell's answer")
}
