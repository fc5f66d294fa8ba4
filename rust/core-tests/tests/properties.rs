// SPDX-License-Identifier: GPL-2.0

//! The core against the oracle, over texts of all kinds.

use core_tests::{check, oracle, parse};
use proptest::prelude::*;
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
        (prop::sample::select(borders.to_vec()), -2..=2_i128, any::<bool>()).prop_map(
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

/// Words with what separates them, mostly as they should be.
fn words(count: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = (usize, String)> {
    let good = prop_oneof![
        any::<isize>().prop_map(|id| format!(" {id}")),
        "[ \n\t]{1,3}0x[0-9a-fA-F]{1,15}"
    ];
    let any = (space(), word()).prop_map(|(space, word)| space + &word);
    let words = prop::collection::vec(prop_oneof![60 => good, 1 => any], count);
    words.prop_map(|words| (words.len(), words.concat()))
}

/// A text that looks like a command.
fn command() -> impl Strategy<Value = String> {
    let keyword = prop_oneof![
        1 => Just("RESET".to_owned()),
        1 => "[A-Z]{0,6}",
        4 => (space(), word()).prop_map(|(space, word)| format!("LONG{space}{word}")),
        8 => words(0..40).prop_map(|(count, words)| format!("LONG{count}{words}")),
        1 => words(500..600).prop_map(|(count, words)| format!("LONG{count}{words}")),
        2 => (word(), words(0..4)).prop_map(|(count, (_, words))| format!("LONG{count}{words}")),
    ];
    ("[ \n]{0,2}", keyword, space(), word())
        .prop_map(|(lead, text, space, rest)| lead + &text + &space + &rest)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes(text in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&text);
    }

    #[test]
    fn bytes_of_the_grammar(text in "[LONGRESTlong0-9xXa-f+\\- \t\n\x0b\x0c\r\0]{0,60}") {
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
        prop_assert_eq!(parse(pieces), oracle::parse(text));
    }
}

/// The texts above are worth something only if enough of them are commands, and enough are not.
#[test]
fn commands_are_of_all_kinds() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::new(config());
    let mut outcomes = std::collections::HashMap::<_, usize>::new();
    for _ in 0..4000 {
        let text = command().new_tree(&mut runner).expect("a text").current();
        let outcome = oracle::parse(text.as_bytes()).map(|ids| ids.len().min(33));
        *outcomes.entry(format!("{outcome:?}")).or_default() += 1;
    }
    for outcome in
        ["Ok(0)", "Ok(1)", "Ok(32)", "Ok(33)", "Err(EINVAL)", "Err(ERANGE)", "Err(E2BIG)"]
    {
        let seen = outcomes.get(outcome).copied().unwrap_or_default();
        assert!(seen >= 10, "only {seen} of 4000 texts are {outcome}: {outcomes:?}");
    }
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
