// SPDX-License-Identifier: GPL-2.0

//! The set of numbers: the same as a `BTreeSet`, memory, and each allocation that can fail.

#![cfg(test)]

use std::collections::BTreeSet;

use kernel::alloc::{AllocError, GFP_KERNEL_ACCOUNT, ledger};
use kernel::page::PAGE_SIZE;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::map::PIECE_NUMBERS;

type Map = crate::map::Map<kernel::alloc::allocator::Kmalloc>;
type Piece = crate::map::Piece<kernel::alloc::allocator::Kmalloc>;

/// How many pieces the numbers of these tests are of.
const PIECES: usize = 4;

/// What is done to a map.
#[derive(Clone, Debug)]
enum Step {
    /// Makes room for a number.
    Prepare(usize),
    /// Hands over a piece for a number.
    Give(usize),
    /// Puts numbers in: the first, and how many.
    Insert(usize, usize),
    /// Takes numbers out: the first, and how many.
    Remove(usize, usize),
}

/// A number, mostly near a border of words or pieces.
fn number() -> impl Strategy<Value = usize> {
    let border = prop_oneof![
        (0..=PIECES).prop_map(|piece| piece * PIECE_NUMBERS),
        (0..PIECES * PIECE_NUMBERS / 64).prop_map(|word| word * 64),
    ];
    prop_oneof![
        2 => (border, 0..5_usize).prop_map(|(border, near)| (border + near).saturating_sub(2)),
        1 => 0..PIECES * PIECE_NUMBERS,
    ]
}

/// How many numbers in a row, rarely more than a piece has.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        10 => Just(1),
        10 => 1..200_usize,
        1 => PIECE_NUMBERS - 2..2 * PIECE_NUMBERS,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => number().prop_map(Step::Prepare),
        1 => number().prop_map(Step::Give),
        4 => (number(), length()).prop_map(|(first, length)| Step::Insert(first, length)),
        2 => (number(), length()).prop_map(|(first, length)| Step::Remove(first, length)),
    ]
}

/// A map, and what it must be the same as.
struct Compared {
    map: Map,
    numbers: BTreeSet<usize>,
    /// For each piece that the map has a place for, whether it has the piece.
    pieces: Vec<bool>,
}

impl Compared {
    fn with_limit(limit: usize) -> Self {
        Self {
            map: Map::with_limit(limit, GFP_KERNEL_ACCOUNT).unwrap(),
            numbers: BTreeSet::new(),
            pieces: vec![false; limit.div_ceil(PIECE_NUMBERS)],
        }
    }

    /// Plays a step in both, and checks what the map says of it.
    fn play(&mut self, step: &Step) {
        match *step {
            Step::Prepare(number) => {
                // What there is room for takes no memory.
                ledger::allow(if self.has_room(number) { 0 } else { usize::MAX });
                self.map.prepare(number, GFP_KERNEL_ACCOUNT).unwrap();
                ledger::allow(usize::MAX);
                let piece = number / PIECE_NUMBERS;
                self.pieces.resize(self.pieces.len().max(piece + 1), false);
                self.pieces[piece] = true;
            }
            Step::Give(number) => {
                let mut piece = Piece::new(GFP_KERNEL_ACCOUNT).unwrap();
                self.map.give(number, &mut piece);
                let place = self.pieces.get_mut(number / PIECE_NUMBERS);
                let takes = place.is_some_and(|has| !std::mem::replace(has, true));
                assert_eq!(piece.is_missing(), takes, "give({number})");
            }
            Step::Insert(first, length) => {
                for number in first..first + length {
                    let changes = self.has_room(number) && self.numbers.insert(number);
                    assert_eq!(self.map.insert(number), changes, "insert({number})");
                }
            }
            Step::Remove(first, length) => {
                for number in first..first + length {
                    let changes = self.numbers.remove(&number);
                    assert_eq!(self.map.remove(number), changes, "remove({number})");
                }
            }
        }
    }

    fn has_room(&self, number: usize) -> bool {
        self.pieces.get(number / PIECE_NUMBERS) == Some(&true)
    }

    /// Checks all that the map says of one number.
    fn check_at(&self, number: usize) {
        let end = number - number % PIECE_NUMBERS + PIECE_NUMBERS;
        let next_out = (number..end).find(|number| !self.numbers.contains(number)).unwrap_or(end);
        let next_in = self.numbers.range(number..).next().copied();

        // It looks at eight words.
        let ahead = (number / 64 + 8) * 64;
        let clear = self.numbers.range(number..ahead).next().copied().unwrap_or(ahead);

        assert_eq!(self.map.lacks(number), !self.has_room(number), "lacks({number})");
        assert_eq!(self.map.contains(number), self.numbers.contains(&number), "contains({number})");
        assert_eq!(self.map.next_in(number), next_in, "next_in({number})");
        assert_eq!(self.map.next_out(number), next_out, "next_out({number})");
        assert_eq!(self.map.clear_up_to(number), clear, "clear_up_to({number})");
        assert!(
            self.map.iter_from(number).eq(self.numbers.range(number..).copied()),
            "iter_from({number})"
        );
    }

    /// Checks all that the map says of itself.
    fn check(&self) {
        assert_eq!(self.map.len(), self.numbers.len());
        assert!(self.map.iter_from(0).eq(self.numbers.iter().copied()));

        let mut runs: Vec<(usize, usize)> = Vec::new();
        for &number in &self.numbers {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => runs.push((number, number)),
            }
        }
        assert!(self.map.runs().eq(runs));

        // The table of pieces at most doubles, and each entry is a pointer and two sizes.
        let pieces = self.pieces.iter().filter(|&&has| has).count() * PAGE_SIZE;
        let table = 2 * self.pieces.len() * 3 * size_of::<usize>();
        assert!((pieces..=pieces + table).contains(&ledger::held()), "{} bytes", ledger::held());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(2008),
        ..ProptestConfig::default()
    })]

    #[test]
    fn is_a_set(
        limit in number(),
        steps in prop::collection::vec(step(), 1..20),
        others in prop::collection::vec(number(), 5),
    ) {
        let mut compared = Compared::with_limit(limit);
        for step in &steps {
            compared.play(step);
            let (Step::Prepare(number)
            | Step::Give(number)
            | Step::Insert(number, _)
            | Step::Remove(number, _)) = *step;
            compared.check_at(number);
            compared.check_at(number.saturating_sub(1));
        }
        for number in others {
            compared.check_at(number);
        }
        compared.check();
        drop(compared);
        prop_assert_eq!(ledger::held(), 0);
    }
}

#[test]
fn v6_nothing_takes_no_memory() {
    let map = Map::new();
    assert_eq!((map.len(), map.next_in(0), map.next_out(0)), (0, None, 0));
    assert_eq!(ledger::held(), 0);
}

#[test]
fn no_piece_is_larger_than_a_page() {
    let _ = ledger::take_largest();
    Map::new().prepare(0, GFP_KERNEL_ACCOUNT).unwrap();
    assert_eq!(ledger::take_largest(), PAGE_SIZE);
}

#[test]
fn each_allocation_can_fail() {
    let fill = |map: &mut Map| -> Result<(), AllocError> {
        for piece in 0..PIECES {
            map.prepare(piece * PIECE_NUMBERS, GFP_KERNEL_ACCOUNT)?;
            assert!(map.insert(piece * PIECE_NUMBERS));
        }
        Ok(())
    };
    for budget in 0.. {
        ledger::allow(budget);
        let mut map = Map::new();
        let filled = fill(&mut map);
        ledger::allow(usize::MAX);
        if filled.is_ok() {
            assert!(budget > PIECES, "pieces and their table took {budget} allocations");
            break;
        }

        let kept = map.len();
        assert!(kept < PIECES);
        assert!(map.iter_from(0).eq((0..kept).map(|piece| piece * PIECE_NUMBERS)));
        assert!(map.lacks(kept * PIECE_NUMBERS));

        // Once there is memory again the map takes what it could not.
        map.prepare(kept * PIECE_NUMBERS, GFP_KERNEL_ACCOUNT).unwrap();
        assert!(map.insert(kept * PIECE_NUMBERS));
        drop(map);
        assert_eq!(ledger::held(), 0, "leaked where allocation {budget} failed");
    }
}

#[test]
fn a_table_that_cannot_be_had() {
    for budget in 0.. {
        ledger::allow(budget);
        let map = Map::with_limit(PIECES * PIECE_NUMBERS, GFP_KERNEL_ACCOUNT);
        ledger::allow(usize::MAX);
        if map.is_ok() {
            assert!(budget > 0, "a table took no allocation");
            break;
        }
        assert_eq!(ledger::held(), 0, "leaked where allocation {budget} failed");
    }
}

#[test]
fn a_piece_that_cannot_be_had() {
    ledger::allow(0);
    let piece = Piece::new(GFP_KERNEL_ACCOUNT);
    ledger::allow(usize::MAX);
    assert!(piece.is_err());
}
