// SPDX-License-Identifier: GPL-2.0

//! How much memory a list takes, by what its memory cgroup is charged.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Barrier, Mutex};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::data::Unit;
use crate::growth::list_command;
use crate::harness::Session;
use crate::keys::{Case, Group};
use crate::method::NEXT_ID;
use crate::sys::IdFile;

/// So many threads hold a list each, which makes what a CPU charges ahead small beside it.
const HOLDERS: usize = 256;

/// A reader of `memory.stat` sums up what the processors hold back, once that may be more than 64
/// pages for each of them: this many bytes come and go before.
const CHANGE: NonZeroUsize = NonZeroUsize::new(16 << 20).expect("it is not zero");

/// Ids in a list: around what fits inline (32) and one page after that (512).
const LISTS: [usize; 8] = [1, 32, 33, 100, 544, 545, 4_096, 65_536];

/// Measures what lists of all lengths are charged.
pub fn measure(session: &mut Session) -> Result<()> {
    let most = usize::try_from(session.effort.objects)?;
    let group = enter_group()?;
    for size in LISTS.into_iter().filter(|&size| size <= most) {
        session.progress("memory", size, most);
        let list = held(&group, size)?;
        let size = Some(size as u64);
        session.record_in(Unit::Bytes, Group::Memory, Case::NextId, size, vec![list]);
    }
    Ok(())
}

/// The bytes that one armed list of `size` ids is charged: none for a single id.
#[expect(clippy::cast_precision_loss, reason = "memory is less than 2^52 bytes")]
fn held(group: &Path, size: usize) -> Result<f64> {
    let command = list_command(size);
    let barrier = Barrier::new(HOLDERS + 1);
    let failure = Mutex::new(None);
    let (before, after) = thread::scope(|scope| {
        for _ in 0..HOLDERS {
            scope.spawn(|| {
                let file = IdFile::open(NEXT_ID);
                // The first list of a thread may not be all that its first write makes the kernel
                // allocate or free.
                let ready = file.and_then(|file| {
                    file.write(&command)?;
                    file.write(b"RESET")?;
                    Ok(file)
                });
                barrier.wait();
                barrier.wait();
                // The file stays open, as it takes memory itself.
                let armed = ready.and_then(|file| file.write(&command).map(|()| file));
                barrier.wait();
                barrier.wait();
                if let Err(error) = armed {
                    failure.lock().expect("no holder panics").replace(error);
                }
            });
        }
        barrier.wait();
        let before = charged(group);
        barrier.wait();
        barrier.wait();
        let after = charged(group);
        barrier.wait();
        (before, after)
    });
    if let Some(error) = failure.into_inner().expect("no holder panics") {
        return Err(error);
    }
    let (before, after) = (before?, after?);
    ensure!(
        size == 1 || after > before,
        "the memory cgroup is charged nothing for {HOLDERS} lists of {size} ids"
    );
    Ok(after.saturating_sub(before) as f64 / HOLDERS as f64)
}

/// The bytes of unreclaimable slab memory that `group` is charged.
fn charged(group: &Path) -> Result<u64> {
    // SAFETY: It is new memory, to which there are no references, that is given back.
    unsafe {
        let (access, flags) =
            (ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE);
        let pages = mmap_anonymous(None, CHANGE, access, flags)?;
        munmap(pages, CHANGE.get())?;
    }
    let statistics = fs::read_to_string(group.join("memory.stat"))?;
    let value = statistics.lines().find_map(|line| line.strip_prefix("slab_unreclaimable "));
    Ok(value.context("memory.stat has no slab_unreclaimable")?.parse()?)
}

/// Moves this process to a memory cgroup of its own.
fn enter_group() -> Result<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    fs::write(root.join("cgroup.subtree_control"), "+memory").context("turning +memory on")?;
    let group = root.join("bench");
    fs::create_dir_all(&group)?;
    fs::write(group.join("cgroup.procs"), "0").context("entering a cgroup")?;
    Ok(group)
}
