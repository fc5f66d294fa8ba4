// SPDX-License-Identifier: GPL-2.0

//! CRIU's images: the text takes the place of one of the files of a dump, the one whose magic
//! number it has. So the files of a dump are the corpus to begin with.

#![no_main]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use criu_images::Dump;
use tempfile::TempDir;

/// A dump, to put the text into.
static DUMP: LazyLock<TempDir> = LazyLock::new(|| {
    let copy = TempDir::new().expect("a folder");
    for entry in fs::read_dir(folder()).expect("the dump") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("a copy");
    }
    copy
});

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../criu-images/tests/dumps/container"))
}

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    let name = match (text.get(..4), text.get(4..8)) {
        (Some([0x16, 0x31, 0x31, 0x58]), _) => "inventory.img",
        (_, Some([0x47, 0x38, 0x05, 0x55])) => "core-1.img",
        (_, Some([0x30, 0x20, 0x43, 0x54])) => "ids-42.img",
        (_, Some([0x37, 0x37, 0x45, 0x55])) => "ipcns-msg-10.img",
        (_, Some([0x19, 0x30, 0x57, 0x59])) => "ipcns-sem-10.img",
        (_, Some([0x44, 0x30, 0x28, 0x46])) => "ipcns-shm-10.img",
        (_, Some([0x07, 0x50, 0x11, 0x53])) => "ipcns-var-10.img",
        (_, Some([0x25, 0x40, 0x08, 0x56])) => "pagemap-shmem-0.img",
        _ => "pstree.img",
    };
    let path = DUMP.path().join(name);
    fs::write(&path, text).expect("to write");
    if let Ok(dump) = Dump::read(DUMP.path()) {
        for segment in dump.ipc.into_iter().flat_map(|ipc| ipc.segments) {
            let size = usize::try_from(segment.size).unwrap_or(usize::MAX);
            if size < 1 << 20 {
                let _ = segment.read_into(&mut vec![0; size]);
            }
        }
    }
    // Not fs::copy, which ends where libFuzzer's clock interrupts it.
    let original = fs::read(folder().join(name)).expect("to read the original");
    fs::write(path, original).expect("to restore the file");
});
