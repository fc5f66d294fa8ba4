// SPDX-License-Identifier: GPL-2.0

//! The list of ids: order, memory, and each allocation that can fail.

#![cfg(test)]

use kernel::alloc::{GFP_KERNEL_ACCOUNT, ledger};
use kernel::page::PAGE_SIZE;

use crate::list::{BLOCK_IDS, INLINE_IDS, IdList};
use crate::parser::{Id, MAX_IDS};

type List = IdList<kernel::alloc::allocator::Kmalloc>;

/// Lengths around each place where storage changes.
const LENGTHS: [usize; 12] = [
    0,
    1,
    INLINE_IDS - 1,
    INLINE_IDS,
    INLINE_IDS + 1,
    BLOCK_IDS,
    INLINE_IDS + BLOCK_IDS,
    INLINE_IDS + BLOCK_IDS + 1,
    INLINE_IDS + 2 * BLOCK_IDS,
    INLINE_IDS + 2 * BLOCK_IDS + 1,
    MAX_IDS - 1,
    MAX_IDS,
];

/// An id that tells its place, and uses all of its bits.
fn id_at(place: usize) -> Id {
    Id::try_from(place).unwrap().wrapping_mul(0x1e37_79b9_7f4a_7c15)
}

fn fill(list: &mut List, len: usize) -> Result<(), kernel::alloc::AllocError> {
    (list.len()..len).try_for_each(|place| list.push(id_at(place), GFP_KERNEL_ACCOUNT))
}

fn assert_filled(list: &List, len: usize) {
    assert_eq!(list.len(), len);
    assert!(list.iter().eq((0..len).map(id_at)), "a list of {len} ids differs");
}

#[test]
fn ids_stay_in_order() {
    for len in LENGTHS {
        let mut list = List::new();
        fill(&mut list, len).unwrap();
        assert_filled(&list, len);
    }
}

#[test]
fn s4_memory_follows_the_ids() {
    for len in LENGTHS {
        let mut list = List::new();
        fill(&mut list, len).unwrap();
        let blocks = len.saturating_sub(INLINE_IDS).div_ceil(BLOCK_IDS);
        // The table of blocks at most doubles, and each entry is a pointer and two sizes.
        let table = 2 * blocks * 3 * size_of::<usize>();
        let held = ledger::held();
        assert!(held >= blocks * PAGE_SIZE, "{len} ids in {held} bytes");
        assert!(held <= blocks * PAGE_SIZE + table, "{len} ids in {held} bytes");
        drop(list);
        assert_eq!(ledger::held(), 0);
    }
}

#[test]
fn s4_no_allocation_is_larger_than_a_page() {
    let _ = ledger::take_largest();
    fill(&mut List::new(), MAX_IDS).unwrap();
    assert_eq!(ledger::take_largest(), PAGE_SIZE);
}

#[test]
fn each_allocation_can_fail() {
    let len = INLINE_IDS + 9 * BLOCK_IDS + 1;
    for budget in 0.. {
        ledger::allow(budget);
        let mut list = List::new();
        let filled = fill(&mut list, len);
        ledger::allow(usize::MAX);
        if filled.is_ok() {
            assert!(budget > 10, "10 blocks and their table took {budget} allocations");
            break;
        }

        let kept = list.len();
        assert!(kept < len);
        assert_filled(&list, kept);

        // Once there is memory again the list goes on where it stopped.
        fill(&mut list, len).unwrap();
        assert_filled(&list, len);
        drop(list);
        assert_eq!(ledger::held(), 0, "leaked where allocation {budget} failed");
    }
}
