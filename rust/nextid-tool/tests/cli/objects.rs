// SPDX-License-Identifier: GPL-2.0

//! `nextid msg`, `nextid sem` and `nextid shm`.

use std::collections::BTreeSet;
use std::fs::{self};

use testing::{Hindrances, Outcome, Trial, ensure, test};

use crate::common::{command, expect, expect_error, full, nextid};

/// The tests of this part.
pub fn tests(h: &Hindrances) -> Vec<Trial> {
    vec![test("ipc_objects", h.not_root, ipc_objects), test("ipc_errors", h.not_root, ipc_errors)]
}

fn ipc_objects() -> Outcome {
    expect(&nextid("msg --id 98313 --key 0x4200 --mode 640"), 0, "98313\n")?;
    expect(&nextid("msg --id 98314 --key -1"), 0, "98314\n")?;
    expect(&nextid("msg --id 98315 --key 0XFFFFFFFE"), 0, "98315\n")?;
    expect(&nextid("sem --id 98313 --count 5"), 0, "98313\n")?;
    expect(&nextid("shm --id 98313 --size 10000 --json"), 0, "{\n  \"id\": 98313\n}\n")?;
    let list = fs::read_to_string("/proc/sysvipc/msg")?;
    let queues = list.lines().skip(1);
    let queues: BTreeSet<_> =
        queues.map(|it| it.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect();
    let expected = ["-1 98314 600", "-2 98315 600", "16896 98313 640"].map(str::to_owned);
    ensure(queues == BTreeSet::from(expected), queues)
}

fn ipc_errors() -> Outcome {
    expect(&nextid("msg --id 98320 --key 0x4210"), 0, "98320\n")?;
    let message = "the index of 131088 is in use by message queue 98320 (key 0x00004210, owner 0)";
    expect_error(&nextid("msg --id 131088"), 5, message)?;
    expect_error(&nextid("msg --id 98321 --key 0x4210"), 5, "key 0x4210 is in use already")?;
    expect_error(&nextid("msg --id -1"), 6, "it must be 0 to 2147483647")?;
    let message = "the number of semaphores must be 1 or more, and within kernel.sem";
    expect_error(&nextid("sem --id 98322 --count 65535"), 6, message)?;
    let message = "the size of the segment must be 1 or more, and within kernel.shmmax";
    expect_error(&nextid(&format!("shm --id 98322 --size {}", u64::MAX)), 6, message)?;
    let output = command("msg --id 98323").stdout(full()?).output()?;
    expect_error(&output, 1, "cannot print the id 98323, so the object is removed: No space left")?;
    expect(&nextid("msg --id 98323"), 0, "98323\n")
}
