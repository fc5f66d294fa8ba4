// SPDX-License-Identifier: GPL-2.0

//! CRIU's images: the text takes the place of one of the files of a dump, the one whose magic
//! number it has. So the files of a dump are the corpus to begin with.
//!
//! The dump builds on a pre-dump, whose pages are compressed: a text that has no magic number is
//! those pages.

#![no_main]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::LazyLock;

use criu_images::proto::{PagemapEntry, PagemapHead};
use criu_images::{Dump, Images, Magic};
use tempfile::TempDir;
use testing::images::Image;

/// A dump, to put the text into, in `img`, and its pre-dump in `pre`.
static DUMP: LazyLock<TempDir> = LazyLock::new(|| {
    let dump = TempDir::new().expect("a folder");
    let (img, pre) = (dump.path().join("img"), dump.path().join("pre"));
    fs::create_dir(&img).expect("a folder");
    for entry in fs::read_dir(folder()).expect("the dump") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), img.join(entry.file_name())).expect("a copy");
    }
    symlink("../pre", img.join("parent")).expect("a link");
    fs::create_dir(pre).expect("a folder");
    dump
});

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../criu-images/tests/dumps/container"))
}

/// Where the pages of the pre-dump are: in a block of two, and one of one, which together are all
/// of its image of pages.
fn compressed(length: u32) -> Image {
    let first = length / 2;
    pagemap(PagemapEntry {
        flags: Some(4),
        compressed_size: vec![first, length - first],
        region_pages: Some(2),
        ..PagemapEntry::default()
    })
}

/// An image that tells where the three pages of the segment are.
fn pagemap(pages: PagemapEntry) -> Image {
    let head = PagemapHead { pages_id: 6 };
    let entry = PagemapEntry { compat_nr_pages: 3, ..pages };
    Image::new(Magic::Pagemap).entry(&head).entry(&entry)
}

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    let name = match (text.get(..4), text.get(4..8)) {
        (Some([0x16, 0x31, 0x31, 0x58]), _) => "inventory.img",
        (_, Some([0x30, 0x30, 0x27, 0x50])) => "pstree.img",
        (_, Some([0x47, 0x38, 0x05, 0x55])) => "core-1.img",
        (_, Some([0x30, 0x20, 0x43, 0x54])) => "ids-42.img",
        (_, Some([0x37, 0x37, 0x45, 0x55])) => "ipcns-msg-10.img",
        (_, Some([0x19, 0x30, 0x57, 0x59])) => "ipcns-sem-10.img",
        (_, Some([0x44, 0x30, 0x28, 0x46])) => "ipcns-shm-10.img",
        (_, Some([0x07, 0x50, 0x11, 0x53])) => "ipcns-var-10.img",
        (_, Some([0x20, 0x28, 0x49, 0x57])) => "mm-1.img",
        _ => "pagemap-shmem-0.img",
    };
    let img = DUMP.path().join("img");
    let path = img.join(name);
    fs::write(&path, text).expect("to write");
    let pre = DUMP.path().join("pre");
    let pages = text.get(..8192).unwrap_or(text);
    let length = pages.len().try_into().expect("it is cut");
    fs::write(pre.join("pagemap-shmem-0.img"), compressed(length)).expect("to write");
    fs::write(pre.join("pages-6.img"), pages).expect("to write");
    if name == "pagemap-shmem-0.img"
        && text.get(4..8) != Some(&(Magic::Pagemap as u32).to_le_bytes())
    {
        let in_parent = PagemapEntry { flags: Some(1), ..PagemapEntry::default() };
        fs::write(&path, pagemap(in_parent)).expect("to write");
        fs::write(img.join("pages-6.img"), "").expect("to write");
    }
    read(&img);
    // Not fs::copy, which ends where libFuzzer's clock interrupts it.
    for name in [name, "pages-6.img"] {
        match fs::read(folder().join(name)) {
            Ok(original) => fs::write(img.join(name), original).expect("to restore the file"),
            Err(_) => fs::remove_file(img.join(name)).expect("to remove the file"),
        }
    }
});

fn read(img: &Path) {
    let dump = Images::open(img).and_then(|images| Dump::read(&images));
    for segment in dump.ok().and_then(|dump| dump.ipc).into_iter().flat_map(|ipc| ipc.segments) {
        let _ = segment.check();
        let size = usize::try_from(segment.size).unwrap_or(usize::MAX);
        if size < 1 << 20 {
            let _ = segment.read_into(&mut vec![0; size]);
        }
    }
}
