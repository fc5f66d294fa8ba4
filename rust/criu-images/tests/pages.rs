// SPDX-License-Identifier: GPL-2.0

//! The pages of a segment: compressed ones, and those that are in the dumps that a dump builds on.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use criu_images::proto::{PagemapEntry, PagemapHead};
use criu_images::{Dump, Error, Images, Magic};
use tempfile::TempDir;
use testing::images::Image;

const PAGE: usize = 4096;
const PRESENT: u32 = 4;
const IN_PARENT: u32 = 1;
const ALIGNED: u32 = 8;

/// The segment of the dump has 10000 bytes, three pages.
const SIZE: usize = 10000;

fn copy_to(folder: &Path) {
    let dump = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dumps/container");
    fs::create_dir_all(folder).unwrap();
    for entry in fs::read_dir(dump).unwrap() {
        let entry = entry.unwrap();
        fs::write(folder.join(entry.file_name()), fs::read(entry.path()).unwrap()).unwrap();
    }
}

/// The dump, with other pages of its segment.
struct Edited {
    folder: TempDir,
}

impl Edited {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        copy_to(&folder.path().join("img"));
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("img")
    }

    /// What is in the image of pagemaps, and what in that of pages, of the dump called `name`.
    fn write(&self, name: &str, entries: &[PagemapEntry], pages: &[u8]) {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        let pagemap = Image::new(Magic::Pagemap).entry(&PagemapHead { pages_id: 6 });
        fs::write(folder.join("pagemap-shmem-0.img"), pagemap.entries(entries)).unwrap();
        fs::write(folder.join("pages-6.img"), pages).unwrap();
    }

    fn read(&self) -> Result<Vec<u8>, Error> {
        Self::read_from(&Images::open(&self.path())?)
    }

    fn read_from(images: &Images) -> Result<Vec<u8>, Error> {
        let segment = &Dump::read(images)?.ipc.unwrap().segments[0];
        segment.check()?;
        let mut memory = vec![0; SIZE];
        segment.read_into(&mut memory)?;
        Ok(memory)
    }

    fn error(&self) -> String {
        let error = self.read().expect_err("it cannot be read").to_string();
        error.split_once(self.folder.path().to_str().unwrap()).unwrap().1.to_owned()
    }
}

/// An entry of an image of pagemaps: `pages` pages from page `at` on.
fn pages(at: usize, pages: usize, flags: u32) -> PagemapEntry {
    PagemapEntry {
        vaddr: (at * PAGE) as u64,
        compat_nr_pages: number(pages),
        flags: Some(flags),
        nr_pages: Some(pages as u64),
        ..PagemapEntry::default()
    }
}

/// The same, in blocks with these sizes, of `region` pages each; where that is 0, it is not told.
fn blocks(at: usize, count: usize, flags: u32, sizes: &[usize], region: usize) -> PagemapEntry {
    PagemapEntry {
        compressed_size: sizes.iter().copied().map(number).collect(),
        region_pages: (region > 0).then(|| number(region)),
        ..pages(at, count, flags)
    }
}

fn number(number: usize) -> u32 {
    number.try_into().unwrap()
}

fn page(byte: u8) -> Vec<u8> {
    vec![byte; PAGE]
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    lz4_flex::block::compress(bytes)
}

#[test]
fn pages_that_are_compressed_one_by_one() {
    let (dump, packed) = (Edited::new(), lz4(&page(b'a')));
    // Compressed, zero, and as it was.
    let entry = blocks(0, 3, PRESENT, &[packed.len(), 0, PAGE], 0);
    dump.write("img", &[entry], &[packed, page(b'c')].concat());
    let expected = [page(b'a'), page(0), page(b'c')].concat();
    assert!(dump.read().unwrap() == expected[..SIZE]);
}

#[test]
fn pages_that_are_compressed_together() {
    let (dump, first) = (Edited::new(), lz4(&[page(b'a'), page(b'b')].concat()));
    let last = lz4(&page(b'c'));
    // The last block holds fewer.
    let entry = blocks(0, 3, PRESENT, &[first.len(), last.len()], 2);
    dump.write("img", &[entry], &[first, last].concat());
    let expected = [page(b'a'), page(b'b'), page(b'c')].concat();
    assert!(dump.read().unwrap() == expected[..SIZE]);
}

/// CRIU lets pages that are as they were begin at a page of the file, to map them.
#[test]
fn pages_that_are_aligned() {
    let (dump, packed) = (Edited::new(), lz4(&page(b'a')));
    let entries = [blocks(0, 1, PRESENT, &[packed.len()], 0), pages(2, 1, PRESENT | ALIGNED)];
    let mut file = packed;
    file.resize(PAGE, 0xff);
    file.extend(page(b'c'));
    dump.write("img", &entries, &file);
    let expected = [page(b'a'), page(0), page(b'c')].concat();
    assert!(dump.read().unwrap() == expected[..SIZE]);
}

#[test]
fn blocks_that_cannot_be() {
    let cases = [
        (blocks(0, 2, PRESENT, &[5], 0), "2 compressed blocks, and the sizes of 1"),
        (
            blocks(0, 1, PRESENT, &[5], 1025),
            "compressed blocks of 4198400 bytes: CRIU writes smaller ones",
        ),
        (blocks(0, 1, PRESENT, &[4097], 0), "a compressed block of 4097 bytes, which holds 4096"),
        (pages(0, 1, PRESENT | 16), "pages with flags 0x10, of a newer CRIU"),
        (pages(0, 1, 2), "pages that are not in this dump: one that is lazy cannot be read"),
    ];
    for (entry, expected) in cases {
        let dump = Edited::new();
        dump.write("img", &[entry], &[0; 4097]);
        assert_eq!(dump.error(), format!("/img/pagemap-shmem-0.img, byte 14: {expected}"));
    }
}

#[test]
fn blocks_that_are_damaged() {
    let packed = lz4(&page(b'a'));
    let expected = "/img/pages-6.img, byte 0: a damaged block of LZ4-compressed pages: ";
    for damaged in
        [[0xff; 20].to_vec(), lz4(&page(b'a')[..100]), packed[..packed.len() - 3].to_vec()]
    {
        let dump = Edited::new();
        dump.write("img", &[blocks(0, 1, PRESENT, &[damaged.len()], 0)], &damaged);
        assert!(dump.error().starts_with(expected), "{}", dump.error());
    }
}

#[test]
fn pages_that_another_tool_compressed() {
    let dump = Edited::new();
    let pages = dump.path().join("pages-6.img");
    fs::rename(&pages, dump.path().join("pages-6.comp.img")).unwrap();
    let expected = "/img/pages-6.comp.img: pages that the CRIU of CRaC compressed as a whole: make \
                    pages-6.img of it before, by lz4 -d";
    assert_eq!(dump.error(), expected);
}

#[test]
fn pages_out_of_order() {
    for entries in
        [[pages(1, 1, PRESENT), pages(0, 1, PRESENT)], [pages(0, 2, PRESENT), pages(1, 1, PRESENT)]]
    {
        let dump = Edited::new();
        dump.write("img", &entries, &[0; 3 * PAGE]);
        let error = dump.error();
        assert!(error.contains(", which are not in their order"), "{error}");
    }
}

#[test]
fn pages_of_several_pre_dumps() {
    let dump = Edited::new();
    dump.write("first", &[pages(0, 3, PRESENT)], &[page(b'a'), page(b'b'), page(b'c')].concat());
    dump.write("second", &[pages(0, 1, IN_PARENT), pages(2, 1, PRESENT)], &page(b'C'));
    symlink("../first", dump.folder.path().join("second/parent")).unwrap();
    dump.write("img", &[pages(0, 1, IN_PARENT), pages(2, 1, IN_PARENT)], &[]);
    symlink("../second", dump.path().join("parent")).unwrap();
    // The page in between is zero by now.
    let expected = [page(b'a'), page(0), page(b'C')].concat();
    assert!(dump.read().unwrap() == expected[..SIZE]);
    // The same, where no link leads there.
    fs::remove_file(dump.path().join("parent")).unwrap();
    let open = |name| Images::open(&dump.folder.path().join(name)).unwrap();
    assert!(Images::open(&dump.folder.path().join("second")).is_err());
    copy_to(&dump.folder.path().join("third"));
    dump.write("third", &[pages(0, 3, PRESENT)], &[page(b'x'), page(b'y'), page(b'z')].concat());
    let memory = Edited::read_from(&open("img").built_on(open("third"))).unwrap();
    assert!(memory == [page(b'x'), page(0), page(b'z')].concat()[..SIZE]);
}

#[test]
fn a_part_of_a_block_of_a_pre_dump() {
    let dump = Edited::new();
    let block = lz4(&[page(b'a'), page(b'b'), page(b'c')].concat());
    dump.write("pre", &[blocks(0, 3, PRESENT, &[block.len()], 3)], &block);
    dump.write("img", &[pages(0, 1, PRESENT), pages(1, 1, IN_PARENT)], &page(b'A'));
    symlink("../pre", dump.path().join("parent")).unwrap();
    let expected = [page(b'A'), page(b'b'), page(0)].concat();
    assert!(dump.read().unwrap() == expected[..SIZE]);
}

#[test]
fn pages_that_the_pre_dump_does_not_have() {
    let dump = Edited::new();
    dump.write("img", &[pages(0, 2, IN_PARENT)], &[]);
    let error = dump.error();
    let expected = "/img: this dump has only the pages that changed since another one, and its link \
                    `parent`: ENOENT: No such file or directory";
    assert_eq!(error, expected);
    dump.write("pre", &[pages(0, 1, PRESENT)], &page(b'a'));
    symlink("../pre", dump.path().join("parent")).unwrap();
    let missing = |at| {
        format!(
            "/img/parent/pagemap-shmem-0.img: the page at {at} is not here, where a dump that builds \
             on this one has it"
        )
    };
    assert_eq!(dump.error(), missing(4096));
    dump.write("pre", &[pages(1, 1, PRESENT)], &page(b'b'));
    assert_eq!(dump.error(), missing(0));
}

#[test]
fn a_link_that_leads_in_a_circle() {
    let dump = Edited::new();
    dump.write("img", &[pages(0, 1, IN_PARENT)], &[]);
    symlink(".", dump.path().join("parent")).unwrap();
    let error = dump.error();
    assert!(error.ends_with("so on, 1000 times: its links lead in a circle"), "{error}");
}

/// A pre-dump in the archive of the dump that builds on it.
#[test]
fn a_pre_dump_in_an_archive() {
    let dump = Edited::new();
    dump.write("pre", &[pages(0, 3, PRESENT)], &[page(b'a'), page(b'b'), page(b'c')].concat());
    dump.write("img", &[pages(0, 2, IN_PARENT)], &[]);
    let archive = |link: &str, name: &str| {
        let mut archive =
            tar::Builder::new(fs::File::create(dump.folder.path().join(name)).unwrap());
        archive.append_dir_all("checkpoint", dump.path()).unwrap();
        archive.append_dir_all("pre", dump.folder.path().join("pre")).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "checkpoint/parent", link).unwrap();
        archive.finish().unwrap();
        Edited::read_from(&Images::open(&dump.folder.path().join(name)).unwrap())
    };
    let memory = archive("../pre", "good.tar").unwrap();
    assert!(memory == [page(b'a'), page(b'b'), page(0)].concat()[..SIZE]);
    let error = archive("/var/lib/pre", "elsewhere.tar").unwrap_err().to_string();
    assert!(error.ends_with("nothing of that, `var/lib/pre`, is in this archive"), "{error}");
    let error = archive("../../pre", "outside.tar").unwrap_err().to_string();
    assert!(error.ends_with("there is no link `parent` with its images"), "{error}");
}

/// Segments of which each page is somewhere, or zero, in a chain of dumps: what comes out is
/// compared with what was put in.
#[test]
fn any_chain_of_dumps() {
    let mut random = 1_u64;
    let mut below = move |limit: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(random >> 33).unwrap() % limit
    };
    let byte = |number: usize| u8::try_from(number).unwrap();
    for _ in 0..300 {
        let dump = Edited::new();
        let mut before: Vec<Option<u8>> = vec![None; 3];
        let chain = ["c", "b", "img"];
        for (i, name) in chain.iter().enumerate() {
            let (mut entries, mut file, mut now) = (Vec::new(), Vec::new(), vec![None; 3]);
            let mut at = 0;
            while at < 3 {
                let count = 1 + below(3 - at);
                let run = at..at + count;
                let is_there = i > 0 && before[run.clone()].iter().all(Option::is_some);
                match below(4) {
                    0 => {}
                    1 if is_there => {
                        entries.push(pages(at, count, IN_PARENT));
                        now[run.clone()].copy_from_slice(&before[run]);
                    }
                    2 => {
                        let bytes: Vec<u8> = run.clone().map(|_| 1 + byte(below(9))).collect();
                        entries.push(pages(at, count, PRESENT));
                        file.extend(bytes.iter().flat_map(|&byte| page(byte)));
                        run.zip(bytes).for_each(|(page, byte)| now[page] = Some(byte));
                    }
                    _ => {
                        let region = 1 + below(3);
                        let bytes: Vec<u8> = run.clone().map(|_| byte(below(9))).collect();
                        let packed: Vec<Vec<u8>> = bytes
                            .chunks(region)
                            .map(|block| match *block {
                                [0] => Vec::new(),
                                _ => lz4(&block
                                    .iter()
                                    .flat_map(|&byte| page(byte))
                                    .collect::<Vec<_>>()),
                            })
                            .collect();
                        let sizes: Vec<usize> = packed.iter().map(Vec::len).collect();
                        entries.push(blocks(at, count, PRESENT, &sizes, region));
                        file.extend(packed.concat());
                        run.zip(bytes).for_each(|(page, byte)| now[page] = Some(byte));
                    }
                }
                at += count;
            }
            dump.write(name, &entries, &file);
            if i > 0 {
                let link = dump.folder.path().join(name).join("parent");
                symlink(Path::new("..").join(chain[i - 1]), link).unwrap();
            }
            before = now;
        }
        let expected: Vec<u8> = before.iter().flat_map(|it| page(it.unwrap_or(0))).collect();
        assert!(dump.read().unwrap() == expected[..SIZE]);
    }
}
