// SPDX-License-Identifier: GPL-2.0

//! `nextid reserve` and `nextid who`.

use std::io::{self, BufRead, BufReader};

use std::process::{Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use testing::{Hindrances, Outcome, Trial, ensure, free_pid, test};

use crate::common::{
    NEXTID, Restored, command, dump, expect, expect_error, json_of, nextid, printed_ids,
};

/// The tests of this part.
pub fn tests(h: &Hindrances) -> Vec<Trial> {
    vec![
        test("who_has_ids", h.not_root, who_has_ids),
        test("reserve_holds_ids", h.not_root.or(h.no_reservations), reserve_holds_ids),
        test("reserve_all_or_nothing", h.not_root.or(h.no_reservations), reserve_all_or_nothing),
        test(
            "reserve_ends_with_nextid",
            h.not_root.or(h.no_reservations),
            reserve_ends_with_nextid,
        ),
        test(
            "reserve_the_ids_of_a_dump",
            h.not_root.or(h.no_reservations),
            reserve_the_ids_of_a_dump,
        ),
        test(
            "restore_what_is_reserved",
            h.not_root.or(h.no_reservations),
            restore_what_is_reserved,
        ),
        test("reserve_without_reservations", h.reservations, reserve_without_reservations),
    ]
}

fn who_has_ids() -> Outcome {
    let (own, free) = (std::process::id(), free_pid());
    expect(&nextid("msg --id 98330 --key 0x4220"), 0, "98330\n")?;
    let output = nextid(&format!("who --pid {own} --pid {free} --msg 131098 --shm 131098"));
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().collect();
    let is_told = lines.len() == 4
        && lines[0].starts_with(&format!("{own} is in use by process {own} ("))
        && lines[1]
            == "the index of 131098 is in use by message queue 98330 (key 0x00004220, owner 0)"
        && lines[2] == format!("process or thread {free}: /proc shows nobody who has it")
        && lines[3] == "shared memory segment 131098: /proc shows nobody who has it";
    ensure(output.status.code() == Some(5) && is_told, &output)?;
    let json = nextid("who --msg 98330 --json");
    let object = json!({
        "role": "object", "kind": "MSG", "id": 98330, "object": 98330, "key": 0x4220, "uid": 0
    });
    ensure(json_of(&json)? == json!({"holders": [object]}), &json)?;
    ensure(nextid(&format!("who --pid {free}")).status.success(), free)
}

/// Runs `script` while `nextid` holds ids. In it `$1` is `nextid`.
fn reserve(ids: &str, script: &str) -> io::Result<Output> {
    command(&format!("reserve {ids} -- sh -c")).args([script, "sh", NEXTID]).output()
}

fn reserve_holds_ids() -> Outcome {
    let pid = free_pid();
    let ids = format!("--pid {pid} --shm 98331");
    // One that is told twice is meant once.
    let output = reserve(&format!("{ids} {ids}"), &format!("$1 who {ids}; exit 7"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let is_told = text.contains(&format!("{pid} is reserved by process "))
        && text.contains("shared memory segment 98331 is reserved by process ")
        && text.contains(" (nextid)");
    ensure(output.status.code() == Some(7) && is_told, &output)?;
    // The kernel passes it by, and who names it gets it.
    let script = format!(
        "echo {} >/proc/sys/kernel/ns_last_pid; sh -c 'echo $$'; $1 run --pid {pid} -- sh -c 'echo $$'",
        pid - 1
    );
    let got = printed_ids(&reserve(&format!("--pid {pid}"), &script)?)?;
    ensure(got.len() == 2 && got[0] > pid && got[1] == pid, got)
}

fn reserve_all_or_nothing() -> Outcome {
    let (own, free) = (std::process::id(), free_pid());
    let output = reserve(&format!("--pid {free} --pid {own}"), "echo it runs")?;
    let message = format!(
        "cannot reserve process or thread id {own} {free}: one of them is in use\n  {own} is in use \
         by process {own} ("
    );
    expect_error(&output, 5, &message)?;
    expect(&output, 5, "")?;
    let message = "cannot reserve process or thread id 1: each must be 2 or more";
    expect_error(&reserve("--pid 1", "true")?, 6, message)
}

/// It ends with its holder, though the program goes on.
fn reserve_ends_with_nextid() -> Outcome {
    let pid = free_pid();
    let ids = format!("--pid {pid}");
    let mut holder = command(&format!("reserve {ids} -- sh -c"))
        .arg("echo $$; exec sleep 1000")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(holder.stdout.as_mut().ok_or("it is piped")?).read_line(&mut line)?;
    let refused = reserve(&ids, "true")?;
    holder.kill()?;
    holder.wait()?;
    let free = reserve(&ids, "true")?;
    kill(Pid::from_raw(line.trim().parse()?), Signal::SIGKILL)?;
    let message = format!("{pid} is reserved by process {} (nextid)", holder.id());
    expect_error(&refused, 5, &message)?;
    expect(&free, 0, "")
}

fn reserve_the_ids_of_a_dump() -> Outcome {
    let folder = dump("shared");
    let mut hold = command("reserve");
    hold.arg(&folder).args(["--", NEXTID, "who", "--pid", "31001", "--pid", "31003"]);
    let output = hold.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let is_told =
        text.lines().count() == 2 && text.lines().all(|it| it.contains(" is reserved by "));
    ensure(output.status.code() == Some(5) && is_told, &output)?;
    let folder = dump("container");
    let mut hold = command("reserve");
    let output = hold.arg(&folder).args(["--", "true"]).output()?;
    expect_error(&output, 1, "nothing is to be reserved")?;
    let output = nextid("reserve --pid 31001 --join pid -- true");
    expect_error(&output, 2, "required arguments were not provided")?;
    // In the current IPC namespace.
    let mut hold = command("reserve --join ipc");
    let output =
        hold.arg(&folder).args(["--", NEXTID, "who", "--msg", "0", "--shm", "0"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let is_told =
        text.lines().count() == 2 && text.lines().all(|it| it.contains(" is reserved by "));
    ensure(output.status.code() == Some(5) && is_told, &output)
}

fn restore_what_is_reserved() -> Outcome {
    let folder = dump("shared");
    let mut restore = command("reserve");
    restore.arg(&folder).args(["--", NEXTID, "restore", "--detach", "--json"]).arg(&folder);
    let output = restore.output()?;
    Restored::told(&output)?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure(text.contains(" (nextid) has reserved "), &output)
}

fn reserve_without_reservations() -> Outcome {
    let output = reserve(&format!("--pid {}", free_pid()), "echo it runs")?;
    expect(&output, 3, "")
}
