// SPDX-License-Identifier: GPL-2.0

//! Containers: a shell of busybox that counts what it reads from a pipe.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use demo::restore::call;
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::processes;
use crate::program::{Answer, Program};

/// What runs in the container, and a job in its background.
const COUNT: &str = "mkfifo /ask /answer; sleep 100000 & n=0; \
                     while read x </ask; do n=$((n + 1)); echo $n of $$ >/answer; done";
/// What asks it.
const ASK: [&str; 3] = ["sh", "-c", "echo >/ask; cat /answer"];

/// A container by runc.
pub struct Runc;

impl Runc {
    const ID: &str = "nextid-apps";
    /// Where runc says what is wrong.
    const LOG: &str = "runc.log";

    /// Runs a command that leaves a container, which has its standard files: CRIU cannot dump one
    /// of a mount namespace that is not the container's.
    fn leave_container(command: &mut Command, folder: &Path) -> Result<()> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status().context("cannot run runc")?;
        let said = || fs::read_to_string(folder.join(Self::LOG)).unwrap_or_default();
        ensure!(status.success(), "runc: {status}\n{}", said());
        Ok(())
    }

    fn command(folder: &Path) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(folder.join("runc")).current_dir(folder);
        command.arg("--log").arg(folder.join(Self::LOG));
        command
    }

    fn pid(folder: &Path) -> Result<Pid> {
        let state: Value =
            serde_json::from_str(&call(Self::command(folder).args(["state", Self::ID]))?)?;
        let pid = state["pid"].as_i64().context("runc tells no pid")?;
        Ok(Pid::from_raw(i32::try_from(pid)?))
    }
}

impl Program for Runc {
    fn name(&self) -> &'static str {
        "runc"
    }

    fn start(&self, folder: &Path) -> Result<Pid> {
        let config = folder.join("config.json");
        if !config.exists() {
            make_root(&folder.join("rootfs"))?;
            call(Self::command(folder).arg("spec"))?;
            let mut text: Value = serde_json::from_str(&fs::read_to_string(&config)?)?;
            text["process"]["terminal"] = json!(false);
            text["process"]["args"] = json!(["sh", "-c", COUNT]);
            text["root"]["readonly"] = json!(false);
            fs::write(&config, text.to_string())?;
        }
        remove_pipes(&folder.join("rootfs"))?;
        Self::leave_container(Self::command(folder).args(["run", "--detach", Self::ID]), folder)?;
        Self::pid(folder)
    }

    fn ask(&self, folder: &Path) -> Result<Answer> {
        Answer::new(&call(Self::command(folder).args(["exec", Self::ID]).args(ASK))?)
    }

    fn dump(&self, criu: &Path, _first: Pid, folder: &Path, images: &Path) -> Result<()> {
        let mut command = Self::command(folder);
        with_criu(&mut command, criu, folder)?.args(["checkpoint", "--image-path"]).arg(images);
        call(command.arg("--work-path").arg(images).arg(Self::ID))
            .with_context(|| log(&images.join("dump.log")))
            .map(drop)
    }

    fn restore(&self, criu: &Path, folder: &Path, images: &Path) -> Result<Pid> {
        let mut command = Self::command(folder);
        with_criu(&mut command, criu, folder)?.args(["restore", "--detach", "--image-path"]);
        let command = command.arg(images).arg("--work-path").arg(images).arg(Self::ID);
        Self::leave_container(command, folder).with_context(|| log(&images.join("restore.log")))?;
        Self::pid(folder)
    }

    fn end(&self, first: Pid, folder: &Path) {
        // There is none where the tree is a skeleton.
        let _ = call(Self::command(folder).args(["delete", "--force", Self::ID]));
        processes::kill_tree(first);
    }
}

/// A container by podman, which lets runc make it.
pub struct Podman;

impl Podman {
    const NAME: &str = "nextid-apps";

    fn command(folder: &Path) -> Command {
        let mut command = Command::new("podman");
        command.current_dir(folder).arg("--root").arg(folder.join("storage"));
        command.arg("--runroot").arg(folder.join("run")).arg("--tmpdir").arg(folder.join("tmp"));
        command.args(["--storage-driver", "vfs", "--runtime", "runc"]);
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command
    }

    fn inspect(folder: &Path, what: &str) -> Result<String> {
        let format = format!("{{{{.State.{what}}}}}");
        let text = call(Self::command(folder).args(["inspect", "--format", &format, Self::NAME]))?;
        Ok(text.trim().to_owned())
    }

    fn pid(folder: &Path) -> Result<Pid> {
        Ok(Pid::from_raw(Self::inspect(folder, "Pid")?.parse()?))
    }

    /// The errors in a log that CRIU left beside the container's state.
    fn log(folder: &Path, name: &str) -> String {
        let containers = fs::read_dir(folder.join("storage/vfs-containers"));
        let containers = containers.into_iter().flatten().flatten();
        let logs = containers.map(|container| log(&container.path().join("userdata").join(name)));
        logs.collect::<Vec<_>>().join("\n")
    }
}

impl Program for Podman {
    fn name(&self) -> &'static str {
        "podman"
    }

    fn start(&self, folder: &Path) -> Result<Pid> {
        let root = folder.join("rootfs");
        if !root.exists() {
            make_root(&root)?;
            call(
                Command::new("tar")
                    .arg("-C")
                    .arg(&root)
                    .args(["-cf", "image.tar", "."])
                    .current_dir(folder),
            )?;
            call(Self::command(folder).args(["import", "image.tar", "apps"]))?;
        }
        let run = [
            "run",
            "--detach",
            "--network",
            "none",
            "--name",
            Self::NAME,
            "apps",
            "sh",
            "-c",
            COUNT,
        ];
        quietly(Self::command(folder).args(run))?;
        Self::pid(folder)
    }

    fn ask(&self, folder: &Path) -> Result<Answer> {
        Answer::new(&call(Self::command(folder).args(["exec", Self::NAME]).args(ASK))?)
    }

    fn dump(&self, criu: &Path, _first: Pid, folder: &Path, images: &Path) -> Result<()> {
        let mut command = Self::command(folder);
        let command = with_criu(&mut command, criu, folder)?;
        let command = command.args(["container", "checkpoint", "--keep", "--export"]);
        call(command.arg(self.dumped(images)).arg(Self::NAME))
            .with_context(|| Self::log(folder, "dump.log"))
            .map(drop)
    }

    fn dumped(&self, images: &Path) -> PathBuf {
        images.join("checkpoint.tar.zst")
    }

    fn restore(&self, criu: &Path, folder: &Path, _images: &Path) -> Result<Pid> {
        let mut command = Self::command(folder);
        let command = with_criu(&mut command, criu, folder)?;
        quietly(command.args(["container", "restore", "--keep", Self::NAME]))
            .with_context(|| Self::log(folder, "restore.log"))?;
        Self::pid(folder)
    }

    fn end(&self, first: Pid, folder: &Path) {
        let _ = call(Self::command(folder).args(["rm", "--force", "--time", "0", Self::NAME]));
        processes::kill_tree(first);
    }
}

/// A root file system with busybox.
fn make_root(root: &Path) -> Result<()> {
    let programs = root.join("bin");
    fs::create_dir_all(&programs)?;
    fs::copy("/bin/busybox", programs.join("busybox"))
        .context("busybox-static is not installed")?;
    for name in ["sh", "cat", "mkfifo", "sleep"] {
        symlink("busybox", programs.join(name))?;
    }
    for folder in ["dev", "proc", "sys", "tmp"] {
        fs::create_dir(root.join(folder))?;
    }
    Ok(())
}

/// Removes the pipes of a container that was killed.
fn remove_pipes(root: &Path) -> Result<()> {
    for name in ["ask", "answer"] {
        let pipe = root.join(name);
        if pipe.exists() {
            fs::remove_file(pipe)?;
        }
    }
    Ok(())
}

/// Lets a command find this `criu` first.
fn with_criu<'a>(command: &'a mut Command, criu: &Path, folder: &Path) -> Result<&'a mut Command> {
    let first = folder.join("bin");
    fs::create_dir_all(&first)?;
    let link = first.join("criu");
    let _ = fs::remove_file(&link);
    symlink(criu, &link)?;
    let path = std::env::var("PATH").unwrap_or_default();
    Ok(command.env("PATH", format!("{}:{path}", first.display())))
}

/// Runs a command whose children keep what it writes to.
fn quietly(command: &mut Command) -> Result<()> {
    let errors = tempfile::NamedTempFile::new()?;
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors.reopen()?)
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    ensure!(status.success(), "{status}: {}", fs::read_to_string(errors.path())?);
    Ok(())
}

/// The errors in a log of CRIU.
fn log(file: &PathBuf) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let errors: Vec<_> = text.lines().filter(|line| line.contains("Error")).collect();
    errors.join("\n")
}
