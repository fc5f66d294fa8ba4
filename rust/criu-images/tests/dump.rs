// SPDX-License-Identifier: GPL-2.0

//! A dump of CRIU 4.2.1, as it is and damaged in every way.
//!
//! The tree has been: `init` with a process `worker` of three threads, and a session of three
//! processes and a zombie; two message queues, a semaphore set, a segment.

use std::fs;
use std::path::{Path, PathBuf};

use criu_images::{Dump, Message, Problem, State};
use tempfile::TempDir;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/container")
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

/// What is wrong with the dump once `edit` has changed the file `name`.
fn damaged(name: &str, edit: impl FnOnce(&mut Vec<u8>)) -> String {
    let copy = copy();
    let path = copy.path().join(name);
    let mut bytes = fs::read(&path).unwrap();
    edit(&mut bytes);
    fs::write(path, bytes).unwrap();
    let error = Dump::read(copy.path()).expect_err("the dump is damaged").to_string();
    error.replace(&format!("{}/", copy.path().display()), "")
}

#[test]
fn tree() {
    let dump = Dump::read(&folder()).unwrap();
    assert!(dump.own_pid_namespace);
    let mut lines = Vec::new();
    for process in &dump.processes {
        let parent = process.parent.map_or(0, |parent| dump.processes[parent].pid);
        lines.push(format!(
            "{} of {parent}, group {}, session {}, {}",
            process.pid, process.group, process.session, process.name
        ));
        assert_eq!(process.state == State::Zombie { status: 3 << 8 }, process.name == "zombie");
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
    assert_eq!(threads, [(44, "poll"), (45, "flush")]);
    assert!(dump.processes.iter().enumerate().all(|(i, it)| i == 1 || it.threads.is_empty()));
}

#[test]
fn ipc() {
    let ipc = Dump::read(&folder()).unwrap().ipc.unwrap();

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
fn a_folder_without_images() {
    let empty = TempDir::new().unwrap();
    let error = Dump::read(empty.path()).unwrap_err();
    assert!(matches!(error.problem, Problem::Io(_)));
    assert!(error.path.ends_with("inventory.img"));
}

#[test]
fn another_version() {
    let error = damaged("inventory.img", |bytes| bytes[9] = 3);
    let expected =
        "inventory.img, byte 4: image format version 3; 2 is understood, which CRIU 4 writes";
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
fn a_zombie_that_did_not_end() {
    let error = damaged("core-48.img", |bytes| {
        let exited = bytes.windows(2).position(|pair| pair == [0x80, 0x06]).unwrap();
        // SIGSTOP
        bytes[exited..exited + 2].copy_from_slice(&[0x93, 0x00]);
    });
    let expected = "core-48.img, byte 8: process 48 in state 2, ended with 0x13: there is no such";
    assert_eq!(error, expected);
}

#[test]
fn what_is_no_file() {
    let copy = copy();
    let path = copy.path().join("pstree.img");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = Dump::read(copy.path()).unwrap_err().to_string();
    assert!(error.ends_with("pstree.img, byte 0: this is no regular file"), "{error}");
}

#[test]
fn a_missing_core() {
    let copy = copy();
    fs::remove_file(copy.path().join("core-45.img")).unwrap();
    let error = Dump::read(copy.path()).unwrap_err();
    assert!(error.path.ends_with("core-45.img"), "{error}");
}

/// Whatever is cut off from where the structure is, it is an error or a smaller dump, and no panic.
#[test]
fn each_file_cut_anywhere() {
    for_each_file(|path, bytes| {
        for length in 0..bytes.len().min(100) {
            fs::write(path, &bytes[..length]).unwrap();
            read(path.parent().unwrap());
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
                read(path.parent().unwrap());
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
fn read(folder: &Path) {
    let Ok(dump) = Dump::read(folder) else { return };
    for segment in dump.ipc.into_iter().flat_map(|ipc| ipc.segments) {
        if segment.size < 1 << 20 {
            let mut memory = vec![0; usize::try_from(segment.size).unwrap()];
            let _ = segment.read_into(&mut memory);
        }
    }
}
