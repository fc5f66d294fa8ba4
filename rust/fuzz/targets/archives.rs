// SPDX-License-Identifier: GPL-2.0

//! Archives of CRIU's images: the text is one, compressed or not.

#![no_main]

use std::fs;
use std::sync::LazyLock;

use criu_images::{Dump, Images};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a folder"));

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    let path = FOLDER.path().join("archive");
    fs::write(&path, text).expect("to write");
    let dump = Images::open(&path).and_then(|images| Dump::read(&images));
    for segment in dump.ok().and_then(|dump| dump.ipc).into_iter().flat_map(|ipc| ipc.segments) {
        let _ = segment.check();
        let size = usize::try_from(segment.size).unwrap_or(usize::MAX);
        if size < 1 << 20 {
            let _ = segment.read_into(&mut vec![0; size]);
        }
    }
});
