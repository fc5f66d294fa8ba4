// SPDX-License-Identifier: GPL-2.0

//! A dump of CRIU 4.2.1, as it is and damaged in every way.
//!
//! The tree has been: `init` with a process `worker` of three threads, and a session of three
//! processes and a zombie; two message queues, a semaphore set, a segment.

use std::fs;
use std::path::{Path, PathBuf};

use criu_images::proto::{IpcDescEntry, IpcMsgEntry, IpcSemEntry, PstreeEntry};
use criu_images::{Dump, Error, Images, Limit, Magic, Message, State};
use tempfile::TempDir;
use testing::images::Image;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dumps/container")
}

fn read(folder: &Path) -> Result<Dump, Error> {
    Dump::read(&Images::open(folder)?)
}

/// A copy of the dump, to damage.
fn copy() -> TempDir {
    let copy = TempDir::new().unwrap();
    for entry in fs::read_dir(folder()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// A copy of the dump in which `edit` has changed the file `name`.
fn edited(name: &str, edit: impl FnOnce(&mut Vec<u8>)) -> TempDir {
    let copy = copy();
    let path = copy.path().join(name);
    let mut bytes = fs::read(&path).unwrap();
    edit(&mut bytes);
    fs::write(path, bytes).unwrap();
    copy
}

/// The dump once the first `from` in the file `name` is made `to`, which is as long.
fn changed(name: &str, from: &[u8], to: &[u8]) -> Dump {
    let copy = edited(name, |bytes| {
        let place = bytes.windows(from.len()).position(|bytes| bytes == from).unwrap();
        bytes[place..place + to.len()].copy_from_slice(to);
    });
    read(copy.path()).unwrap()
}

/// What is wrong with the dump once `edit` has changed the file `name`.
fn damaged(name: &str, edit: impl FnOnce(&mut Vec<u8>)) -> String {
    let copy = edited(name, edit);
    let error = read(copy.path()).expect_err("the dump is damaged").to_string();
    error.replace(&format!("{}/", copy.path().display()), "")
}

#[test]
fn tree() {
    let dump = read(&folder()).unwrap();
    assert!(dump.own_pid_namespace && !dump.own_user_namespace);
    let mut lines = Vec::new();
    for process in &dump.processes {
        let parent = process.parent.map_or(0, |parent| dump.processes[parent].pid);
        lines.push(format!(
            "{} of {parent}, group {}, session {}, {}",
            process.pid,
            process.group,
            process.session,
            String::from_utf8_lossy(&process.name)
        ));
        assert_eq!(process.state == State::Zombie { status: 3 << 8 }, process.name == b"zombie");
    }
    assert_eq!(
        lines,
        [
            "1 of 0, group 1, session 1, init",
            "42 of 1, group 42, session 1, worker",
            "43 of 1, group 43, session 43, session",
            "46 of 43, group 43, session 43, member",
            "47 of 43, group 47, session 43, leader",
            "48 of 47, group 47, session 43, zombie",
        ]
    );
    let threads: Vec<_> =
        dump.processes[1].threads.iter().map(|thread| (thread.tid, &*thread.name)).collect();
    assert_eq!(threads, [(44, &b"poll"[..]), (45, b"flush")]);
    assert!(dump.processes.iter().enumerate().all(|(i, it)| i == 1 || it.threads.is_empty()));
}

#[test]
fn a_name_that_is_cut_in_a_character() {
    let dump = changed("core-43.img", b"session", b"sessio\xc3");
    assert_eq!(dump.processes[2].name, b"sessio\xc3");
}

#[test]
fn a_name_with_a_zero_byte_ends_there() {
    let dump = changed("core-43.img", b"session", b"ses\0ion");
    assert_eq!(dump.processes[2].name, b"ses");
}

#[test]
fn a_name_that_is_too_long() {
    let copy = edited("core-48.img", |bytes| {
        let place = bytes.windows(8).position(|bytes| bytes == b"\x32\x06zombie").unwrap();
        bytes.splice(place..place + 8, *b"\x32\x1016 bytes of name");
        // Those of the entry, and of the message in it that has the name.
        for length in [8, 15] {
            bytes[length] += 10;
        }
    });
    let dump = read(copy.path()).unwrap();
    assert_eq!(dump.processes[5].name, b"16 bytes of nam");
}

#[test]
fn a_thread_without_a_name_has_that_of_its_process() {
    // A field that the message does not have.
    let dump = changed("core-44.img", b"\x6a\x04poll", b"\x8a\x01\x03oll");
    let names: Vec<_> = dump.processes[1].threads.iter().map(|thread| &*thread.name).collect();
    assert_eq!(names, [&b"worker"[..], b"flush"]);
}

#[test]
fn a_user_namespace() {
    // The user namespace of CRIU is 7.
    assert!(changed("ids-1.img", b"\x50\x07", b"\x50\x0c").own_user_namespace);
}

#[test]
fn ipc() {
    let ipc = read(&folder()).unwrap().ipc.unwrap();

    let [first, second] = &*ipc.queues else { panic!("{:?}", ipc.queues) };
    let permissions = first.permissions;
    assert_eq!((permissions.id, permissions.key, permissions.mode), (0, 0x1234, 0o640));
    assert_eq!((permissions.uid, permissions.gid, first.capacity), (0, 0, 16384));
    let messages = [(7, &b"hello restore"[..]), (9, b"x")];
    assert_eq!(first.messages, messages.map(|(kind, text)| Message { kind, text: text.to_vec() }));
    assert_eq!((second.permissions.id, second.permissions.key), (1, 0));
    assert!(second.messages.is_empty());

    let [set] = &*ipc.semaphores else { panic!("{:?}", ipc.semaphores) };
    assert_eq!((set.permissions.id, set.permissions.key, set.permissions.mode), (0, 0x99, 0o666));
    assert_eq!(set.values, [5, 0, 9]);

    let [segment] = &*ipc.segments else { panic!("{:?}", ipc.segments) };
    let permissions = segment.permissions;
    assert_eq!((permissions.id, permissions.key, permissions.mode), (0, 0x77, 0o600));
    assert_eq!((segment.size, segment.huge_pages), (10000, 0));
    let mut memory = vec![0; 10000];
    segment.read_into(&mut memory).unwrap();
    let mut expected = vec![0; 10000];
    expected[..7].copy_from_slice(b"segment");
    expected[8192..8202].copy_from_slice(b"third page");
    assert!(memory == expected);
}

#[test]
fn limits() {
    let limits = read(&folder()).unwrap().ipc.unwrap().limits;
    let limit = |name, values: &[u64]| Limit { name, values: values.to_vec() };
    let unlimited = u64::MAX - (1 << 24);
    let expected = [
        limit("sem", &[32000, 1_024_000_000, 500, 32000]),
        limit("msgmax", &[8192]),
        limit("msgmnb", &[16384]),
        limit("msgmni", &[32000]),
        limit("shmmax", &[unlimited]),
        limit("shmall", &[unlimited]),
        limit("shmmni", &[4096]),
    ];
    assert_eq!(limits, expected);
}

#[test]
fn needed_limits() {
    let expected = [
        ("sem", vec![3, 3, 0, 1]),
        ("msgmax", vec![13]),
        ("msgmnb", vec![16384]),
        ("msgmni", vec![2]),
        ("shmmax", vec![10000]),
        ("shmall", vec![3]),
        ("shmmni", vec![1]),
    ];
    let expected = expected.map(|(name, values)| Limit { name, values });
    assert_eq!(read(&folder()).unwrap().ipc.unwrap().needed_limits(), expected);
}

#[test]
fn a_dump_without_limits() {
    let copy = copy();
    fs::remove_file(copy.path().join("ipcns-var-10.img")).unwrap();
    assert_eq!(read(copy.path()).unwrap().ipc.unwrap().limits, []);
}

#[test]
fn a_limit_of_semaphores_that_is_missing() {
    let error = damaged("ipcns-var-10.img", |bytes| {
        // Field 15 in place of the first.
        assert_eq!(bytes[12], 1 << 3);
        bytes[12] = 15 << 3;
    });
    assert_eq!(error, "ipcns-var-10.img, byte 8: 3 limits of semaphores");
}

#[test]
fn a_folder_without_images() {
    let empty = TempDir::new().unwrap();
    let error = read(empty.path()).unwrap_err();
    assert_eq!(error.path, empty.path());
    let expected =
        "no dump of CRIU: there is neither inventory.img nor checkpoint/inventory.img in it";
    assert_eq!(error.problem.to_string(), expected);
}

#[test]
fn another_version() {
    let error = damaged("inventory.img", |bytes| bytes[9] = 4);
    let expected = "inventory.img, byte 4: image format version 4; 2 and 3 are understood, which CRIU 4 writes";
    assert_eq!(error, expected);
}

#[test]
fn another_kind_of_file() {
    let error = damaged("pstree.img", |bytes| bytes[4..8].copy_from_slice(b"\x7fELF"));
    assert_eq!(
        error,
        "pstree.img, byte 4: magic number 0x464c457f where 0x50273030 should be: this is no such \
         image of CRIU"
    );
}

#[test]
fn a_truncated_entry() {
    let error = damaged("pstree.img", |bytes| bytes.truncate(20));
    assert_eq!(
        error,
        "pstree.img, byte 8: the file is truncated: 10 more bytes should follow, and 8 do"
    );
}

#[test]
fn an_entry_that_claims_gigabytes() {
    let error = damaged("core-1.img", |bytes| bytes[8..12].copy_from_slice(&[0xff; 4]));
    assert_eq!(error, "core-1.img, byte 8: an entry of 4294967295 bytes, more than CRIU writes");
}

#[test]
fn an_entry_that_is_no_message() {
    let error = damaged("pstree.img", |bytes| bytes[12] = 0xff);
    assert!(error.starts_with("pstree.img, byte 8: failed to decode Protobuf message"), "{error}");
}

/// In the entry of process 42: where its fields are, and what they must not be.
#[test]
fn entries_that_make_no_sense() {
    let second = 8 + 4 + 10;
    let cases = [
        (1, 0, "a process or thread with id 0"),
        (1, 1, "id 1 is there twice"),
        (3, 0, "process 42 has no parent"),
        (3, 47, "process 42 comes before its parent 47, or without it"),
        (3, 42, "process 42 comes before its parent 42, or without it"),
        (11, 42, "id 42 is there twice"),
    ];
    for (place, value, expected) in cases {
        let error = damaged("pstree.img", |bytes| bytes[second + 4 + place] = value);
        assert_eq!(error, format!("pstree.img, byte {second}: {expected}"));
    }
}

/// Objects that no kernel has.
#[test]
fn objects_that_make_no_sense() {
    let desc = IpcDescEntry { id: 5, ..IpcDescEntry::default() };
    let queue = IpcMsgEntry { desc, qbytes: 16384, ..IpcMsgEntry::default() };
    let queues = Image::new(Magic::Queues).entry(&queue).entry(&queue);
    let error = damaged("ipcns-msg-10.img", |bytes| *bytes = queues.as_ref().to_vec());
    assert!(error.ends_with(": id 5 is there twice"), "{error}");

    let sets = |values: &[u16]| {
        let nsems = values.len().try_into().unwrap();
        let set = IpcSemEntry { desc, nsems };
        let mut image = Image::new(Magic::Semaphores).entry(&set).as_ref().to_vec();
        image.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        image.resize(image.len().next_multiple_of(8), 0);
        damaged("ipcns-sem-10.img", |bytes| *bytes = image)
    };
    let error = sets(&[]);
    assert!(error.ends_with(": set 5 has no semaphores"), "{error}");
    let error = sets(&[0, 32768, 1, 2]);
    assert!(error.ends_with(": set 5 has the value 32768"), "{error}");
}

#[test]
fn ids_that_no_task_has() {
    let tree = PstreeEntry { pid: 4 << 20, pgid: 1, sid: 1, ..PstreeEntry::default() };
    let tree = Image::new(Magic::Pstree).entry(&tree);
    let error = damaged("pstree.img", |bytes| *bytes = tree.as_ref().to_vec());
    let expected = "process or thread 4194304, and there are none above 4194303";
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn pages_beyond_the_segment() {
    let error = damaged("ipcns-shm-10.img", |bytes| {
        let place = bytes.windows(2).position(|pair| pair == [0x90, 0x4e]).unwrap();
        bytes[place..place + 2].copy_from_slice(&[0x80, 0x20]);
    });
    let expected = "pagemap-shmem-0.img, byte 26: pages up to 12288, and the segment ends at 4096";
    assert_eq!(error, expected);
}

#[test]
fn pages_that_are_cut_off() {
    let error = damaged("pages-6.img", |bytes| bytes.truncate(6000));
    assert_eq!(
        error,
        "pages-6.img, byte 4096: the file is truncated: 4096 more bytes should follow, and 1904 do"
    );
}

#[test]
fn pages_of_another_size() {
    let error = damaged("pages-6.img", |bytes| bytes.resize(2 * 65536, 0));
    assert_eq!(
        error,
        "pagemap-shmem-0.img, byte 39: 8192 bytes of pages, and pages-6.img has 131072: pages of \
         another size?"
    );
}

#[test]
fn a_zombie_that_did_not_end() {
    let error = damaged("core-48.img", |bytes| {
        let exited = bytes.windows(2).position(|pair| pair == [0x80, 0x06]).unwrap();
        // SIGSTOP
        bytes[exited..exited + 2].copy_from_slice(&[0x93, 0x00]);
    });
    let expected = "core-48.img, byte 8: process 48 in state 2, ended with 0x13: there is no such";
    assert_eq!(error, expected);
}

/// A process that has ended leaves neither children nor threads.
#[test]
fn zombies_in_the_way() {
    let zombie = fs::read(folder().join("core-48.img")).unwrap();
    let cases = [
        ("core-1.img", "pstree.img, byte 8: the first process, 1, has ended"),
        ("core-42.img", "pstree.img, byte 22: process 42 has ended, but not all its threads"),
        ("core-43.img", "pstree.img, byte 54: process 46 is the child of 43, which has ended"),
    ];
    for (core, expected) in cases {
        assert_eq!(damaged(core, |bytes| bytes.clone_from(&zombie)), expected);
    }
}

#[test]
fn what_is_no_file() {
    let copy = copy();
    let path = copy.path().join("pstree.img");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = read(copy.path()).unwrap_err().to_string();
    assert!(error.ends_with("pstree.img: this is no regular file"), "{error}");
    // Nor is a device, to open which can do something.
    fs::remove_dir(&path).unwrap();
    std::os::unix::fs::symlink("/dev/null", &path).unwrap();
    let error = read(copy.path()).unwrap_err().to_string();
    assert!(error.ends_with("pstree.img: this is no regular file"), "{error}");
}

#[test]
fn a_missing_core() {
    let copy = copy();
    fs::remove_file(copy.path().join("core-45.img")).unwrap();
    let error = read(copy.path()).unwrap_err();
    let expected = "/core-45.img: No such file or directory (os error 2)";
    assert!(error.to_string().ends_with(expected), "{error}");
}

/// Whatever is cut off from where the structure is, it is an error or a smaller dump, and no panic.
#[test]
fn each_file_cut_anywhere() {
    for_each_file(|path, bytes| {
        for length in 0..bytes.len().min(100) {
            fs::write(path, &bytes[..length]).unwrap();
            read_all(path.parent().unwrap());
        }
    });
}

/// Whatever byte is damaged where the structure is, it is an error or another dump, and no panic.
#[test]
fn each_byte_damaged() {
    for_each_file(|path, bytes| {
        for place in 0..bytes.len().min(100) {
            for damage in [0x01, 0xff] {
                let mut bytes = bytes.to_vec();
                bytes[place] ^= damage;
                fs::write(path, bytes).unwrap();
                read_all(path.parent().unwrap());
            }
        }
    });
}

fn for_each_file(mut damage: impl FnMut(&Path, &[u8])) {
    let copy = copy();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = copy.path().join(entry.unwrap().file_name());
        let bytes = fs::read(&path).unwrap();
        damage(&path, &bytes);
        fs::write(&path, bytes).unwrap();
    }
}

/// Reads all there is to read.
fn read_all(folder: &Path) {
    let Ok(dump) = read(folder) else { return };
    for segment in dump.ipc.into_iter().flat_map(|ipc| ipc.segments) {
        if segment.size < 1 << 20 {
            let mut memory = vec![0; usize::try_from(segment.size).unwrap()];
            let _ = segment.read_into(&mut memory);
        }
    }
}
