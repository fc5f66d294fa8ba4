// SPDX-License-Identifier: GPL-2.0

//! What the tests of all commands need.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};

use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use testing::{Failed, Outcome, ensure, images, wait_until};

pub const NEXTID: &str = env!("CARGO_BIN_EXE_nextid");

/// `nextid --fallback` with arguments that are separated by spaces.
pub fn command(arguments: &str) -> Command {
    let mut command = Command::new(NEXTID);
    command.arg("--fallback").args(arguments.split(' '));
    command
}

pub fn nextid(arguments: &str) -> Output {
    command(arguments).output().expect("nextid runs")
}

/// What a user without privilege gets, from a copy of the program which that user can reach.
pub fn nextid_as_nobody(arguments: &str) -> Result<Output, Failed> {
    let folder = TempDir::new()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let copy = folder.path().join("nextid");
    fs::copy(NEXTID, &copy)?;
    let mut command = Command::new(copy);
    Ok(command.arg("--fallback").args(arguments.split(' ')).uid(65534).output()?)
}

pub fn expect(output: &Output, status: i32, stdout: &str) -> Outcome {
    let printed = String::from_utf8_lossy(&output.stdout);
    ensure(output.status.code() == Some(status) && printed == stdout, output)
}

pub fn expect_error(output: &Output, status: i32, message: &str) -> Outcome {
    let printed = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.code() == Some(status) && printed.contains(message), output)
}

/// The ids that a script prints, each on a line.
pub fn printed_ids(output: &Output) -> Result<Vec<i32>, Failed> {
    ensure(output.status.success(), output)?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(str::parse).collect::<Result<_, _>>()?)
}

pub fn wait_for_line(child: &mut Child) -> Outcome {
    let stdout = child.stdout.as_mut().ok_or("it is piped")?;
    BufReader::new(stdout).read_line(&mut String::new())?;
    Ok(())
}

pub fn dump(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../criu-images/tests/dumps").join(name)
}

/// A tree that was restored, which ends with this.
pub struct Restored {
    pub first: i32,
}

impl Restored {
    pub fn new(dump: &Path) -> Result<Self, Failed> {
        Self::by(command("restore --detach --json").arg(dump))
    }

    pub fn in_a_user_namespace(dump: &Path) -> Result<Self, Failed> {
        let mut inside = Command::new("unshare");
        inside.args(["--user", "--map-root-user", NEXTID, "--fallback", "restore", "--detach"]);
        Self::by(inside.arg("--json").arg(dump))
    }

    pub fn by(command: &mut Command) -> Result<Self, Failed> {
        Self::told(&command.output()?)
    }

    /// The one that `output` tells of.
    pub fn told(output: &Output) -> Result<Self, Failed> {
        ensure(output.status.success(), output)?;
        let first = json_of(output)?["restored_as"].as_i64().ok_or("nothing is restored")?;
        Ok(Self { first: first.try_into()? })
    }

    /// What `/proc` tells of each process.
    pub fn statuses(&self) -> Result<HashMap<i32, String>, Failed> {
        let mut statuses = HashMap::new();
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            let pid = path.file_name().and_then(|name| name.to_str()?.parse::<i32>().ok());
            if let (Some(pid), Ok(status)) = (pid, read_lossy(&path.join("status"))) {
                statuses.insert(pid, status);
            }
        }
        let parent = |pid| field(statuses.get(&pid)?, "PPid").parse::<i32>().ok();
        let is_below = |pid| {
            std::iter::successors(Some(pid), |&pid| parent(pid)).any(|above| above == self.first)
        };
        let below: Vec<i32> = statuses.keys().copied().filter(|&pid| is_below(pid)).collect();
        statuses.retain(|pid, _| below.contains(pid));
        Ok(statuses)
    }

    /// How the zombie with an id ended, as `wait(2)` tells it.
    pub fn status_of_zombie(&self, pid: &str) -> Result<i32, Failed> {
        let statuses = self.statuses()?;
        let zombie = statuses.iter().find(|(_, status)| last(status, "NSpid") == pid);
        let (outer, _) = zombie.ok_or("no such zombie")?;
        let stat = fs::read_to_string(format!("/proc/{outer}/stat"))?;
        Ok(stat.split_whitespace().last().unwrap_or_default().parse()?)
    }

    /// The tree as `/proc` shows it, with all ids from the innermost pid namespace: of each process
    /// its id, parent, group, session, name and state, of each further thread its id and name.
    pub fn tree(&self) -> Result<BTreeSet<String>, Failed> {
        let statuses = self.statuses()?;
        let mut lines = BTreeSet::new();
        for (&outer, status) in &statuses {
            let parent = field(status, "PPid").parse().ok().and_then(|pid: i32| statuses.get(&pid));
            let parent = parent.map_or("0", |parent| last(parent, "NSpid"));
            let pid = last(status, "NSpid");
            let (group, session) = (last(status, "NSpgid"), last(status, "NSsid"));
            // One that has just been woken is about to sleep.
            let state = field(status, "State")[..1].replace('R', "S");
            let name = field(status, "Name");
            lines.insert(format!("{pid} of {parent} in {group} {session}: {name} {state}"));
            for thread in fs::read_dir(format!("/proc/{outer}/task"))? {
                let status = read_lossy(&thread?.path().join("status"))?;
                let tid = last(&status, "NSpid");
                if tid != pid {
                    lines.insert(format!("{pid} has {tid}: {}", field(&status, "Name")));
                }
            }
        }
        Ok(lines)
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        // Without a pid namespace of its own, none ends with the first.
        let pids: Vec<i32> = self.statuses().unwrap_or_default().into_keys().collect();
        for &pid in &pids {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        wait_until(|| !pids.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()));
    }
}

/// Reads a file that may hold the name of a process, which need not be text.
pub fn read_lossy(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

pub fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim()
}

pub fn last<'a>(status: &'a str, name: &str) -> &'a str {
    field(status, name).split_whitespace().last().unwrap_or_default()
}

pub fn expect_tree(restored: &Restored, expected: &[&str]) -> Outcome {
    let expected: BTreeSet<String> = expected.iter().map(|&line| line.to_owned()).collect();
    // That a process stops itself takes a moment.
    let is_there = wait_until(|| restored.tree().is_ok_and(|tree| tree == expected));
    let tree = restored.tree()?;
    let missing: Vec<_> = expected.difference(&tree).collect();
    let more: Vec<_> = tree.difference(&expected).collect();
    ensure(is_there, (missing, more))
}

/// Lets a command inherit that SIGCHLD is ignored.
pub fn ignoring_sigchld(command: &mut Command) -> &mut Command {
    // SAFETY: It is a system call and no more.
    unsafe { command.pre_exec(|| Ok(signal(Signal::SIGCHLD, SigHandler::SigIgn).map(drop)?)) }
}

pub fn is_alive(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !field(&status, "State").starts_with('Z')
}

/// A copy of a dump, in which the first `from` in a file is made `to`.
pub fn damaged(name: &str, file: &str, from: &[u8], to: &[u8]) -> Result<TempDir, Failed> {
    let copy = copy(name)?;
    damage(&copy, file, from, to)?;
    Ok(copy)
}

pub fn copy(name: &str) -> io::Result<TempDir> {
    let copy = TempDir::new()?;
    for entry in fs::read_dir(dump(name))? {
        let entry = entry?;
        fs::copy(entry.path(), copy.path().join(entry.file_name()))?;
    }
    Ok(copy)
}

pub fn damage(copy: &TempDir, file: &str, from: &[u8], to: &[u8]) -> Outcome {
    let path = copy.path().join(file);
    let mut bytes = fs::read(&path)?;
    let place = bytes.windows(from.len()).position(|bytes| bytes == from).ok_or("not there")?;
    bytes.splice(place..place + from.len(), to.iter().copied());
    Ok(fs::write(path, bytes)?)
}

/// Restores a dump that cannot be restored. One that can be would go on for ever: it is ended.
pub fn restore_in_vain(dump: &Path) -> io::Result<Output> {
    let mut command = Command::new("timeout");
    command.args(["60", NEXTID, "--fallback", "restore"]).arg(dump).output()
}

/// A tree that the tests made up, each process with its parent, group and session.
pub fn written(processes: &[(i32, i32, i32, i32)]) -> Result<TempDir, Failed> {
    let process = |&(pid, parent, group, session): &_| images::Process {
        pid,
        parent,
        group,
        session,
        ..images::Process::default()
    };
    let folder = TempDir::new()?;
    let processes: Vec<images::Process> = processes.iter().map(process).collect();
    images::write_tree(folder.path(), &processes)?;
    Ok(folder)
}

/// Where nothing can be written.
pub fn full() -> io::Result<File> {
    OpenOptions::new().write(true).open("/dev/full")
}

/// No process of a tree is left, nor the tool itself.
pub fn expect_no_process() -> Outcome {
    for entry in fs::read_dir("/proc")? {
        let program = fs::read_link(entry?.path().join("exe")).unwrap_or_default();
        ensure(program != Path::new(NEXTID), "a process is left")?;
    }
    Ok(())
}

pub fn json_of(output: &Output) -> Result<Value, Failed> {
    Ok(serde_json::from_slice(&output.stdout)?)
}
