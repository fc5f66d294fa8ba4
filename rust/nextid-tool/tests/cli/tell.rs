// SPDX-License-Identifier: GPL-2.0

//! What tells of the kernel, of a process and of the tool itself.

use std::process::{Command, Stdio};

use serde_json::json;
use testing::{Hindrances, Outcome, Trial, ensure, has_kinds, has_next_id, test};

use crate::common::{
    NEXTID, command, dump, expect, expect_error, full, json_of, nextid, nextid_as_nobody,
    wait_for_line,
};

/// The tests of this part.
pub fn tests(h: &Hindrances) -> Vec<Trial> {
    vec![
        test("show_what_is_armed", h.not_root.or(h.no_file), show_what_is_armed),
        test("show_a_process_that_is_not_there", None, show_nobody),
        test("probe", h.not_root, probe),
        test("probe_without_privilege", h.not_root, probe_without_privilege),
        test("without_next_id", h.file, without_next_id),
        test("completions_and_man_page", None, completions_and_man_page),
        test("wrong_command_line", None, wrong_command_line),
    ]
}

fn show_what_is_armed() -> Outcome {
    let words = [("LONG2 7 8", "LONG", "7 8"), ("PID2 7 8", "PID", "7 8"), ("SHM 0", "SHM", "0")];
    for (command, word, ids) in if has_kinds() { &words[..] } else { &words[..1] } {
        let mut armed = Command::new("sh")
            .args(["-c", &format!("echo {command} > /proc/self/next_id; echo ready; read line")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        wait_for_line(&mut armed)?;
        let pid = armed.id();
        let text = nextid(&format!("show {pid}"));
        let json = nextid(&format!("show {pid} --json"));
        armed.kill()?;
        armed.wait()?;
        expect(&text, 0, &format!("{pid} (sh): {word} {ids}\n"))?;
        let ids: Vec<i64> = ids.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let thread = json!({"tid": pid, "name": "sh", "armed": {"kind": word, "ids": ids}});
        ensure(json_of(&json)? == json!({"pid": pid, "threads": [thread]}), json)?;
    }
    Ok(())
}

fn show_nobody() -> Outcome {
    expect_error(&nextid("show 2147483647"), 1, "no process 2147483647")
}

fn probe() -> Outcome {
    let output = nextid("probe");
    let text = String::from_utf8_lossy(&output.stdout);
    let yes = text.lines().filter(|line| line.ends_with("  yes")).count();
    let expected = match (has_next_id(), has_kinds()) {
        (true, true) => (Some(0), 6),
        (true, false) => (Some(3), 4),
        (false, _) => (Some(3), 3),
    };
    ensure((output.status.code(), yes) == expected, &output)?;
    let json = nextid("probe --json");
    ensure(json_of(&json)?["next_id"] == has_next_id(), &json)
}

fn probe_without_privilege() -> Outcome {
    let output = nextid_as_nobody("probe")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let status = if has_next_id() { 4 } else { 3 };
    let refused = text.lines().filter(|line| line.contains("  no: ")).collect::<Vec<_>>();
    let is_told = refused.len() >= 2 && refused.iter().all(|it| it.contains("not permitted to"));
    ensure(output.status.code() == Some(status) && is_told, &output)
}

fn without_next_id() -> Outcome {
    let message = "this kernel is built without CONFIG_NEXT_ID";
    let output = Command::new(NEXTID).args(["run", "--pid", "22000", "--", "true"]).output()?;
    expect_error(&output, 3, message)?;
    let mut dry_run = Command::new(NEXTID);
    let output = dry_run.args(["restore", "--dry-run"]).arg(dump("container")).output()?;
    expect_error(&output, 3, message)?;
    ensure(output.stdout.starts_with(b"process "), &output)
}

fn completions_and_man_page() -> Outcome {
    for shell in ["bash", "zsh", "fish"] {
        let output = nextid(&format!("completions {shell}"));
        let text = String::from_utf8_lossy(&output.stdout);
        ensure(output.status.success() && text.contains("dry-run"), output.status)?;
    }
    let output = nextid("man");
    let text = String::from_utf8_lossy(&output.stdout);
    ensure(output.status.success() && text.contains(".TH nextid"), output.status)?;
    ensure(text.contains("EXIT STATUS"), "no exit statuses in the man page")?;
    let output = nextid("man restore");
    let text = String::from_utf8_lossy(&output.stdout);
    let is_page = text.contains(".TH nextid-restore") && text.contains("dry");
    ensure(output.status.success() && is_page, output.status)?;
    for what in ["completions bash", "man"] {
        let output = command(what).stdout(full()?).output()?;
        expect_error(&output, 1, "No space left on device")?;
    }
    Ok(())
}

fn wrong_command_line() -> Outcome {
    expect_error(&nextid("run -- true"), 2, "--pid")?;
    expect_error(&nextid("msg --id x"), 2, "invalid value")?;
    for key in ["x", "0x", "4294967296", "-2147483649"] {
        let message =
            format!("invalid value '{key}' for '--key <KEY>': it must be decimal, or hex");
        expect_error(&nextid(&format!("msg --id 98322 --key {key}")), 2, &message)?;
    }
    for mode in ["999", "1000", "4600"] {
        let message = format!("invalid value '{mode}' for '--mode <MODE>': it must be octal");
        expect_error(&nextid(&format!("msg --id 98322 --mode {mode}")), 2, &message)?;
    }
    expect_error(&nextid("sem --id 98322 --count 0"), 2, "0 is not in 1..=65535")?;
    expect_error(&nextid("shm --id 98322 --size 0"), 2, "0 is not in 1..")?;
    expect_error(&nextid("man tea"), 2, "no command tea")?;
    expect_error(&nextid("man --json"), 2, "unexpected argument '--json'")
}
