// SPDX-License-Identifier: GPL-2.0

//! Huge pages, which some segments have.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use criu_images::{Ipc, Segment};
use nix::libc;

use crate::failure::{self, Failure};

/// Which bits of the flags of a segment tell the size of its pages: its logarithm.
const SIZE: i32 = libc::MAP_HUGE_MASK << libc::MAP_HUGE_SHIFT;

/// What is missing for the segments with huge pages.
pub fn hindrances(ipc: &Ipc) -> Vec<Failure> {
    let mut needed: BTreeMap<u64, u64> = BTreeMap::new();
    for segment in ipc.segments.iter().filter(|segment| segment.huge_pages != 0) {
        match size(segment) {
            Some(size) => *needed.entry(size).or_default() += segment.size.div_ceil(size),
            None => {
                return vec![Failure {
                    status: failure::BAD_IMAGES,
                    text: format!(
                        "segment {} has huge pages of no kind that is known: {:#o}",
                        segment.permissions.id, segment.huge_pages
                    ),
                }];
            }
        }
    }
    needed.into_iter().filter_map(|(size, needed)| missing(size, needed)).collect()
}

/// The size of the pages of a segment, in bytes.
fn size(segment: &Segment) -> Option<u64> {
    let flags = segment.huge_pages;
    if flags & libc::SHM_HUGETLB == 0 || flags & !(libc::SHM_HUGETLB | SIZE) != 0 {
        return None;
    }
    match (flags & SIZE) >> libc::MAP_HUGE_SHIFT {
        0 => default_size(),
        shift => Some(1 << shift),
    }
}

fn default_size() -> Option<u64> {
    let memory = fs::read_to_string("/proc/meminfo").ok()?;
    let line = memory.lines().find_map(|line| line.strip_prefix("Hugepagesize:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// What is missing where `needed` pages of `size` bytes are.
fn missing(size: u64, needed: u64) -> Option<Failure> {
    let kilobytes = size >> 10;
    let folder = PathBuf::from(format!("/sys/kernel/mm/hugepages/hugepages-{kilobytes}kB"));
    let count = |file: &str| -> Option<u64> {
        fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()
    };
    let Some(free) = count("free_hugepages") else {
        return Some(Failure {
            status: failure::NOT_SUPPORTED,
            text: format!(
                "segments of the dump have huge pages of {kilobytes} KiB, and this kernel has none"
            ),
        });
    };
    let count = |file| count(file).unwrap_or_default();
    // Those that others have reserved are free still; some may come when they are needed.
    let more = count("nr_overcommit_hugepages").saturating_sub(count("surplus_hugepages"));
    let available = free.saturating_sub(count("resv_hugepages")) + more;
    (available < needed).then(|| Failure {
        status: failure::OTHER,
        text: format!(
            "segments of the dump take {needed} huge pages of {kilobytes} KiB, and {available} are \
             free: write {} to {}",
            count("nr_hugepages") + needed - available,
            folder.join("nr_hugepages").display()
        ),
    })
}
