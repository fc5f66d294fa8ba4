// SPDX-License-Identifier: GPL-2.0

//! Each rule of the grammar, by its number in the ABI.

use core_tests::{Errno, parse};
use kernel::alloc::ledger;

/// Asserts what the core says of each text, and that it is the same of the text in two pieces, cut
/// anywhere.
fn assert_all<T: AsRef<[u8]>>(
    texts: impl IntoIterator<Item = T>,
    expected: Result<&[isize], Errno>,
) {
    for text in texts {
        let text = text.as_ref();
        for cut in 0..=text.len() {
            let (first, second) = text.split_at(cut);
            let parsed = parse([first, second]);
            let shown = text.escape_ascii().to_string();
            assert_eq!(
                parsed.as_deref().map_err(|error| *error),
                expected,
                "{shown:?} cut at {cut}"
            );
        }
    }
}

fn arms<T: AsRef<[u8]>>(ids: &[isize], texts: impl IntoIterator<Item = T>) {
    assert_all(texts, Ok(ids));
}

fn refuses<T: AsRef<[u8]>>(errno: Errno, texts: impl IntoIterator<Item = T>) {
    assert_all(texts, Err(errno));
}

#[test]
fn g1_white_space_separates() {
    arms(&[7, 8], ["LONG2 7 8", "LONG2\t7\n8", "LONG2\x0b7\x0c8", "LONG2\r7 \t\n\x0b\x0c\r 8\n"]);
}

#[test]
fn g1_leading_white_space_is_skipped() {
    arms(&[7], [" LONG 7", "\t\n\x0b\x0c\rLONG 7"]);
    arms(&[], [" \nRESET"]);
}

#[test]
fn g1_nothing_else_is_white_space() {
    refuses(
        Errno::EINVAL,
        [&b"LONG\xa07"[..], b"LONG\x857", b"LONG\x1f7", b"LONG,7", b"LONG 7\x08"],
    );
}

#[test]
fn g1_nul_ends_the_text() {
    arms(&[7], ["LONG 7\0", "LONG 7\08", "LONG 7\0x", "LONG1 7 \0"]);
    arms(&[], ["RESET\0", "RESET\0S"]);
    refuses(Errno::EINVAL, ["\0LONG 7", "LONG\0 7", "LONG \x007", "LONG2 7\0 8", "RESE\0T"]);
}

#[test]
fn g2_keywords() {
    arms(&[4242], ["LONG 4242", "LONG1 4242"]);
    arms(&[7, 512, 9001], ["LONG3 7 512 9001"]);
    arms(&[], ["RESET", "RESET\n"]);
}

#[test]
fn g2_keywords_are_upper_case_and_exact() {
    refuses(
        Errno::EINVAL,
        [
            "long 7",
            "Long 7",
            "lONG 7",
            "LONg 7",
            "LON 7",
            "LON1 7",
            "L2 7 8",
            "LONGS 7",
            "LLONG 7",
            "reset",
            "rESET",
            "RESE",
            "RESETS",
            "RESET1",
            "RESETRESET",
        ],
    );
}

#[test]
fn g3_decimal_octal_hexadecimal() {
    arms(
        &[10],
        ["LONG 10", "LONG +10", "LONG 012", "LONG 0000012", "LONG 0xa", "LONG 0XA", "LONG +0x0a"],
    );
    arms(&[0], ["LONG 0", "LONG 00", "LONG -0", "LONG +0", "LONG 0x0"]);
    arms(&[-10], ["LONG -10", "LONG -012", "LONG -0xA"]);
}

#[test]
fn g3_a_number_is_all_of_its_word() {
    refuses(
        Errno::EINVAL,
        [
            "LONG x",
            "LONG 7x",
            "LONG 7,8",
            "LONG -",
            "LONG +",
            "LONG +-7",
            "LONG --7",
            "LONG - 7",
            "LONG 08",
            "LONG 0x",
            "LONG -0x",
            "LONG 0xg",
            "LONG 0x+7",
            "LONG 0x 7",
            "LONG 0b1",
            "LONG 0o7",
            "LONG 7a",
            "LONG a",
            "LONG 7-",
            "LONG 7:",
            "LONG 7/",
            "LONG 7.0",
            "LONG 1e3",
            "LONG 00x7",
        ],
    );
}

#[test]
fn g3_an_id_fits_a_long() {
    let (max, min) = (isize::MAX, isize::MIN);
    arms(&[max], [format!("LONG {max}"), format!("LONG {max:#x}"), format!("LONG 0{max:o}")]);
    arms(&[min], [format!("LONG {min}"), format!("LONG -{min:#x}"), format!("LONG -0{min:o}")]);
}

#[test]
fn g3_an_id_beyond_long_is_erange() {
    let (above, below) = (isize::MAX as i128 + 1, isize::MIN as i128 - 1);
    let texts = [
        format!("LONG {above}"),
        format!("LONG {below}"),
        format!("LONG {above:#x}"),
        format!("LONG 0{above:o}"),
        format!("LONG 0x1{:032x}", 0),
        format!("LONG -{}", "9".repeat(60)),
        format!("LONG2 {above} malformed"),
    ];
    refuses(Errno::ERANGE, texts);
}

#[test]
fn g3_malformed_comes_before_out_of_range() {
    refuses(
        Errno::EINVAL,
        [
            "LONG 99999999999999999999x",
            "LONG 0x1000000000000000000g",
            "LONG99999999999999999999x 7",
        ],
    );
}

#[test]
fn g3_a_count_is_a_number_too() {
    arms(&[7, 8], ["LONG2 7 8", "LONG+2 7 8", "LONG02 7 8", "LONG0x2 7 8", "LONG0X2 7 8"]);
    refuses(
        Errno::EINVAL,
        ["LONGx 7", "LONG1x 7", "LONG08 7", "LONG0x 7", "LONG+ 7", "LONG- 7", "LONG1,7"],
    );
}

#[test]
fn g3_a_count_below_1_is_einval() {
    refuses(
        Errno::EINVAL,
        ["LONG0", "LONG0 7", "LONG-1 7", "LONG-0 7", "LONG-99999999999999999999 7"],
    );
}

#[test]
fn g3_a_count_above_65536_is_e2big() {
    refuses(Errno::E2BIG, ["LONG65537 7", "LONG0x10001", "LONG99999999999999999999 7"]);
    refuses(Errno::EINVAL, ["LONG65536 7", "LONG0x10000"]);
}

#[test]
fn g3_65536_ids() {
    let ids: Vec<isize> = (-32768..32768).collect();
    let words: Vec<String> = ids.iter().map(isize::to_string).collect();
    let text = format!("LONG65536 {}", words.join(" "));
    assert_eq!(parse([text.as_bytes()]), Ok(ids.clone()));
    assert_eq!(parse(text.as_bytes().chunks(256)), Ok(ids));
}

#[test]
fn g4_fewer_ids_is_einval() {
    refuses(Errno::EINVAL, ["LONG", "LONG ", "LONG1", "LONG2 7", "LONG2 7\n", "LONG3 7 8 "]);
}

#[test]
fn g4_text_after_the_last_id_is_skipped() {
    arms(&[7], ["LONG 7 8", "LONG 7 x", "LONG 7 99999999999999999999", "LONG1 7\nRESET"]);
    arms(&[], ["RESET x", "RESET\nLONG 7"]);
}

#[test]
fn g5_an_empty_command_or_another_word_is_einval() {
    refuses(Errno::EINVAL, ["", " ", "\n", "\0", "4242", "SHORT 7", "-", "?"]);
}

#[test]
fn s4_memory_that_runs_short_is_enomem() {
    let text = format!("LONG2000 {}", "7 ".repeat(2000));
    let mut budget = 0;
    loop {
        ledger::allow(budget);
        let parsed = parse([text.as_bytes()]);
        ledger::allow(usize::MAX);
        assert_eq!(ledger::held(), 0, "leaked where allocation {budget} failed");
        match parsed {
            Err(errno) => assert_eq!(errno, Errno::ENOMEM),
            Ok(ids) => break assert_eq!(ids, [7; 2000]),
        }
        budget += 1;
    }
    assert!(budget > 3, "2000 ids need 4 blocks");
}
