// SPDX-License-Identifier: GPL-2.0

//! How much memory lists and reservations take, by what their memory cgroup is charged.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Barrier, Mutex};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::data::Unit;
use crate::growth::list_command;
use crate::harness::Session;
use crate::keys::{Case, Group};
use crate::method::NEXT_ID;
use crate::reservations;
use crate::sys::IdFile;

/// So many threads hold a list each, which makes what a CPU charges ahead small beside it.
const LIST_HOLDERS: u32 = 256;

/// So many threads hold a reservation each, which takes more memory than a list.
const RESERVATION_HOLDERS: u32 = 32;

/// A reader of `memory.stat` sums up what the processors hold back, once that may be more than 64
/// pages for each of them: this many bytes come and go before.
const CHANGE: NonZeroUsize = NonZeroUsize::new(16 << 20).expect("it is not zero");

/// Ids in a list: around what fits inline (32) and one page after that (512).
const LISTS: [usize; 8] = [1, 32, 33, 100, 544, 545, 4_096, 65_536];

/// Measures what lists and reservations of all lengths are charged.
pub fn measure(session: &mut Session) -> Result<()> {
    let most = usize::try_from(session.effort.objects)?;
    let group = enter_group()?;
    for size in LISTS.into_iter().filter(|&size| size <= most) {
        session.progress("memory of lists", size, most);
        let list = list(&group, size)?;
        ensure!(size == 1 || list > 0.0, "a list of {size} ids is charged nothing");
        let size = Some(size as u64);
        session.record_in(Unit::Bytes, Group::Memory, Case::NextId, size, vec![list]);
    }
    for size in reservations::SIZES.into_iter().filter(|&size| size <= most) {
        for &case in Group::ReservedMemory.cases() {
            session.progress("memory of reservations", size, most);
            let reservation = reservation(&group, case, size)?;
            ensure!(reservation > 0.0, "a reservation of {size} ids is charged nothing");
            let size = Some(size as u64);
            session.record_in(Unit::Bytes, Group::ReservedMemory, case, size, vec![reservation]);
        }
    }
    Ok(())
}

/// The bytes that one armed list of `size` ids is charged: none for a single id.
fn list(group: &Path, size: usize) -> Result<f64> {
    let command = list_command(size);
    let prepare = || {
        let file = IdFile::open(NEXT_ID)?;
        // The first list of a thread may not be all that its first write makes the kernel allocate
        // or free.
        file.write(&command)?;
        file.write(b"RESET")?;
        Ok(file)
    };
    held(group, LIST_HOLDERS, prepare, |file| file.write(&command))
}

/// The bytes that one reservation of `size` pids is charged, with the map of its pid namespace,
/// where it is the only one.
fn reservation(group: &Path, case: Case, size: usize) -> Result<f64> {
    let command = reservations::command_for(case, size);
    let prepare = || {
        unshare(CloneFlags::CLONE_NEWPID)?;
        // The same as for a list.
        IdFile::open(NEXT_ID)?.write(&command)?;
        IdFile::open(NEXT_ID)
    };
    held(group, RESERVATION_HOLDERS, prepare, |file| file.write(&command))
}

/// The bytes that each of so many threads is charged for what it holds, on a file that it prepares
/// before.
#[expect(clippy::cast_precision_loss, reason = "memory is less than 2^52 bytes")]
fn held(
    group: &Path,
    holders: u32,
    prepare: impl Fn() -> Result<IdFile> + Sync,
    hold: impl Fn(&IdFile) -> Result<()> + Sync,
) -> Result<f64> {
    let barrier = Barrier::new(holders as usize + 1);
    let failure = Mutex::new(None);
    let (before, after) = thread::scope(|scope| {
        for _ in 0..holders {
            scope.spawn(|| {
                let ready = prepare();
                barrier.wait();
                barrier.wait();
                // The file stays open, as it takes memory itself.
                let written = ready.and_then(|file| hold(&file).map(|()| file));
                barrier.wait();
                barrier.wait();
                if let Err(error) = written {
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
    Ok(after.saturating_sub(before) as f64 / f64::from(holders))
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
