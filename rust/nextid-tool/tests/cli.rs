// SPDX-License-Identifier: GPL-2.0

//! The tool as its users meet it: what it prints, how it exits, what is there afterwards.
//!
//! It takes root. `--fallback` is given throughout, so that it runs on any kernel; where the kernel
//! has `next_id`, that is used.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};

use criu_images::Magic;
use criu_images::proto::{IpcDescEntry, IpcShmEntry, MmEntry, PagemapEntry, PagemapHead, VmaEntry};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, kill, signal};
use nix::unistd::{Pid, pipe2, setsid};
use serde_json::{Value, json};
use tempfile::TempDir;
use testing::images::Image;
use testing::processes::history;
use testing::{
    Failed, Hindrances, Outcome, ensure, free_pid, has_kinds, has_next_id, has_reservations,
    images, test, wait_until,
};

const NEXTID: &str = env!("CARGO_BIN_EXE_nextid");

fn main() -> ExitCode {
    let Hindrances { not_root: root, no_file, file, no_reservations, reservations, .. } =
        testing::set_up();
    testing::run(vec![
        test("run_exits_as_its_program", root, run_exits_as_its_program),
        test("run_gives_the_pid", root, run_gives_the_pid),
        test("run_with_sigchld_ignored", root, run_with_sigchld_ignored),
        test("run_that_cannot_execute", root, run_that_cannot_execute),
        test("run_with_a_pid_in_use", root, run_with_a_pid_in_use),
        test("run_out_of_range", root, run_out_of_range),
        test("run_without_privilege", root, run_without_privilege),
        test("run_as_first_process", root, run_as_first_process),
        test("run_reaps_orphans", root, run_reaps_orphans),
        test("run_forwards_signals", root, run_forwards_signals),
        test("run_above_a_limit", root, run_above_a_limit),
        test("run_above_a_limit_for_good", root.or(no_reservations), run_above_a_limit_for_good),
        test("ipc_objects", root, ipc_objects),
        test("ipc_errors", root, ipc_errors),
        test("show_what_is_armed", root.or(no_file), show_what_is_armed),
        test("show_a_process_that_is_not_there", None, show_nobody),
        test("who_has_ids", root, who_has_ids),
        test("reserve_holds_ids", root.or(no_reservations), reserve_holds_ids),
        test("reserve_all_or_nothing", root.or(no_reservations), reserve_all_or_nothing),
        test("reserve_ends_with_nextid", root.or(no_reservations), reserve_ends_with_nextid),
        test("reserve_the_ids_of_a_dump", root.or(no_reservations), reserve_the_ids_of_a_dump),
        test("reserve_without_reservations", reservations, reserve_without_reservations),
        test("probe", root, probe),
        test("probe_without_privilege", root, probe_without_privilege),
        test("without_next_id", file, without_next_id),
        test("restore_a_container", root, restore_a_container),
        test("restore_archives", root, restore_archives),
        test("restore_with_a_pre_dump", root, restore_with_a_pre_dump),
        test("restore_a_part_of_a_pid_namespace", root, restore_a_part_of_a_pid_namespace),
        test("restore_into_an_ipc_namespace", root, restore_into_an_ipc_namespace),
        test("restore_into_an_ipc_namespace_in_vain", root, restore_into_an_ipc_namespace_in_vain),
        test("restore_a_removed_segment", root, restore_a_removed_segment),
        test("restore_huge_pages", root, restore_huge_pages),
        test("restore_above_pid_max", root.or(no_pid_max()), restore_above_pid_max),
        test("restore_damaged_pages", root, restore_damaged_pages),
        test("restore_orphans", root, restore_orphans),
        test("restore_a_stopped_init", root, restore_a_stopped_init),
        test("restore_a_stopped_job", root, restore_a_stopped_job),
        test(
            "restore_a_group_that_is_led_from_below",
            root,
            restore_a_group_that_is_led_from_below,
        ),
        test("restore_names_that_are_no_text", root, restore_names_that_are_no_text),
        test("restore_limits", root, restore_limits),
        test("restore_full_queues", root, restore_full_queues),
        test(
            "restore_lowered_limits",
            root.or(testing::no_user_namespaces()),
            restore_lowered_limits,
        ),
        test("restore_limits_that_cannot_be", root, restore_limits_that_cannot_be),
        test(
            "restore_in_a_user_namespace",
            root.or(testing::no_user_namespaces()),
            restore_in_a_user_namespace,
        ),
        test("restore_with_inherited_signals", root, restore_with_inherited_signals),
        test("restore_ends_with_nextid", root, restore_ends_with_nextid),
        test("restore_of_ids_in_use", root, restore_of_ids_in_use),
        test("restore_trees", root, restore_trees),
        test("restore_random_trees", root, restore_random_trees),
        test("restore_statuses", root, restore_statuses),
        test("restore_cores", root.or(no_cores()), restore_cores),
        test("restore_with_seccomp_filters", root.or(no_file), restore_with_seccomp_filters),
        test("fallback_with_seccomp_filters", root.or(file), fallback_with_seccomp_filters),
        test("restore_exits_as_the_first", root, restore_exits_as_the_first),
        test("restore_as_init", root, restore_as_init),
        test("restore_with_outer_pids", root, restore_with_outer_pids),
        test("restore_of_its_own_id", root, restore_of_its_own_id),
        test(
            "restore_that_fails_is_undone",
            root.or(testing::no_user_namespaces()),
            restore_that_fails_is_undone,
        ),
        test("restore_that_cannot_print", root, restore_that_cannot_print),
        test("restore_of_damaged_images", None, restore_of_damaged_images),
        test("restore_of_what_cannot_have_been", None, restore_of_what_cannot_have_been),
        test("dry_run", None, dry_run),
        test("names_that_a_terminal_would_obey", None, names_that_a_terminal_would_obey),
        test("completions_and_man_page", None, completions_and_man_page),
        test("wrong_command_line", None, wrong_command_line),
    ])
}

/// `nextid --fallback` with arguments that are separated by spaces.
fn command(arguments: &str) -> Command {
    let mut command = Command::new(NEXTID);
    command.arg("--fallback").args(arguments.split(' '));
    command
}

fn nextid(arguments: &str) -> Output {
    command(arguments).output().expect("nextid runs")
}

/// What a user without privilege gets, from a copy of the program which that user can reach.
fn nextid_as_nobody(arguments: &str) -> Result<Output, Failed> {
    let folder = TempDir::new()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let copy = folder.path().join("nextid");
    fs::copy(NEXTID, &copy)?;
    let mut command = Command::new(copy);
    Ok(command.arg("--fallback").args(arguments.split(' ')).uid(65534).output()?)
}

fn expect(output: &Output, status: i32, stdout: &str) -> Outcome {
    let printed = String::from_utf8_lossy(&output.stdout);
    ensure(output.status.code() == Some(status) && printed == stdout, output)
}

fn expect_error(output: &Output, status: i32, message: &str) -> Outcome {
    let printed = String::from_utf8_lossy(&output.stderr);
    ensure(output.status.code() == Some(status) && printed.contains(message), output)
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

/// The ids that a script prints, each on a line.
fn printed_ids(output: &Output) -> Result<Vec<i32>, Failed> {
    ensure(output.status.success(), output)?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(str::parse).collect::<Result<_, _>>()?)
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

fn reserve_without_reservations() -> Outcome {
    let output = reserve(&format!("--pid {}", free_pid()), "echo it runs")?;
    expect(&output, 3, "")
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

fn wait_for_line(child: &mut Child) -> Outcome {
    let stdout = child.stdout.as_mut().ok_or("it is piped")?;
    BufReader::new(stdout).read_line(&mut String::new())?;
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

fn dump(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../criu-images/tests/dumps").join(name)
}

/// A tree that was restored, which ends with this.
struct Restored {
    first: i32,
}

impl Restored {
    fn new(dump: &Path) -> Result<Self, Failed> {
        Self::by(command("restore --detach --json").arg(dump))
    }

    fn in_a_user_namespace(dump: &Path) -> Result<Self, Failed> {
        let mut inside = Command::new("unshare");
        inside.args(["--user", "--map-root-user", NEXTID, "--fallback", "restore", "--detach"]);
        Self::by(inside.arg("--json").arg(dump))
    }

    fn by(command: &mut Command) -> Result<Self, Failed> {
        Self::told(&command.output()?)
    }

    /// The one that `output` tells of.
    fn told(output: &Output) -> Result<Self, Failed> {
        ensure(output.status.success(), output)?;
        let first = json_of(output)?["restored_as"].as_i64().ok_or("nothing is restored")?;
        Ok(Self { first: first.try_into()? })
    }

    /// What `/proc` tells of each process.
    fn statuses(&self) -> Result<HashMap<i32, String>, Failed> {
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
    fn status_of_zombie(&self, pid: &str) -> Result<i32, Failed> {
        let statuses = self.statuses()?;
        let zombie = statuses.iter().find(|(_, status)| last(status, "NSpid") == pid);
        let (outer, _) = zombie.ok_or("no such zombie")?;
        let stat = fs::read_to_string(format!("/proc/{outer}/stat"))?;
        Ok(stat.split_whitespace().last().unwrap_or_default().parse()?)
    }

    /// The tree as `/proc` shows it, with all ids from the innermost pid namespace: of each process
    /// its id, parent, group, session, name and state, of each further thread its id and name.
    fn tree(&self) -> Result<BTreeSet<String>, Failed> {
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
fn read_lossy(path: &Path) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim()
}

fn last<'a>(status: &'a str, name: &str) -> &'a str {
    field(status, name).split_whitespace().last().unwrap_or_default()
}

fn expect_tree(restored: &Restored, expected: &[&str]) -> Outcome {
    let expected: BTreeSet<String> = expected.iter().map(|&line| line.to_owned()).collect();
    // That a process stops itself takes a moment.
    let is_there = wait_until(|| restored.tree().is_ok_and(|tree| tree == expected));
    let tree = restored.tree()?;
    let missing: Vec<_> = expected.difference(&tree).collect();
    let more: Vec<_> = tree.difference(&expected).collect();
    ensure(is_there, (missing, more))
}

fn restore_a_container() -> Outcome {
    let restored = Restored::new(&dump("container"))?;
    expect_tree(
        &restored,
        &[
            "1 of 0 in 1 1: init S",
            "42 of 1 in 42 1: worker S",
            "42 has 44: poll",
            "42 has 45: flush",
            "43 of 1 in 43 43: session S",
            "46 of 43 in 43 43: member S",
            "47 of 43 in 47 43: leader S",
            "48 of 47 in 47 43: zombie Z",
        ],
    )?;

    in_ipc_namespace_of(&restored, check_contents)
}

/// What podman and the kubelet export.
fn restore_archives() -> Outcome {
    let folder = TempDir::new()?;
    fs::create_dir(folder.path().join("a"))?;
    std::os::unix::fs::symlink(dump("container"), folder.path().join("a/checkpoint"))?;
    fs::write(folder.path().join("a/config.dump"), "{}")?;
    for (name, compression) in [("a.tar", "--no-same-owner"), ("a.tar.gz", "--gzip")] {
        let archive = folder.path().join(name);
        let mut tar = Command::new("tar");
        tar.args([compression, "--dereference", "--create", "--file"]).arg(&archive);
        ensure(tar.arg("-C").arg(folder.path().join("a")).arg(".").status()?.success(), &tar)?;
        let restored = Restored::new(&archive)?;
        in_ipc_namespace_of(&restored, check_contents)?;
    }
    let restored = Restored::new(&folder.path().join("a"))?;
    in_ipc_namespace_of(&restored, check_contents)
}

/// A dump of whose segment only the pages are there that changed since the pre-dump.
fn restore_with_a_pre_dump() -> Outcome {
    let (pre, copy) = (dump("container"), copy("container")?);
    let in_parent = |vaddr| PagemapEntry {
        vaddr,
        compat_nr_pages: 1,
        flags: Some(1),
        ..PagemapEntry::default()
    };
    write_pagemap(copy.path(), &[in_parent(0), in_parent(8192)])?;
    fs::write(copy.path().join("pages-6.img"), "")?;
    let message = "this dump has only the pages that changed since another one";
    expect_error(&restore_in_vain(copy.path())?, 7, message)?;

    let mut given = command("restore --detach --json --parent");
    let restored = Restored::by(given.args([&*pre, copy.path()]))?;
    in_ipc_namespace_of(&restored, check_contents)?;
    drop(restored);
    std::os::unix::fs::symlink(&pre, copy.path().join("parent"))?;
    in_ipc_namespace_of(&Restored::new(copy.path())?, check_contents)
}

/// Writes where the pages of the segment are: in `pages-6.img`.
fn write_pagemap(dump: &Path, entries: &[PagemapEntry]) -> io::Result<()> {
    let pagemap = Image::new(Magic::Pagemap).entry(&PagemapHead { pages_id: 6 }).entries(entries);
    fs::write(dump.join("pagemap-shmem-0.img"), pagemap)
}

/// As of a container of a pod, whose pid namespace is that of the pod.
fn restore_a_part_of_a_pid_namespace() -> Outcome {
    let copy = copy("shared")?;
    for file in ["ids-31001.img", "ids-31003.img"] {
        damage(&copy, file, b"\x28\x01", b"\x28\x0c")?;
    }
    let output = restore_in_vain(copy.path())?;
    expect_error(
        &output,
        7,
        "Run nextid in the namespace that it is to be a part of, with --join",
    )?;
    let restored = Restored::by(command("restore --detach --json --join pid").arg(copy.path()))?;
    ensure(restored.first == 31001 && is_alive(31003), restored.first)
}

/// Does something in a new IPC namespace.
fn in_new_ipc_namespace(act: impl FnOnce() -> Outcome) -> Outcome {
    let own = File::open("/proc/self/ns/ipc")?;
    unshare(CloneFlags::CLONE_NEWIPC)?;
    let done = act();
    setns(own, CloneFlags::CLONE_NEWIPC)?;
    done
}

fn restore_joined(option: &str) -> Command {
    let mut restore = command(&format!("restore {option} --json --join ipc"));
    restore.arg(dump("container"));
    restore
}

fn restore_into_an_ipc_namespace() -> Outcome {
    in_new_ipc_namespace(|| {
        let restored = Restored::by(&mut restore_joined("--detach"))?;
        check_contents()?;
        // A second time, what is there is in the way.
        let output = restore_joined("--dry-run").output()?;
        let json = json_of(&output)?;
        let in_use = json["in_use"].as_array().map_or(0, Vec::len);
        ensure(output.status.code() == Some(5) && in_use == 4, &output)?;
        ensure(json["own_ipc_namespace"] == false, &output)?;
        let message = "the index of 0 is in use by message queue 0 (key 0x00001234, owner 0)";
        expect_error(&restore_joined("--detach").output()?, 5, message)?;
        // Objects outlive processes.
        drop(restored);
        ensure(fs::read_to_string("/proc/sysvipc/sem")?.lines().count() == 2, "it is gone")
    })?;
    // Without the option, they are elsewhere, and that is told.
    in_new_ipc_namespace(|| {
        let output = command("restore --detach --json").arg(dump("container")).output()?;
        let restored = Restored::told(&output)?;
        expect_error(&output, 0, "--join ipc makes them in the current one")?;
        ensure(fs::read_to_string("/proc/sysvipc/sem")?.lines().count() == 1, "they are here")?;
        in_ipc_namespace_of(&restored, check_contents)
    })
}

/// All or nothing, whatever it is that fails.
fn restore_into_an_ipc_namespace_in_vain() -> Outcome {
    let empty = || -> Outcome {
        for kind in ["msg", "sem", "shm"] {
            let list = fs::read_to_string(format!("/proc/sysvipc/{kind}"))?;
            ensure(list.lines().count() == 1, &list)?;
        }
        Ok(())
    };
    in_new_ipc_namespace(|| {
        let output = restore_joined("--detach").stdout(full()?).output()?;
        expect_error(&output, 1, "so all that was made is undone: No space left on device")?;
        empty()?;

        for (limit, value, message) in [
            ("shmmni", "0", "kernel.shmmni is 0 in this IPC namespace, and 1 is needed: raise it"),
            (
                "sem",
                "3 2 10 9",
                "kernel.sem is 3 2 10 9 in this IPC namespace, and 3 3 0 1 is needed",
            ),
        ] {
            let path = format!("/proc/sys/kernel/{limit}");
            let before = fs::read_to_string(&path)?;
            fs::write(&path, value)?;
            expect_error(&restore_joined("--detach").output()?, 6, message)?;
            fs::write(path, before)?;
            empty()?;
        }

        let forced = "/proc/sys/kernel/shm_rmid_forced";
        fs::write(forced, "1")?;
        let message = "kernel.shm_rmid_forced is set in this IPC namespace";
        expect_error(&restore_joined("--detach").output()?, 1, message)?;
        fs::write(forced, "0")?;
        empty()?;

        expect(&nextid("sem --id 98400 --key 0x99"), 0, "98400\n")?;
        let message = "keys are in use, and nothing was made:\n  0x00000099 is the key of semaphore \
                       set 98400";
        for option in ["--dry-run", "--detach"] {
            expect_error(&restore_joined(option).output()?, 5, message)?;
        }
        let queues = fs::read_to_string("/proc/sysvipc/msg")?;
        ensure(queues.lines().count() == 1, queues)
    })
}

/// A segment that is gone when the last process detaches it.
fn restore_a_removed_segment() -> Outcome {
    let copy = copy("container")?;
    // SHM_DEST in its mode.
    damage(&copy, "ipcns-shm-10.img", &[0x30, 0x80, 0x03], &[0x30, 0x80, 0x07])?;
    // A process has it attached, by two areas of its memory.
    let area = |status| VmaEntry { status, ..VmaEntry::default() };
    let (segment, other) = (area(1 << 10), area(1));
    let memory = |vmas: [&VmaEntry; 2]| {
        let vmas = vmas.map(VmaEntry::clone).to_vec();
        Image::new(Magic::Mm).entry(&MmEntry { vmas, ..MmEntry::default() })
    };
    fs::write(copy.path().join("mm-42.img"), memory([&other, &segment]))?;
    fs::write(copy.path().join("mm-43.img"), memory([&other, &other]))?;

    let shown = command("restore --dry-run").arg(copy.path()).output()?;
    let text = String::from_utf8_lossy(&shown.stdout);
    ensure(text.contains("10000 bytes, marked for removal"), &shown)?;
    let restored = Restored::new(copy.path())?;
    let mut attached = Vec::new();
    for (outer, status) in restored.statuses()? {
        if fs::read_to_string(format!("/proc/{outer}/maps"))?.contains("/SYSV") {
            attached.push(last(&status, "NSpid").to_owned());
        }
    }
    ensure(attached == ["42"], attached)?;
    in_ipc_namespace_of(&restored, || {
        let list = fs::read_to_string("/proc/sysvipc/shm")?;
        // Key, id, mode, size, creator and last user, how often it is attached.
        let fields: Vec<_> = list.lines().nth(1).unwrap_or("").split_whitespace().collect();
        let is_marked = fields[..4] == ["0", "0", "1600", "10000"] && fields[6] == "1";
        ensure(is_marked, list)
    })?;
    drop(restored);

    // Where the dump does not tell who has it, the first process has.
    for file in ["mm-42.img", "mm-43.img"] {
        fs::remove_file(copy.path().join(file))?;
    }
    let restored = Restored::new(copy.path())?;
    ensure(fs::read_to_string(format!("/proc/{}/maps", restored.first))?.contains("/SYSV"), "none")
}

/// A segment of two huge pages.
fn restore_huge_pages() -> Outcome {
    const FOLDER: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

    let copy = copy("container")?;
    let segment = IpcShmEntry {
        desc: IpcDescEntry { key: 0x77, mode: 0o600, id: 0, ..IpcDescEntry::default() },
        size: 4 << 20,
        in_pagemaps: Some(true),
        hugetlb_flag: Some(0o4000 | 21 << 26),
    };
    let segments = Image::new(Magic::Segments).entry(&segment);
    fs::write(copy.path().join("ipcns-shm-10.img"), segments)?;
    let dry_run = || command("restore --dry-run").arg(copy.path()).output();
    if !Path::new(FOLDER).exists() {
        let message = "segments of the dump have huge pages of 2048 KiB, and this kernel has none";
        return expect_error(&dry_run()?, 3, message);
    }
    let count = || fs::read_to_string(format!("{FOLDER}/nr_hugepages"));
    let before = count()?;
    let resize = |pages: &str| fs::write(format!("{FOLDER}/nr_hugepages"), pages);
    resize("0")?;
    let message = "take 2 huge pages of 2048 KiB, and 0 are free: write 2 to";
    let refused = dry_run().map_err(Failed::from).and_then(|it| expect_error(&it, 1, message));
    resize("2")?;
    let restored = Restored::new(copy.path());
    resize(&before)?;
    refused?;
    let restored = restored?;
    in_ipc_namespace_of(&restored, || {
        // SAFETY: The kernel chooses a place where nothing is.
        let memory = unsafe { libc::shmat(0, std::ptr::null(), libc::SHM_RDONLY) };
        ensure(memory as isize != -1, io::Error::last_os_error())?;
        // SAFETY: The segment has 4 MiB, and nobody changes them.
        let memory = unsafe { std::slice::from_raw_parts(memory.cast::<u8>(), 4 << 20) };
        let is_restored = memory.starts_with(b"segment\0") && memory[8192..].starts_with(b"third");
        let smaps = fs::read_to_string("/proc/self/smaps")?;
        // SAFETY: It is attached there, and not used any more.
        unsafe { libc::shmdt(memory.as_ptr().cast()) };
        ensure(is_restored && smaps.contains("KernelPageSize:     2048 kB"), "other contents")
    })
}

/// Why a pid namespace has no `pid_max` of its own, if it has not: so before Linux 6.14.
fn no_pid_max() -> Option<&'static str> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split('.').map(|it| it.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (version < (6, 14)).then_some("pid_max is that of the whole machine here")
}

fn restore_above_pid_max() -> Outcome {
    let path = "/proc/sys/kernel/pid_max";
    let before = fs::read_to_string(path)?;
    // The ids of the dump are 31001 and 31003.
    fs::write(path, "31003")?;
    let options = ["restore --dry-run", "restore --detach"];
    let outputs = options.map(|options| command(options).arg(dump("shared")).output());
    // A new namespace has a larger one.
    let other = command("restore --dry-run").arg(dump("orphans")).output();
    fs::write(path, before)?;
    let message = "ids must be below kernel.pid_max, which is 31003, and one is not: 31003; sysctl \
                   kernel.pid_max=31004 raises it";
    for output in outputs {
        expect_error(&output?, 6, message)?;
    }
    ensure(other?.status.success(), "refused")
}

fn restore_damaged_pages() -> Outcome {
    let copy = copy("container")?;
    let block = PagemapEntry {
        compat_nr_pages: 1,
        flags: Some(4),
        compressed_size: vec![8],
        ..PagemapEntry::default()
    };
    write_pagemap(copy.path(), &[block])?;
    fs::write(copy.path().join("pages-6.img"), [0xff; 8])?;
    let message = "pages-6.img, byte 0: a damaged block of LZ4-compressed pages";
    for options in ["restore --dry-run", "restore --detach"] {
        expect_error(&command(options).arg(copy.path()).output()?, 7, message)?;
    }
    expect_no_process()
}

fn in_ipc_namespace_of(restored: &Restored, check: fn() -> Outcome) -> Outcome {
    let own = File::open("/proc/self/ns/ipc")?;
    setns(File::open(format!("/proc/{}/ns/ipc", restored.first))?, CloneFlags::CLONE_NEWIPC)?;
    let checked = check();
    setns(own, CloneFlags::CLONE_NEWIPC)?;
    checked
}

/// A limit of the IPC namespace of the caller.
fn limit(name: &str) -> io::Result<String> {
    fs::read_to_string(format!("/proc/sys/kernel/{name}"))
}

/// Checks the objects of the dump `container`, in the IPC namespace of the caller.
fn check_contents() -> Outcome {
    let list = |kind| -> io::Result<Vec<String>> {
        let list = fs::read_to_string(format!("/proc/sysvipc/{kind}"))?;
        let lines = list.lines().skip(1);
        Ok(lines.map(|it| it.split_whitespace().take(4).collect::<Vec<_>>().join(" ")).collect())
    };
    ensure(list("msg")? == ["4660 0 640 14", "0 1 600 0"], list("msg"))?;
    ensure(list("sem")? == ["153 0 666 3"], list("sem"))?;
    ensure(list("shm")? == ["119 0 600 10000"], list("shm"))?;

    // A `msgbuf`: the type, then the text.
    let mut buffer = [0_u8; 64];
    for (kind, text) in [(7_i64, &b"hello restore"[..]), (9, b"x")] {
        // SAFETY: `buffer` has room for a type and 32 bytes of text.
        let got = unsafe { libc::msgrcv(0, buffer.as_mut_ptr().cast(), 32, 0, libc::IPC_NOWAIT) };
        ensure(usize::try_from(got) == Ok(text.len()), got)?;
        ensure(buffer[..8] == kind.to_ne_bytes() && buffer[8..].starts_with(text), buffer)?;
    }

    let mut values = [0_u16; 3];
    // SAFETY: The set has three semaphores.
    let got = unsafe { libc::semctl(0, 0, libc::GETALL, values.as_mut_ptr()) };
    ensure(got == 0 && values == [5, 0, 9], values)?;

    // SAFETY: The kernel chooses a place where nothing is.
    let memory = unsafe { libc::shmat(0, std::ptr::null(), libc::SHM_RDONLY) };
    ensure(memory as isize != -1, io::Error::last_os_error())?;
    // SAFETY: The segment has 10000 bytes, and nobody changes them.
    let memory = unsafe { std::slice::from_raw_parts(memory.cast::<u8>(), 10000) };
    let mut expected = vec![0; 10000];
    expected[..7].copy_from_slice(b"segment");
    expected[8192..8202].copy_from_slice(b"third page");
    ensure(memory == expected, "the contents of the segment")
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

/// A message that is larger than `kernel.msgmax` is as a rule, in a queue that holds more than
/// `kernel.msgmnb` lets it.
fn restore_limits() -> Outcome {
    // msgmax, from 8192 to 9000, and msgmnb, from 16384 to 65536.
    let copy = damaged("container", "ipcns-var-10.img", b"\x10\x80\x40", b"\x10\xa8\x46")?;
    damage(&copy, "ipcns-var-10.img", b"\x18\x80\x80\x01", b"\x18\x80\x80\x04")?;
    let path = copy.path().join("ipcns-msg-10.img");
    let mut queues = fs::read(&path)?;
    // An entry: key, owner, creator, mode 600, id 2; a capacity of 65536 bytes, one message.
    queues.extend(b"\x17\0\0\0\x0a\x0f\x08\0\x10\0\x18\0\x20\0\x28\0\x30\x80\x03\x38\x02");
    queues.extend(b"\x10\x80\x80\x04\x18\x01");
    // The message: type 5, 9000 bytes.
    queues.extend(b"\x05\0\0\0\x08\x05\x10\xa8\x46");
    queues.extend([b'x'; 9000]);
    fs::write(path, queues)?;

    let restored = Restored::new(copy.path())?;
    in_ipc_namespace_of(&restored, || {
        let limits = (limit("msgmax")?, limit("msgmnb")?);
        ensure(limits == ("9000\n".to_owned(), "65536\n".to_owned()), limits)?;
        let list = fs::read_to_string("/proc/sysvipc/msg")?;
        let queue = list.lines().last().unwrap_or_default();
        ensure(queue.split_whitespace().take(5).eq(["0", "2", "600", "9000", "1"]), list)
    })
}

/// Queues that hold more than their capacity, which was lowered later: more bytes, and more
/// messages.
fn restore_full_queues() -> Outcome {
    // From 16384 to 5, in as many bytes.
    let (from, to) = (b"\x10\x80\x80\x01\x18\x02", b"\x10\x85\x80\0\x18\x02");
    let copy = damaged("container", "ipcns-msg-10.img", from, to)?;
    let path = copy.path().join("ipcns-msg-10.img");
    let mut queues = fs::read(&path)?;
    // An entry as above: a capacity of 1 byte, two messages; each is of type 5, without text.
    queues.extend(b"\x15\0\0\0\x0a\x0f\x08\0\x10\0\x18\0\x20\0\x28\0\x30\x80\x03\x38\x02");
    queues.extend(b"\x10\x01\x18\x02");
    for _ in 0..2 {
        queues.extend(b"\x04\0\0\0\x08\x05\x10\0");
    }
    fs::write(path, queues)?;

    let restored = Restored::new(copy.path())?;
    in_ipc_namespace_of(&restored, || {
        let list = fs::read_to_string("/proc/sysvipc/msg")?;
        let held = list.lines().skip(1).map(|it| it.split_whitespace().skip(3).take(2));
        ensure(held.flatten().eq(["14", "2", "0", "0", "0", "2"]), &list)?;
        for (id, capacity) in [(0, 5), (1, 16384), (2, 1)] {
            // SAFETY: All-zero bytes are a valid `msqid_ds`.
            let mut state: libc::msqid_ds = unsafe { std::mem::zeroed() };
            // SAFETY: `state` is valid to be filled.
            let got = unsafe { libc::msgctl(id, libc::IPC_STAT, &raw mut state) };
            ensure(got == 0 && state.msg_qbytes == capacity, (id, state.msg_qbytes))?;
        }
        Ok(())
    })
}

/// There is more than the limits allow, which were lowered later. In a user namespace, no privilege
/// goes beyond them.
fn restore_lowered_limits() -> Outcome {
    // msgmni, from 32000 to 1, in as many bytes.
    let (from, to) = (b"\x20\x80\xfa\x01\x28", b"\x20\x81\x80\0\x28");
    let copy = damaged("container", "ipcns-var-10.img", from, to)?;
    // The capacity of a queue, from 16384 to 65536.
    let (from, to) = (b"\x10\x80\x80\x01\x18\x02", b"\x10\x80\x80\x04\x18\x02");
    damage(&copy, "ipcns-msg-10.img", from, to)?;
    let path = copy.path().join("ipcns-sem-10.img");
    let mut sets = fs::read(&path)?;
    // An entry: key, owner, creator, mode 600, id 1; 32004 semaphores, of two bytes each.
    sets.extend(b"\x15\0\0\0\x0a\x0f\x08\0\x10\0\x18\0\x20\0\x28\0\x30\x80\x03\x38\x01");
    sets.extend(b"\x10\x84\xfa\x01");
    sets.resize(sets.len() + 2 * 32004, 0);
    fs::write(path, sets)?;

    let restored = Restored::in_a_user_namespace(copy.path())?;
    in_ipc_namespace_of(&restored, || {
        let limits = (limit("msgmni")?, limit("msgmnb")?, limit("sem")?);
        let dumped = ("1\n", "16384\n", "32000\t1024000000\t500\t32000\n");
        ensure((&*limits.0, &*limits.1, &*limits.2) == dumped, limits)?;
        let count = |kind| -> io::Result<usize> {
            Ok(fs::read_to_string(format!("/proc/sysvipc/{kind}"))?.lines().skip(1).count())
        };
        let objects = (count("msg")?, count("sem")?);
        ensure(objects == (2, 2), objects)
    })
}

fn restore_limits_that_cannot_be() -> Outcome {
    // msgmni, from 32000 to more than any kernel has, in as many bytes.
    let from = b"\x20\x80\xfa\x01\x28";
    let copy = damaged("container", "ipcns-var-10.img", from, b"\x20\xff\xff\x7f\x28")?;
    let output = restore_in_vain(copy.path())?;
    expect_error(&output, 1, "cannot set kernel.msgmni to 2097151: Invalid argument")
}

/// The owners in a dump with a user namespace of its own are others outside of one.
fn restore_in_a_user_namespace() -> Outcome {
    // The user namespace, which is that of CRIU.
    let copy = damaged("container", "ids-1.img", b"\x50\x07", b"\x50\x0c")?;
    let output = restore_in_vain(copy.path())?;
    expect_error(&output, 6, "the dump has a user namespace of its own")?;
    let output = command("restore --dry-run").arg(copy.path()).output()?;
    expect_error(&output, 6, "run it inside one")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure(text.contains("message queue"), &output)?;

    let restored = Restored::in_a_user_namespace(copy.path())?;
    in_ipc_namespace_of(&restored, check_contents)?;

    // The user who owns the semaphores.
    let file = "ipcns-sem-10.img";
    let before = fs::read(copy.path().join(file))?;
    damage(&copy, file, &[0x10, 0, 0x18], &[0x10, 7, 0x18])?;
    let mut inside = Command::new("unshare");
    inside.args(["--user", "--map-root-user", NEXTID, "--fallback", "restore", "--dry-run"]);
    let message = "IPC objects belong to users 7, where /proc/self/uid_map has 0 only";
    expect_error(&inside.arg(copy.path()).output()?, 6, message)?;
    fs::write(copy.path().join(file), before)?;

    // Without objects there is no owner.
    for kind in ["msg", "sem", "shm"] {
        fs::remove_file(copy.path().join(format!("ipcns-{kind}-10.img")))?;
    }
    Restored::new(copy.path()).map(drop)
}

/// A program inherits which signals are ignored, and which are blocked.
fn restore_with_inherited_signals() -> Outcome {
    // The zombie was ended by SIGTERM.
    let copy = damaged("container", "core-48.img", b"\x80\x06", b"\x8f\x00")?;
    let mut restore = command("restore --detach --json");
    ignoring_sigchld(restore.arg(copy.path()));
    // SAFETY: It is a system call and no more.
    unsafe {
        restore.pre_exec(|| Ok(SigSet::from(Signal::SIGTERM).thread_block()?));
    }
    let restored = Restored::by(&mut restore)?;
    let status = restored.status_of_zombie("48")?;
    ensure(status == Signal::SIGTERM as i32, status)?;
    // Whether processes dump core here is tried before that.
    let copy = damaged("container", "core-48.img", b"\x80\x06", b"\x8b\x01")?;
    let output = ignoring_sigchld(command("restore --dry-run").arg(copy.path())).output()?;
    ensure(!String::from_utf8_lossy(&output.stderr).contains("cannot wait"), output)
}

/// Lets a command inherit that SIGCHLD is ignored.
fn ignoring_sigchld(command: &mut Command) -> &mut Command {
    // SAFETY: It is a system call and no more.
    unsafe { command.pre_exec(|| Ok(signal(Signal::SIGCHLD, SigHandler::SigIgn).map(drop)?)) }
}

fn restore_ends_with_nextid() -> Outcome {
    let mut nextid = command("restore")
        .arg(dump("shared"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    wait_for_line(&mut nextid)?;
    ensure(is_alive(31001) && is_alive(31003), "it is not restored")?;
    kill(Pid::from_raw(nextid.id().try_into()?), Signal::SIGTERM)?;
    nextid.wait()?;
    ensure(wait_until(|| !is_alive(31001) && !is_alive(31003)), "the tree goes on")
}

fn is_alive(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !field(&status, "State").starts_with('Z')
}

fn restore_of_ids_in_use() -> Outcome {
    // The first process of the tree that ended may still wait for init to look after it.
    ensure(wait_until(|| !Path::new("/proc/31003").exists()), "31003 is in use")?;
    let mut holder = command("run --pid 31003 -- sleep 100").spawn()?;
    // Until it executes sleep, it has the name of nextid.
    let is_there =
        wait_until(|| fs::read_to_string("/proc/31003/comm").is_ok_and(|it| it == "sleep\n"));
    let restored = command("restore").arg(dump("shared")).output()?;
    let shown = command("restore --dry-run").arg(dump("shared")).output()?;
    let json = command("restore --dry-run --json").arg(dump("shared")).output()?;
    kill(Pid::from_raw(31003), Signal::SIGKILL)?;
    holder.wait()?;
    ensure(is_there && !is_alive(31001), "it is restored in part")?;

    let message = "31003 is in use by process 31003 (sleep)";
    expect_error(&restored, 5, &format!("ids are in use, and nothing was made:\n  {message}"))?;
    let text = String::from_utf8_lossy(&shown.stdout);
    let is_told = text.contains(&format!("in the way: {message}"));
    ensure(shown.status.code() == Some(5) && is_told, &shown)?;
    let told = json_of(&json)?["in_use"].take();
    let holder = json!({"kind": "PID", "id": 31003, "role": "task", "pid": 31003, "name": "sleep"});
    ensure(told == json!([holder]), &json)
}

/// A copy of a dump, in which the first `from` in a file is made `to`.
fn damaged(name: &str, file: &str, from: &[u8], to: &[u8]) -> Result<TempDir, Failed> {
    let copy = copy(name)?;
    damage(&copy, file, from, to)?;
    Ok(copy)
}

fn copy(name: &str) -> io::Result<TempDir> {
    let copy = TempDir::new()?;
    for entry in fs::read_dir(dump(name))? {
        let entry = entry?;
        fs::copy(entry.path(), copy.path().join(entry.file_name()))?;
    }
    Ok(copy)
}

fn damage(copy: &TempDir, file: &str, from: &[u8], to: &[u8]) -> Outcome {
    let path = copy.path().join(file);
    let mut bytes = fs::read(&path)?;
    let place = bytes.windows(from.len()).position(|bytes| bytes == from).ok_or("not there")?;
    bytes.splice(place..place + from.len(), to.iter().copied());
    Ok(fs::write(path, bytes)?)
}

/// Restores a dump that cannot be restored. One that can be would go on for ever: it is ended.
fn restore_in_vain(dump: &Path) -> io::Result<Output> {
    let mut command = Command::new("timeout");
    command.args(["60", NEXTID, "--fallback", "restore"]).arg(dump).output()
}

/// A tree that the tests made up, each process with its parent, group and session.
fn written(processes: &[(i32, i32, i32, i32)]) -> Result<TempDir, Failed> {
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

/// A filter of a container may know nothing of new system calls, and refuse them.
fn restore_with_seccomp_filters() -> Outcome {
    for errno in [Errno::ENOSYS, Errno::EPERM] {
        let mut restore = command("restore --detach --json");
        refuse(restore.arg(dump("container")), errno);
        let restored = Restored::by(&mut restore)?;
        in_ipc_namespace_of(&restored, check_contents)?;
        let mut run = command(&format!("run --pid {} -- true", free_pid()));
        refuse(&mut run, errno);
        expect(&run.output()?, 0, "")?;
    }
    Ok(())
}

/// Without `next_id` it takes clone3(2), and the error blames no capability.
fn fallback_with_seccomp_filters() -> Outcome {
    for errno in [Errno::ENOSYS, Errno::EPERM] {
        let mut restore = command("restore --detach");
        refuse(restore.arg(dump("container")), errno);
        expect_error(&restore.output()?, 1, "clone3(2), which a seccomp filter refuses")?;
    }
    Ok(())
}

/// Lets a command run under a filter that refuses clone3(2) and `close_range(2)`.
fn refuse(command: &mut Command, errno: Errno) {
    let statement = |code: u32, jumps: [u8; 2], value: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: jumps[0],
        jf: jumps[1],
        k: value,
    };
    let is = |call: libc::c_long, jumps| {
        let call = u32::try_from(call).unwrap_or_default();
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jumps, call)
    };
    let answer = |value| statement(libc::BPF_RET | libc::BPF_K, [0, 0], value);
    let filter = [
        // The number of the call comes first in what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, [0, 0], 0),
        is(libc::SYS_clone3, [1, 0]),
        is(libc::SYS_close_range, [0, 1]),
        answer(libc::SECCOMP_RET_ERRNO | errno as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let mut filter = filter;
        let program = libc::sock_fprog { len: 5, filter: filter.as_mut_ptr() };
        // SAFETY: The program is valid as long as the call lasts.
        Errno::result(unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        })?;
        Ok(())
    };
    // SAFETY: It makes two system calls and no more.
    unsafe { command.pre_exec(install) };
}

/// Without --detach the tool ends as the first process did.
fn restore_exits_as_the_first() -> Outcome {
    let folder = written(&[(1, 0, 1, 1)])?;
    let mut restore =
        command("restore --json").arg(folder.path()).stdout(Stdio::piped()).spawn()?;
    let mut text = String::new();
    let stdout = restore.stdout.as_mut().ok_or("it is piped")?;
    for line in BufReader::new(stdout).lines() {
        text += &line?;
        if serde_json::from_str::<Value>(&text).is_ok() {
            break;
        }
    }
    let first: Value = serde_json::from_str(&text)?;
    let first = first["restored_as"].as_i64().ok_or("nothing is restored")?;
    kill(Pid::from_raw(first.try_into()?), Signal::SIGKILL)?;
    let status = restore.wait()?;
    ensure(status.code() == Some(128 + 9), status)
}

fn restore_with_outer_pids() -> Outcome {
    let folder = written(&[(1, 0, 1, 1), (7, 1, 1, 1)])?;
    let outer = free_pid();
    let option = format!("restore --detach --json --outer-pid 7={outer}");
    let restored = Restored::by(command(&option).arg(folder.path()))?;
    let statuses = restored.statuses()?;
    ensure(statuses.get(&outer).is_some_and(|it| last(it, "NSpid") == "7"), &statuses)?;
    for (option, status, message) in [
        ("--outer-pid 8=9", 2, "the dump has no process or thread 8"),
        ("--outer-pid 7=9 --outer-pid 7=10", 2, "it is given twice for 7"),
        ("--dry-run --outer-pid 7=4194304", 6, "and one is not: 4194304"),
        (&format!("--dry-run --outer-pid 7={}", ["9"; 40].join(",")), 6, "7 40 ids further out"),
    ] {
        let output = command(&format!("restore {option}")).arg(folder.path()).output()?;
        expect_error(&output, status, message)?;
    }
    // That of a thread, where the kernel can be told.
    drop(restored);
    let outer = free_pid();
    let option = format!("restore --detach --json --outer-pid 44={outer}");
    let mut restore = command(&option);
    restore.arg(dump("container"));
    if !has_next_id() {
        return expect_error(&restore.output()?, 3, "");
    }
    let restored = Restored::by(&mut restore)?;
    let thread = read_lossy(&Path::new("/proc").join(outer.to_string()).join("status"))?;
    ensure(last(&thread, "NSpid") == "44", (restored.first, thread))
}

/// It moves out of the way of a dump that has its id.
fn restore_of_its_own_id() -> Outcome {
    const SCRIPT: &str = "\
        \"$1\" --fallback restore --detach \"$2\"; status=$?
        for i in $(seq 100); do
            read -r name </proc/2/comm && [ \"$name\" = task ] && break
            sleep 0.1
        done 2>/dev/null
        echo $name; exit $status";

    let folder = written(&[(2, 0, 2, 2)])?;
    let mut inside = Command::new("unshare");
    inside.args(["--pid", "--fork", "--mount-proc", "sh", "-c", SCRIPT, "sh", NEXTID]);
    let output = inside.arg(folder.path()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure(output.status.success() && text.ends_with("\ntask\n"), &output)?;
    expect_error(&output, 0, "it goes on as process ")
}

fn restore_as_init() -> Outcome {
    let folder = written(&[(31001, 0, 31001, 31001)])?;
    let mut inside = Command::new("unshare");
    inside.args(["--pid", "--fork", "--mount-proc", NEXTID, "--fallback", "restore", "--detach"]);
    let output = inside.arg(folder.path()).output()?;
    expect_error(&output, 1, "run it without --detach, or below an init")?;
    expect(&output, 1, "")
}

/// A limit of processes is named, and what was made is undone.
fn restore_that_fails_is_undone() -> Outcome {
    let folder = TempDir::new()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let copy = folder.path().join("nextid");
    fs::copy(NEXTID, &copy)?;
    let tree: Vec<images::Process> = (1..10)
        .map(|pid| images::Process {
            pid,
            parent: i32::from(pid > 1),
            group: 1,
            session: 1,
            ..images::Process::default()
        })
        .collect();
    images::write_tree(folder.path(), &tree)?;
    let mut inside = Command::new("unshare");
    inside.args(["--user", "--map-root-user"]).arg(&copy).args(["--fallback", "restore"]);
    inside.arg(folder.path()).uid(65534);
    // SAFETY: It is a system call and no more.
    unsafe {
        inside.pre_exec(|| Ok(setrlimit(Resource::RLIMIT_NPROC, 5, 5)?));
    }
    let output = inside.output()?;
    expect_error(&output, 1, "; all that was made is undone")?;
    expect_error(&output, 1, "ulimit -u (RLIMIT_NPROC)")?;
    for entry in fs::read_dir("/proc")? {
        let program = fs::read_link(entry?.path().join("exe")).unwrap_or_default();
        ensure(program != copy, "a process is left")?;
    }
    Ok(())
}

fn restore_that_cannot_print() -> Outcome {
    // With a pid namespace of its own, and without.
    for name in ["container", "shared"] {
        let output = command("restore --detach").arg(dump(name)).stdout(full()?).output()?;
        expect_error(&output, 1, "so all that was made is undone: No space left on device")?;
        expect_no_process()?;
    }
    Ok(())
}

/// Where nothing can be written.
fn full() -> io::Result<File> {
    OpenOptions::new().write(true).open("/dev/full")
}

/// No process of a tree is left, nor the tool itself.
fn expect_no_process() -> Outcome {
    for entry in fs::read_dir("/proc")? {
        let program = fs::read_link(entry?.path().join("exe")).unwrap_or_default();
        ensure(program != Path::new(NEXTID), "a process is left")?;
    }
    Ok(())
}

fn restore_of_damaged_images() -> Outcome {
    let output = nextid("restore /does/not/exist");
    let message = "cannot read the dump: /does/not/exist: No such file";
    expect_error(&output, 7, message)?;
    let copy = damaged("container", "pstree.img", &[8, 46, 16, 43], &[8, 46, 16, 99])?;
    let output = restore_in_vain(copy.path())?;
    expect_error(&output, 7, "process 46 comes before its parent 99, or without it")
}

fn restore_of_what_cannot_have_been() -> Outcome {
    // The leader of a session is below a process that is in it.
    let folder = written(&[(1, 0, 1, 1), (8, 1, 9, 9), (9, 8, 9, 9)])?;
    let output = restore_in_vain(folder.path())?;
    expect_error(&output, 7, "process 8 is in session 9 and a child of 1: no history of fork")
}

fn dry_run() -> Outcome {
    let output = command("restore --dry-run").arg(dump("container")).output()?;
    expect(
        &output,
        0,
        "\
process                  group  session  state
1 init                       1        1  running
├─ 42 worker                42        1  running
│  ├─ thread 44 poll
│  └─ thread 45 flush
└─ 43 session               43       43  running
   ├─ 46 member             43       43  running
   └─ 47 leader             47       43  running
      └─ 48 zombie          47       43  zombie

object                 id         key  mode   owner  contents
message queue           0  0x00001234  0640     0:0  2 messages, 14 bytes
message queue           1  0x00000000  0600     0:0  0 messages, 0 bytes
semaphore set           0  0x00000099  0666     0:0  3 semaphores
shared memory           0  0x00000077  0600     0:0  10000 bytes
",
    )?;
    let output = command("restore --dry-run --json").arg(dump("container")).output()?;
    let expected = json!([
        {"kind": "message queue", "id": 0, "key": 0x1234, "mode": 0o640, "uid": 0, "gid": 0,
         "messages": 2, "bytes": 14},
        {"kind": "message queue", "id": 1, "key": 0, "mode": 0o600, "uid": 0, "gid": 0,
         "messages": 0, "bytes": 0},
        {"kind": "semaphore set", "id": 0, "key": 0x99, "mode": 0o666, "uid": 0, "gid": 0,
         "semaphores": 3},
        {"kind": "shared memory", "id": 0, "key": 0x77, "mode": 0o600, "uid": 0, "gid": 0,
         "size": 10000, "huge_pages": false, "removed": false},
    ]);
    ensure(json_of(&output)?["objects"] == expected, &output)
}

fn json_of(output: &Output) -> Result<Value, Failed> {
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn names_that_a_terminal_would_obey() -> Outcome {
    let copy = damaged("container", "core-43.img", b"session", b"\x1b[31mse")?;
    let output = command("restore --dry-run").arg(copy.path()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure(text.contains("43 ?[31mse ") && !text.contains('\x1b'), &output)
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
