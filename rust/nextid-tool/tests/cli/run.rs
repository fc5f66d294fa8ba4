// SPDX-License-Identifier: GPL-2.0

//! `nextid run`.

use std::fs::{self};
use std::io::{self};

use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use testing::{Hindrances, Outcome, Trial, ensure, free_pid, has_reservations, test};

use crate::common::{
    NEXTID, command, expect, expect_error, field, ignoring_sigchld, nextid, nextid_as_nobody,
    printed_ids, wait_for_line,
};

/// The tests of this part.
pub fn tests(h: &Hindrances) -> Vec<Trial> {
    vec![
        test("run_exits_as_its_program", h.not_root, run_exits_as_its_program),
        test("run_gives_the_pid", h.not_root, run_gives_the_pid),
        test("run_with_sigchld_ignored", h.not_root, run_with_sigchld_ignored),
        test("run_that_cannot_execute", h.not_root, run_that_cannot_execute),
        test("run_with_a_pid_in_use", h.not_root, run_with_a_pid_in_use),
        test("run_out_of_range", h.not_root, run_out_of_range),
        test("run_without_privilege", h.not_root, run_without_privilege),
        test("run_as_first_process", h.not_root, run_as_first_process),
        test("run_reaps_orphans", h.not_root, run_reaps_orphans),
        test("run_forwards_signals", h.not_root, run_forwards_signals),
        test("run_above_a_limit", h.not_root, run_above_a_limit),
        test(
            "run_above_a_limit_for_good",
            h.not_root.or(h.no_reservations),
            run_above_a_limit_for_good,
        ),
    ]
}

/// Runs a shell script in a process with a chosen id.
fn run_script(pid: i32, script: &str) -> io::Result<Output> {
    command(&format!("run --pid {pid} -- sh -c")).arg(script).output()
}

fn run_exits_as_its_program() -> Outcome {
    expect(&run_script(free_pid(), "exit 7")?, 7, "")?;
    expect(&run_script(free_pid(), "kill -9 $$")?, 128 + 9, "")
}

fn run_gives_the_pid() -> Outcome {
    let pid = free_pid();
    expect(&run_script(pid, "echo $$")?, 0, &format!("{pid}\n"))
}

/// A program inherits that a signal is ignored, and without SIGCHLD no child can be waited for.
fn run_with_sigchld_ignored() -> Outcome {
    let run = |program: &[&str]| {
        let mut run = command(&format!("run --pid {} --", free_pid()));
        ignoring_sigchld(run.args(program)).output()
    };
    expect(&run(&["sh", "-c", "exit 7"])?, 7, "")?;
    // What it starts inherits it all the same.
    let output = run(&["cat", "/proc/self/status"])?;
    let ignored = field(&String::from_utf8_lossy(&output.stdout), "SigIgn").to_owned();
    let bit = 1 << (Signal::SIGCHLD as i32 - 1);
    ensure(u64::from_str_radix(&ignored, 16)? & bit != 0, ignored)
}

fn run_that_cannot_execute() -> Outcome {
    let output = nextid(&format!("run --pid {} -- /does/not/exist", free_pid()));
    expect_error(&output, 127, "cannot run /does/not/exist: No such file")?;
    let output = nextid(&format!("run --pid {} -- /etc/passwd", free_pid()));
    expect_error(&output, 126, "cannot run /etc/passwd: Permission denied")
}

fn run_with_a_pid_in_use() -> Outcome {
    let own = std::process::id();
    let message = format!(
        "cannot fork a process with id {own}: in use\n  {own} is in use by process {own} ("
    );
    expect_error(&nextid(&format!("run --pid {own} -- true")), 5, &message)
}

fn run_out_of_range() -> Outcome {
    let message = "cannot ask for a process or thread with id 0: each must be 1 or more";
    expect_error(&nextid("run --pid 0 -- true"), 6, message)?;
    let pids: Vec<String> = (0..33).map(|_| format!("--pid {}", free_pid())).collect();
    let output = nextid(&format!("run {} -- true", pids.join(" ")));
    expect_error(&output, 6, "33 ids, and it would be in")
}

fn run_without_privilege() -> Outcome {
    let output = nextid_as_nobody("run --pid 22000 -- true")?;
    expect_error(&output, 4, "that takes CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN")
}

/// Prints the id of the shell, and of a child.
const OWN_AND_CHILD: &str = "echo $$; sh -c 'echo $$'";

/// Lets the kernel choose the ids that follow `pid`.
fn set_last_pid(pid: i32) -> io::Result<()> {
    fs::write("/proc/sys/kernel/ns_last_pid", pid.to_string())
}

/// In a pid namespace of its own, as after any fork, though the pid was not the next one.
fn run_as_first_process() -> Outcome {
    let mut first = Command::new("unshare");
    first.args(["--pid", "--fork", "--mount-proc", NEXTID, "--fallback", "run", "--pid", "1000"]);
    let ids = printed_ids(&first.args(["--", "sh", "-c", OWN_AND_CHILD]).output()?)?;
    ensure(ids.len() == 2 && ids[0] == 1000 && ids[1] > 1000, ids)?;
    // Elsewhere the next ids are for who asks for them.
    let pid = free_pid() + 1000;
    let ids = printed_ids(&run_script(pid, OWN_AND_CHILD)?)?;
    ensure(ids.len() == 2 && ids[0] == pid && ids[1] < pid, ids)
}

/// As the first process of a namespace it looks after orphans.
fn run_reaps_orphans() -> Outcome {
    const SCRIPT: &str =
        "orphan=$(sh -c 'sh -c : & echo $!'); while [ -e /proc/$orphan ]; do :; done";

    let mut first = Command::new("timeout");
    first.args(["60", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", NEXTID]);
    first.args(["--fallback", "run", "--pid", "1000", "--", "sh", "-c", SCRIPT]);
    expect(&first.output()?, 0, "")
}

/// What is to end nextid ends the program.
fn run_forwards_signals() -> Outcome {
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let mut run = command(&format!("run --pid {} -- sh -c", free_pid()));
        run.arg("trap 'exit 9' TERM HUP; echo; while :; do sleep 0.01; done");
        let mut run = run.stdout(Stdio::piped()).spawn()?;
        wait_for_line(&mut run)?;
        kill(Pid::from_raw(run.id().try_into()?), signal)?;
        let status = run.wait()?;
        ensure(status.code() == Some(9), status)?;
    }
    Ok(())
}

fn run_above_a_limit() -> Outcome {
    set_last_pid(300)?;
    let limit = free_pid() + 1000;
    let run =
        |options: &str| command(&format!("run {options} -- sh -c")).arg(OWN_AND_CHILD).output();
    let ids = printed_ids(&run(&format!("--above {limit}"))?)?;
    ensure(ids.len() == 2 && ids.iter().all(|&id| id > limit), ids)?;
    let ids = printed_ids(&run(&format!("--above {limit} --pid {}", limit + 7))?)?;
    ensure(ids[0] == limit + 7 && ids[1] > limit, ids)?;
    expect_error(
        &run(&format!("--above {}", i64::MAX))?,
        if has_reservations() { 6 } else { 1 },
        "above",
    )
}

/// Also when the ids of the namespace wrap around, which is played here.
fn run_above_a_limit_for_good() -> Outcome {
    let limit = free_pid() + 1000;
    let script = "echo 300 > /proc/sys/kernel/ns_last_pid; sh -c 'echo $$'";
    let output = command(&format!("run --above {limit} -- sh -c")).arg(script).output()?;
    let ids = printed_ids(&output)?;
    ensure(ids.len() == 1 && ids[0] > limit, ids)?;
    // Then they are free again.
    set_last_pid(300)?;
    let ids = printed_ids(&Command::new("sh").args(["-c", OWN_AND_CHILD]).output()?)?;
    ensure(ids.iter().all(|&id| id < limit), ids)
}
