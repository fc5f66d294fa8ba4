// SPDX-License-Identifier: GPL-2.0

//! `nextid restore`: the command.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use testing::{
    Hindrances, Outcome, Trial, ensure, free_pid, has_next_id, images, test, wait_until,
};

use crate::common::{
    NEXTID, Restored, command, copy, damage, damaged, dump, expect, expect_error,
    expect_no_process, expect_tree, full, ignoring_sigchld, is_alive, json_of, last, nextid,
    read_lossy, restore_in_vain, wait_for_line, written,
};
use crate::restore_ipc::{check_contents, in_ipc_namespace_of};

/// The tests of this part.
pub fn tests(h: &Hindrances) -> Vec<Trial> {
    vec![
        test("restore_a_container", h.not_root, restore_a_container),
        test("restore_archives", h.not_root, restore_archives),
        test("restore_a_part_of_a_pid_namespace", h.not_root, restore_a_part_of_a_pid_namespace),
        test("restore_above_pid_max", h.not_root.or(no_pid_max()), restore_above_pid_max),
        test("restore_with_inherited_signals", h.not_root, restore_with_inherited_signals),
        test("restore_ends_with_nextid", h.not_root, restore_ends_with_nextid),
        test("restore_of_ids_in_use", h.not_root, restore_of_ids_in_use),
        test(
            "restore_with_seccomp_filters",
            h.not_root.or(h.no_file),
            restore_with_seccomp_filters,
        ),
        test("fallback_with_seccomp_filters", h.not_root.or(h.file), fallback_with_seccomp_filters),
        test("restore_exits_as_the_first", h.not_root, restore_exits_as_the_first),
        test("restore_as_init", h.not_root, restore_as_init),
        test("restore_with_outer_pids", h.not_root, restore_with_outer_pids),
        test("restore_of_its_own_id", h.not_root, restore_of_its_own_id),
        test(
            "restore_that_fails_is_undone",
            h.not_root.or(testing::no_user_namespaces()),
            restore_that_fails_is_undone,
        ),
        test("restore_that_cannot_print", h.not_root, restore_that_cannot_print),
        test("restore_of_damaged_images", None, restore_of_damaged_images),
        test("restore_of_what_cannot_have_been", None, restore_of_what_cannot_have_been),
        test("dry_run", None, dry_run),
        test("names_that_a_terminal_would_obey", None, names_that_a_terminal_would_obey),
    ]
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

fn names_that_a_terminal_would_obey() -> Outcome {
    let copy = damaged("container", "core-43.img", b"session", b"\x1b[31mse")?;
    let output = command("restore --dry-run").arg(copy.path()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure(text.contains("43 ?[31mse ") && !text.contains('\x1b'), &output)
}
