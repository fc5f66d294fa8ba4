// SPDX-License-Identifier: GPL-2.0

//! Control groups, to limit processes and to account for kernel memory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::sys;

const ROOT: &str = "/sys/fs/cgroup";

/// A group. It is removed when this is dropped, by when its processes must be gone.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a group below the root.
    pub fn new(name: &str) -> Result<Self> {
        Self::below(Path::new(ROOT), name, &[])
    }

    /// Makes a group below this one, with settings.
    pub fn child(&self, name: &str, settings: &[(&str, &str)]) -> Result<Self> {
        Self::below(&self.path, name, settings)
    }

    fn below(parent: &Path, name: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let control = parent.join("cgroup.subtree_control");
        for controller in ["+pids", "+memory"] {
            fs::write(&control, controller).with_context(|| {
                format!("cannot write {controller} to {}: it takes cgroup v2", control.display())
            })?;
        }
        let path = parent.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let group = Self { path };
        for (file, value) in settings {
            fs::write(group.path.join(file), value)?;
        }
        Ok(group)
    }

    /// Moves the calling process here.
    pub fn enter(&self) -> Result<()> {
        Ok(fs::write(self.path.join("cgroup.procs"), "0")?)
    }

    /// Returns how many bytes of slab objects that cannot be reclaimed the group is charged for.
    pub fn slab_bytes(&self) -> Result<u64> {
        // What holds on to objects, as inodes do in /proc, goes first.
        let _ = fs::write(self.path.join("memory.reclaim"), "1G");
        let stat = fs::read_to_string(self.path.join("memory.stat"))?;
        let bytes = stat.lines().find_map(|line| line.strip_prefix("slab_unreclaimable "));
        Ok(bytes.context("memory.stat has no slab_unreclaimable")?.parse()?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes that were waited for may take a moment to leave.
        for _ in 0..1000 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            sys::sleep(1000);
        }
    }
}
