// SPDX-License-Identifier: GPL-2.0

//! Where images come from: folders, and archives of every kind.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use criu_images::{Dump, Error, Images};
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

/// A change of the header of a file, or of its name, that an archive is to have.
type Change = fn(&mut tar::Header);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dumps/container")
}

fn images() -> Vec<(String, Vec<u8>)> {
    let mut images = Vec::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        images.push((name, fs::read(entry.path()).unwrap()));
    }
    images.sort();
    images
}

fn add(archive: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o600);
    archive.append_data(&mut header, name, bytes).unwrap();
}

fn add_link(archive: &mut tar::Builder<Vec<u8>>, name: &str, to: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    archive.append_link(&mut header, name, to).unwrap();
}

/// What an engine of containers exports.
fn exported() -> tar::Builder<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    add(&mut archive, "config.dump", b"{}");
    for (name, bytes) in images() {
        add(&mut archive, &format!("checkpoint/{name}"), &bytes);
    }
    add(&mut archive, "spec.dump", b"{}");
    archive
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn read_file(bytes: &[u8]) -> Result<Dump, Error> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, bytes).unwrap();
    read(&path)
}

fn read(path: &Path) -> Result<Dump, Error> {
    Dump::read(&Images::open(path)?)
}

/// What is wrong with the archive.
fn error_of(bytes: &[u8]) -> String {
    let error = read_file(bytes).expect_err("it cannot be read").to_string();
    error.split_once("/a").unwrap().1.to_owned()
}

fn check(dump: &Dump) {
    let expected = read(&folder()).unwrap();
    assert_eq!(dump.processes, expected.processes);
    let (ipc, expected) = (dump.ipc.as_ref().unwrap(), expected.ipc.unwrap());
    assert_eq!(ipc.limits, expected.limits);
    assert_eq!(ipc.queues[0].messages, expected.queues[0].messages);
    let contents = |ipc: &criu_images::Ipc| {
        let mut memory = vec![0; 10000];
        ipc.segments[0].read_into(&mut memory).unwrap();
        memory
    };
    let memory = contents(ipc);
    assert_eq!(&memory[8192..8202], b"third page");
    assert!(memory == contents(&expected));
}

#[test]
fn archives_of_each_compression() {
    let archive = exported().into_inner().unwrap();
    check(&read_file(&archive).unwrap());
    check(&read_file(&gzip(&archive)).unwrap());
    check(&read_file(&zstd::encode_all(&*archive, 1).unwrap()).unwrap());
    // As pigz and pzstd make them, in several pieces.
    let (first, second) = archive.split_at(archive.len() / 2);
    check(&read_file(&[gzip(first), gzip(second)].concat()).unwrap());
    let pieces = [first, second].map(|piece| zstd::encode_all(piece, 1).unwrap());
    check(&read_file(&pieces.concat()).unwrap());
}

#[test]
fn archives_with_any_names_and_order() {
    for prefix in ["", "./", "checkpoint/", "./checkpoint/", "/checkpoint/", "a/b/../c/"] {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, bytes) in images().into_iter().rev() {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            let path = format!("{prefix}{name}");
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            archive.append(&header, &*bytes).unwrap();
        }
        let archive = archive.into_inner().unwrap();
        check(&read_file(&archive).unwrap());
        check(&read_file(&gzip(&archive)).unwrap());
    }
}

#[test]
fn a_folder_that_was_an_archive() {
    let unpacked = TempDir::new().unwrap();
    tar::Archive::new(&*exported().into_inner().unwrap()).unpack(&unpacked).unwrap();
    check(&read(unpacked.path()).unwrap());
    check(&read(&unpacked.path().join("checkpoint")).unwrap());
}

/// As tar unpacks it.
#[test]
fn the_last_file_of_a_name_counts() {
    let mut archive = tar::Builder::new(Vec::new());
    add(&mut archive, "checkpoint/pstree.img", b"nonsense");
    archive.get_mut().extend(exported().into_inner().unwrap());
    check(&read_file(archive.get_ref()).unwrap());
}

/// In an archive that is being unpacked, and in one that is not.
fn each_error(archive: &[u8], expected: &str) {
    assert_eq!(error_of(archive), expected);
    assert_eq!(error_of(&gzip(archive)), expected);
}

#[test]
fn errors_name_the_file_in_the_archive() {
    let mut archive = exported();
    add(&mut archive, "checkpoint/core-45.img", b"nonsense");
    let archive = archive.into_inner().unwrap();
    each_error(
        &archive,
        ":checkpoint/core-45.img, byte 0: magic number 0x736e6f6e where 0x54564319 should be: this \
         is no such image of CRIU",
    );
}

#[test]
fn a_name_that_leads_out_of_the_archive_is_none() {
    let mut archive = exported();
    let name = "checkpoint/../../checkpoint/pstree.img";
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(8);
    header.set_cksum();
    archive.append(&header, &b"nonsense"[..]).unwrap();
    check(&read_file(&archive.into_inner().unwrap()).unwrap());
}

#[test]
fn what_is_no_archive() {
    let neither = ": neither a folder with images of CRIU nor an archive of one, which is a tar \
                   file, also compressed by gzip or zstd: ";
    for text in [&b"hello\n"[..], &[b'x'; 1024]] {
        let error = error_of(text);
        assert!(error.starts_with(neither), "{error}");
    }
    assert_eq!(error_of(b""), ": no dump of CRIU: there is no inventory.img in this archive");
    let other = |name| {
        format!(": an archive that {name} compressed, and not gzip or zstd: unpack it before")
    };
    assert_eq!(error_of(b"\xfd7zXZ\0\0"), other("xz"));
    assert_eq!(error_of(b"BZh91AY&SY"), other("bzip2"));
    assert_eq!(error_of(b"\x04\x22\x4d\x18dpw"), other("lz4"));
}

#[test]
fn an_archive_that_is_cut_off() {
    let archive = exported().into_inner().unwrap();
    let middle = archive.len() / 2 / 512 * 512 + 100;
    for cut in [archive[..middle].to_vec(), gzip(&archive[..middle])] {
        assert!(
            error_of(&cut).starts_with(": the archive cannot be read on: "),
            "{}",
            error_of(&cut)
        );
    }
    for packed in [gzip(&archive), zstd::encode_all(&*archive, 1).unwrap()] {
        let error = error_of(&packed[..packed.len() - 6]);
        assert!(error.starts_with(": the archive cannot be read on: "), "{error}");
    }
}

#[test]
fn an_archive_with_a_wrong_checksum() {
    let mut packed = gzip(&exported().into_inner().unwrap());
    let place = packed.len() - 6;
    packed[place] ^= 1;
    let error = error_of(&packed);
    assert!(error.starts_with(": the archive cannot be read on: corrupt gzip"), "{error}");
}

#[test]
fn what_a_header_claims_is_not_believed() {
    let claim: [(Change, &str); 2] = [
        // A name of a gigabyte, of which two megabytes are there.
        (
            |header| header.set_entry_type(tar::EntryType::GNULongName),
            "a name, or what describes a file, is too long",
        ),
        // A file of a gigabyte.
        (|header| header.set_entry_type(tar::EntryType::Regular), "unexpected end of file"),
    ];
    for (change, expected) in claim {
        let mut archive = exported();
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..21].copy_from_slice(b"checkpoint/core-1.img");
        header.set_size(1 << 30);
        change(&mut header);
        header.set_cksum();
        archive.get_mut().extend(header.as_bytes());
        archive.get_mut().extend(vec![b'x'; 2 << 20]);
        let archive = archive.get_ref().clone();
        each_error(&archive, &format!(": the archive cannot be read on: {expected}"));
    }
}

#[test]
fn a_sparse_file_is_not_read_as_another_one() {
    let mut archive = exported();
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..21].copy_from_slice(b"checkpoint/core-1.img");
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_size(0);
    header.as_gnu_mut().unwrap().realsize = *b"00000000000\0";
    header.set_cksum();
    archive.append(&header, io::empty()).unwrap();
    let expected = ": the archive cannot be read on: checkpoint/core-1.img is kept as a sparse \
                    file; pack it without --sparse";
    each_error(&archive.into_inner().unwrap(), expected);
}

#[test]
fn an_archive_of_several_dumps() {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in images() {
        add(&mut archive, &format!("b/{name}"), &bytes);
        add(&mut archive, &format!("a/{name}"), &bytes);
    }
    let two = archive.get_ref().clone();
    each_error(&two, ": several dumps, in `a`, `b`: unpack it, and name one");
    // Where one builds on the other, there is no choice.
    add_link(&mut archive, "a/parent", "../b");
    check(&read_file(&archive.into_inner().unwrap()).unwrap());
}

#[test]
fn a_dump_that_builds_on_itself() {
    let mut archive = exported();
    add_link(&mut archive, "checkpoint/parent", ".");
    let archive = archive.into_inner().unwrap();
    each_error(&archive, ": the links `parent` of its dumps lead in a circle");
}

/// To open a pipe could take for ever.
#[test]
fn a_pipe_is_no_archive() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = read(&path).unwrap_err().to_string();
    assert!(error.ends_with("pipe: this is no regular file"), "{error}");
}

#[test]
fn a_pre_dump_is_none() {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in images().iter().filter(|(name, _)| name != "pstree.img") {
        add(&mut archive, name, bytes);
    }
    each_error(
        &archive.into_inner().unwrap(),
        ":pstree.img: it is not there: this is a pre-dump, on which a dump can build, or the dump \
         failed",
    );
}

/// A file of 10 GiB, which is a hole, is not read: neither where it is needed by nobody, nor where
/// its claim is checked.
#[test]
fn a_large_file_costs_nothing() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("large.tar");
    let mut header = tar::Header::new_gnu();
    header.set_path("checkpoint/pages-99.img").unwrap();
    header.set_size(10 << 30);
    header.set_cksum();
    let file = File::create(&path).unwrap();
    file.write_all_at(header.as_bytes(), 0).unwrap();
    file.write_all_at(&exported().into_inner().unwrap(), 512 + (10 << 30)).unwrap();
    check(&read(&path).unwrap());
}

#[test]
fn a_link_in_a_folder_that_leads_nowhere_is_no_matter() {
    let copy = TempDir::new().unwrap();
    for (name, bytes) in images() {
        fs::write(copy.path().join(name), bytes).unwrap();
    }
    symlink("../gone", copy.path().join("parent")).unwrap();
    check(&read(copy.path()).unwrap());
}
