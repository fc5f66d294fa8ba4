// SPDX-License-Identifier: GPL-2.0

//! `nextid restore`: trees of processes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Output, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::unistd::{pipe2, setsid};
use tempfile::TempDir;
use testing::processes::history;
use testing::{Hindrances, Outcome, Trial, ensure, images, test, wait_until};

use crate::common::{
    Restored, command, copy, damage, damaged, dump, expect_error, expect_tree, written,
};

/// The tests of this part.
pub fn tests(h: &Hindrances) -> Vec<Trial> {
    vec![
        test("restore_orphans", h.not_root, restore_orphans),
        test("restore_a_stopped_init", h.not_root, restore_a_stopped_init),
        test("restore_a_stopped_job", h.not_root, restore_a_stopped_job),
        test(
            "restore_a_group_that_is_led_from_below",
            h.not_root,
            restore_a_group_that_is_led_from_below,
        ),
        test("restore_names_that_are_no_text", h.not_root, restore_names_that_are_no_text),
        test("restore_trees", h.not_root, restore_trees),
        test("restore_random_trees", h.not_root, restore_random_trees),
        test("restore_statuses", h.not_root, restore_statuses),
        test("restore_cores", h.not_root.or(no_cores()), restore_cores),
    ]
}

fn restore_orphans() -> Outcome {
    expect_tree(
        &Restored::new(&dump("orphans"))?,
        &[
            "1 of 0 in 1 1: init S",
            "2 of 1 in 2 2: left S",
            "4 of 2 in 1 1: stayed S",
            "10 of 2 in 2 2: followed S",
            "5 of 1 in 3 3: orphan-1 S",
            "6 of 1 in 3 3: orphan-2 S",
            "7 of 1 in 7 7: leader S",
            "9 of 1 in 8 1: grouped S",
            "12 of 1 in 7 7: orphan-3 S",
            "13 of 1 in 8 1: grouped S",
            "14 of 1 in 1 1: stopped T",
            "15 of 1 in 1 1: killed Z",
        ],
    )
}

/// Nothing inside of a pid namespace can stop its first process.
fn restore_a_stopped_init() -> Outcome {
    let init = |session| images::Process {
        pid: 1,
        group: session,
        session,
        is_stopped: true,
        ..images::Process::default()
    };
    let folder = TempDir::new()?;
    images::write_tree(folder.path(), &[init(1)])?;
    expect_tree(&Restored::new(folder.path())?, &["1 of 0 in 1 1: task T"])?;
    images::write_tree(folder.path(), &[init(0)])?;
    let output = command("restore --detach").arg(folder.path()).output()?;
    expect_error(&output, 1, "run nextid without --detach")
}

/// A job of a shell, which is in the session of `nextid`: the end of `nextid` orphans its process
/// group, and the kernel sends SIGHUP to a group that is orphaned while one of it is stopped.
fn restore_a_stopped_job() -> Outcome {
    let copy = copy("shared")?;
    // The session of both, from 31001 to 31000.
    for _ in 0..2 {
        damage(&copy, "pstree.img", b"\x20\x99\xf2\x01", b"\x20\x98\xf2\x01")?;
    }
    fs::copy(dump("orphans").join("core-14.img"), copy.path().join("core-31001.img"))?;

    // nextid waits before it prints: that its output is full gives the processes the time to stop.
    let (output, full) = pipe2(OFlag::O_CLOEXEC)?;
    let size = fcntl(&full, FcntlArg::F_GETPIPE_SZ)?.try_into()?;
    let mut full = File::from(full);
    full.write_all(&vec![b' '; size])?;
    let mut command = command("restore --detach --json");
    // SAFETY: It is a system call and no more.
    unsafe {
        command.arg(copy.path()).stdout(full).pre_exec(|| Ok(setsid().map(drop)?));
    }
    let nextid = command.stderr(Stdio::piped()).spawn()?;
    drop(command);
    let session = nextid.id();
    let is_second = || fs::read_to_string("/proc/31003/comm").is_ok_and(|it| it == "second\n");
    let is_there = wait_until(is_second) && wait_until(|| is_stopped_or_waits(31001));
    let mut stdout = Vec::new();
    File::from(output).read_to_end(&mut stdout)?;
    let restored = Restored::told(&Output { stdout, ..nextid.wait_with_output()? })?;
    ensure(is_there, "it is not restored")?;
    expect_tree(
        &restored,
        &[
            &format!("31001 of 0 in 31001 {session}: stopped T"),
            &format!("31003 of 31001 in 31001 {session}: second S"),
        ],
    )
}

/// Whether a process has stopped, or is past the last barrier, at which it reads, and waits in
/// another call.
fn is_stopped_or_waits(pid: i32) -> bool {
    let read = |file| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let call = read("syscall").split(' ').next().and_then(|number| number.parse().ok());
    let waits = call.is_some_and(|call: libc::c_long| call >= 0 && call != libc::SYS_read);
    read("comm") == "stopped\n" && (waits || read("stat").contains(") T "))
}

/// The first process is in the group of its child.
fn restore_a_group_that_is_led_from_below() -> Outcome {
    let copy = copy("shared")?;
    // Of both: the group, from 31001 to 31003, and the session, from 31001 to 31000.
    let (from, to) = (b"\x18\x99\xf2\x01\x20\x99\xf2\x01", b"\x18\x9b\xf2\x01\x20\x98\xf2\x01");
    for _ in 0..2 {
        damage(&copy, "pstree.img", from, to)?;
    }
    // What is outside of the pid namespace of the tests is 0, as their session is.
    expect_tree(
        &Restored::new(copy.path())?,
        &["31001 of 0 in 31003 0: first S", "31003 of 31001 in 31003 0: second S"],
    )
}

fn restore_names_that_are_no_text() -> Outcome {
    let copy = damaged("container", "core-43.img", b"session", b"sessio\xc3")?;
    let restored = Restored::new(copy.path())?;
    let tree = restored.tree()?;
    ensure(tree.contains("43 of 1 in 43 43: sessio\u{fffd} S"), tree)
}

/// Trees of unusual histories come out as they were.
fn restore_trees() -> Outcome {
    let trees: [&[(i32, i32, i32, i32)]; 7] = [
        // Children in the session outside, which the first has left, or not.
        &[(1, 0, 1, 1), (15, 1, 0, 0), (16, 1, 16, 0), (17, 1, 16, 0)],
        &[(1, 0, 0, 0), (15, 1, 0, 0), (16, 1, 16, 16)],
        // An orphan of a subreaper, the leader of whose session is gone.
        &[(1, 0, 1, 1), (7, 1, 1, 1), (8, 7, 9, 9), (10, 8, 10, 10)],
        // A leader that is in another group, and two that are in each other's.
        &[(1, 0, 1, 1), (7, 1, 1, 1), (8, 7, 7, 1)],
        &[(1, 0, 1, 1), (7, 1, 8, 1), (8, 1, 7, 1)],
        // Two leaders, a child of each of which is in the session of the other.
        &[(1, 0, 1, 1), (7, 1, 7, 7), (8, 1, 8, 8), (9, 7, 8, 8), (10, 8, 7, 7)],
        // Children of two processes, in different sessions, are in one whose leader is gone.
        &[
            (1, 0, 1, 1),
            (7, 1, 7, 7),
            (8, 1, 8, 8),
            (17, 7, 7, 7),
            (18, 8, 8, 8),
            (27, 17, 9, 9),
            (28, 18, 9, 9),
        ],
    ];
    for tree in trees {
        let restored = Restored::new(written(tree)?.path())?;
        let line = |&(pid, parent, group, session): &_| {
            format!("{pid} of {parent} in {group} {session}: task S")
        };
        let expected: BTreeSet<String> = tree.iter().map(line).collect();
        let found = restored.tree()?;
        ensure(found == expected, found)?;
    }
    Ok(())
}

/// Trees of random histories, each of which can be had again by its seed, come out as they were.
fn restore_random_trees() -> Outcome {
    for seed in 1..=10 {
        let kernel = history(&random(seed, 150));
        let mut pids = vec![1];
        let mut next = 0;
        while let Some(&pid) = pids.get(next) {
            pids.extend(
                kernel.tasks.iter().filter(|(_, it)| it.parent == pid).map(|(&pid, _)| pid),
            );
            next += 1;
        }
        let process = |&pid: &i32| {
            let task = kernel.tasks[&pid];
            images::Process {
                pid,
                parent: task.parent,
                group: task.group,
                session: task.session,
                ended: task.is_zombie.then_some(pid << 8 & 0xff00),
                is_subreaper: task.is_subreaper,
                ..images::Process::default()
            }
        };
        let processes: Vec<images::Process> = pids.iter().map(process).collect();
        if ![0, 1].contains(&kernel.tasks[&1].group) {
            // The kernel would not let the namespace end.
            continue;
        }
        let folder = TempDir::new()?;
        images::write_tree(folder.path(), &processes)?;
        let restored = Restored::new(folder.path())?;
        let line = |it: &images::Process| {
            let state = if it.ended.is_some() { "Z" } else { "S" };
            let images::Process { pid, parent, group, session, .. } = it;
            format!("{pid} of {parent} in {group} {session}: task {state}")
        };
        let expected: BTreeSet<String> = processes.iter().map(line).collect();
        let found = restored.tree()?;
        ensure(found == expected, (seed, found))?;
    }
    Ok(())
}

/// Numbers that come of a seed, by xorshift.
fn random(seed: u32, count: usize) -> Vec<[u8; 3]> {
    let mut state = seed.wrapping_mul(0x9e37_79b9);
    let mut numbers = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        let [a, b, c, _] = state.to_le_bytes();
        [a, b, c]
    };
    (0..count).map(|_| numbers()).collect()
}

/// A zombie is what it was: real-time signals, and those that the C library keeps to itself.
fn restore_statuses() -> Outcome {
    restore_zombies(&[0, 256, 65280, 9, 15, 11, 32, 33, 34, 64])
}

/// Those who wait for a process see that it dumped core, and so do those who wait for the restored
/// one.
fn restore_cores() -> Outcome {
    // Many at a time, which are not to be in each other's way.
    restore_zombies(&[0x83, 0x86, 0x8b, 0x0b].repeat(10))
}

/// Why no process can be seen to dump core here, if so.
fn no_cores() -> Option<&'static str> {
    let folder = TempDir::new().ok()?;
    let ended = Command::new("sh")
        .args(["-c", "ulimit -c unlimited; kill -SEGV $$"])
        .current_dir(folder.path())
        .status();
    (!ended.is_ok_and(|status| status.core_dumped())).then_some("no process dumps core here")
}

fn restore_zombies(statuses: &[i32]) -> Outcome {
    let process = |pid: i32, ended| images::Process {
        pid,
        parent: i32::from(pid > 1),
        group: 1,
        session: 1,
        ended,
        ..images::Process::default()
    };
    let zombies = (10..).zip(statuses).map(|(pid, &status)| process(pid, Some(status)));
    let processes: Vec<images::Process> = [process(1, None)].into_iter().chain(zombies).collect();
    let folder = TempDir::new()?;
    images::write_tree(folder.path(), &processes)?;
    let restored = Restored::new(folder.path())?;
    for (pid, &status) in (10..).zip(statuses) {
        let found = restored.status_of_zombie(&format!("{pid}"))?;
        ensure(found == status, (pid, found))?;
    }
    Ok(())
}
