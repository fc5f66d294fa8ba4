// SPDX-License-Identifier: GPL-2.0

//! The core against the oracle, over texts of all kinds.

use std::ops::RangeInclusive;

use core_tests::{Command, check, oracle, parse};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;

/// The same texts each time: what is new is for the fuzzer to find.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(2008),
        ..ProptestConfig::default()
    }
}

/// White space, or what may be taken for it.
fn space() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => Just(" ".to_owned()),
        4 => "[ \t\n\x0b\x0c\r]{1,3}",
        1 => Just(String::new()),
        1 => Just("\0".to_owned()),
        1 => Just("\u{a0}".to_owned()),
    ]
}

/// Values near each border.
fn value() -> impl Strategy<Value = i128> {
    let borders = [
        0,
        1,
        65535,
        65536,
        65537,
        i128::from(i32::MAX),
        i128::from(i64::MAX),
        1 << 64,
        i128::MAX / 4,
    ];
    prop_oneof![
        any::<i64>().prop_map(i128::from),
        (select(borders.to_vec()), -2..=2_i128, any::<bool>()).prop_map(
            |(border, near, negative)| if negative { -(border + near) } else { border + near }
        ),
    ]
}

/// A number in one of its spellings.
fn number() -> impl Strategy<Value = String> {
    (value(), 0..6).prop_map(|(value, spelling)| {
        let sign = if value < 0 { "-" } else { "" };
        let value = value.unsigned_abs();
        match spelling {
            0 => format!("{sign}0x{value:x}"),
            1 => format!("{sign}0X{value:X}"),
            2 => format!("{sign}0{value:o}"),
            3 if sign.is_empty() => format!("+{value}"),
            _ => format!("{sign}{value}"),
        }
    })
}

/// What may stand where a number should.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![8 => number(), 1 => "[-+0-9xXa-gA-G]{0,6}"]
}

/// Ids with what separates them, most of them in `range`, and how many they are.
fn ids(
    range: RangeInclusive<isize>,
    count: impl Into<prop::collection::SizeRange>,
) -> impl Strategy<Value = (usize, String)> {
    let good = prop_oneof![
        2 => range.clone().prop_map(|id| format!(" {id}")),
        1 => ("[ \n\t]{1,3}", range).prop_map(|(space, id)| format!("{space}{:#x}", id.max(1))),
    ];
    let any = (space(), word()).prop_map(|(space, word)| space + &word);
    prop::collection::vec(prop_oneof![60 => good, 1 => any], count)
        .prop_map(|ids| (ids.len(), ids.concat()))
}

/// A word, how many ids it asks for, and these ids: mostly as it should be.
fn request(reserve: bool) -> impl Strategy<Value = String> {
    let words = select(vec!["LONG", "PID", "MSG", "SEM", "SHM", "PTY"]);
    words.prop_flat_map(move |word| {
        let int_max = isize::try_from(i32::MAX).expect("an int fits a long");
        let range = match word {
            "LONG" => isize::MIN..=isize::MAX,
            "PID" => 1..=int_max,
            _ => 0..=int_max,
        };
        let most = if reserve || matches!(word, "LONG" | "PID") { 40 } else { 2 };
        let counted = prop_oneof![
            6 => ids(range.clone(), 0..=most),
            2 => ids(range.clone(), 33),
            1 => ids(range.clone(), 500..600),
        ];
        prop_oneof![
            4 => ids(range.clone(), 1).prop_map(move |(_, ids)| format!("{word}{ids}")),
            8 => counted.prop_map(move |(count, ids)| format!("{word}{count}{ids}")),
            4 => (space(), self::word()).prop_map(move |(space, id)| format!("{word}{space}{id}")),
            2 => (self::word(), ids(range, 0..4))
                .prop_map(move |(count, (_, ids))| format!("{word}{count}{ids}")),
        ]
    })
}

/// A text that looks like a command.
fn command() -> impl Strategy<Value = String> {
    let reserve =
        (space(), request(true)).prop_map(|(space, text)| format!("RESERVE{space}{text}"));
    let text = prop_oneof![
        1 => Just("RESET".to_owned()),
        1 => "[A-Z]{0,8}",
        10 => request(false),
        10 => reserve,
    ];
    ("[ \n]{0,2}", text, space(), word())
        .prop_map(|(lead, text, space, rest)| lead + &text + &space + &rest)
}

/// The tokens of the language, and parts of them, in any order.
fn tokens() -> impl Strategy<Value = String> {
    let keyword = select(vec!["LONG", "PID", "MSG", "SEM", "SHM", "PTY", "RESET", "RESERVE"]);
    let token = prop_oneof![
        8 => keyword.prop_map(str::to_owned),
        1 => "[LONGPIDMSEHTYRV]{1,3}",
        8 => space(),
        4 => word(),
        2 => "[0-4]",
    ];
    prop::collection::vec(token, 0..8).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes(text in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&text);
    }

    #[test]
    fn tokens_in_any_order(text in tokens()) {
        check(text.as_bytes());
    }

    #[test]
    fn commands(text in command()) {
        check(text.as_bytes());
    }

    #[test]
    fn a_byte_of_a_command_changed(text in command(), place: prop::sample::Index, byte: u8) {
        let mut text = text.into_bytes();
        let place = place.index(text.len());
        text[place] = byte;
        check(&text);
    }

    #[test]
    fn any_cuts(
        text in command(),
        mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let text = text.as_bytes();
        cuts.sort_by_key(|cut| cut.index(text.len() + 1));
        let mut pieces = Vec::new();
        let mut start = 0;
        for cut in cuts {
            let cut = cut.index(text.len() + 1);
            pieces.push(&text[start..cut]);
            start = cut;
        }
        pieces.push(&text[start..]);
        prop_assert_eq!(parse(pieces, true), oracle::parse(text, true));
    }
}

/// The texts above are worth something only if enough of them are commands, and enough are not.
#[test]
fn commands_are_of_all_kinds() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let many = |ids: Vec<isize>| match ids.len() {
        1 => "one",
        2..=32 => "some",
        _ => "many",
    };
    let mut runner = TestRunner::new(config());
    let mut outcomes = std::collections::HashMap::<_, usize>::new();
    for _ in 0..4000 {
        let text = command().new_tree(&mut runner).expect("a text").current();
        let outcome = match oracle::parse(text.as_bytes(), true) {
            Ok(Command::Reset) => "RESET".to_owned(),
            Ok(Command::Arm(word, ids)) => format!("{word} {}", many(ids)),
            Ok(Command::Reserve(word, ids)) => format!("RESERVE {word} {}", many(ids)),
            Err(errno) => format!("{errno:?}"),
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    for (outcome, seen) in &outcomes {
        assert!(*seen >= 5, "only {seen} of 4000 texts are {outcome}: {outcomes:?}");
    }
    // LONG, PID and four that can be reserved, each with one, some and many; four more with one.
    assert_eq!(outcomes.len(), 6 * 3 + 4 + "RESET EINVAL ERANGE E2BIG".split(' ').count());
}

/// What the fuzzer found worth keeping.
#[test]
fn kept_corpus() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/command");
    let mut texts = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus is there") {
        check(&std::fs::read(entry.unwrap().path()).unwrap());
        texts += 1;
    }
    assert!(texts > 50, "only {texts} texts");
}
