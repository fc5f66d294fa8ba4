// SPDX-License-Identifier: GPL-2.0

//! `nextid restore`: System V IPC objects.

use std::fs::{self, File};
use std::io::{self};
use std::path::Path;
use std::process::Command;

use criu_images::Magic;
use criu_images::proto::{IpcDescEntry, IpcShmEntry, MmEntry, PagemapEntry, PagemapHead, VmaEntry};
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use testing::images::Image;
use testing::{Failed, Hindrances, Outcome, Trial, ensure, test};

use crate::common::{
    NEXTID, Restored, command, copy, damage, damaged, dump, expect, expect_error,
    expect_no_process, full, json_of, last, nextid, restore_in_vain,
};

/// The tests of this part.
pub fn tests(h: &Hindrances) -> Vec<Trial> {
    vec![
        test("restore_with_a_pre_dump", h.not_root, restore_with_a_pre_dump),
        test("restore_into_an_ipc_namespace", h.not_root, restore_into_an_ipc_namespace),
        test(
            "restore_into_an_ipc_namespace_in_vain",
            h.not_root,
            restore_into_an_ipc_namespace_in_vain,
        ),
        test("restore_a_removed_segment", h.not_root, restore_a_removed_segment),
        test("restore_huge_pages", h.not_root, restore_huge_pages),
        test("restore_damaged_pages", h.not_root, restore_damaged_pages),
        test("restore_limits", h.not_root, restore_limits),
        test("restore_full_queues", h.not_root, restore_full_queues),
        test(
            "restore_lowered_limits",
            h.not_root.or(testing::no_user_namespaces()),
            restore_lowered_limits,
        ),
        test("restore_limits_that_cannot_be", h.not_root, restore_limits_that_cannot_be),
        test(
            "restore_in_a_user_namespace",
            h.not_root.or(testing::no_user_namespaces()),
            restore_in_a_user_namespace,
        ),
    ]
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

pub fn in_ipc_namespace_of(restored: &Restored, check: fn() -> Outcome) -> Outcome {
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
pub fn check_contents() -> Outcome {
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
