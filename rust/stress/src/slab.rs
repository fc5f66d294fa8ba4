// SPDX-License-Identifier: GPL-2.0

//! How many objects there are in the slab caches that armed lists, tasks and IPC objects come from.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::sys;

const CACHES: &str = "/sys/kernel/slab";

/// Lists of ids and IPC objects are in `kmalloc-cg-*`.
const PREFIXES: [&str; 9] = [
    "kmalloc-cg-",
    "pid",
    "task_struct",
    "signal_cache",
    "sighand_cache",
    "files_cache",
    "mm_struct",
    "cred",
    "nsproxy",
];

/// Objects of each cache.
pub type Objects = BTreeMap<String, i64>;

/// Whether this kernel tells.
pub fn is_available() -> bool {
    Path::new(CACHES).join("pid/objects").exists()
}

/// Counts the objects, once what is being freed has been.
pub fn objects() -> Result<Objects> {
    let mut last = count()?;
    // Frees may wait for one RCU grace period after the other: until nothing goes any more.
    for _ in 0..50 {
        sys::sleep(100_000);
        let objects = count()?;
        if last.iter().all(|(name, count)| objects.get(name) == Some(count)) {
            return Ok(objects);
        }
        last = objects;
    }
    Ok(last)
}

fn count() -> Result<Objects> {
    let mut objects = Objects::new();
    for cache in fs::read_dir(CACHES)? {
        let cache = cache?;
        let name = cache.file_name().to_string_lossy().into_owned();
        if !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        // Free objects that CPUs keep for themselves count as used, until the cache is shrunk.
        fs::write(cache.path().join("shrink"), "1")?;
        let text = fs::read_to_string(cache.path().join("objects"))?;
        let number = text.split_whitespace().next().context("a cache without a number")?;
        objects.insert(name, number.parse()?);
    }
    ensure!(!objects.is_empty(), "{CACHES} has none of the caches");
    Ok(objects)
}

/// Returns the caches that have so many objects more than before, and how many.
pub fn grown<'a>(before: &Objects, after: &'a Objects, tolerance: i64) -> Vec<(&'a str, i64)> {
    let more =
        |(name, count): (&'a String, &i64)| (name.as_str(), count - before.get(name).unwrap_or(&0));
    after.iter().map(more).filter(|&(_, more)| more > tolerance).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_beyond_the_tolerance_is_told() {
        let before = Objects::from([("pid".into(), 100), ("cred".into(), 100)]);
        let after =
            Objects::from([("pid".into(), 110), ("cred".into(), 111), ("pid_4".into(), 11)]);
        assert_eq!(grown(&before, &after, 10), [("cred", 11), ("pid_4", 11)]);
    }
}
