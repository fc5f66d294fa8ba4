// SPDX-License-Identifier: GPL-2.0

//! Each rule of the grammar, by its number in the ABI.

use core_tests::{Command, Errno, parse};
use kernel::alloc::ledger;

/// Asserts what the core says of each text, and that it is the same of the text in two pieces, cut
/// anywhere.
fn assert_all<T: AsRef<[u8]>>(
    texts: impl IntoIterator<Item = T>,
    expected: &Result<Command, Errno>,
) {
    for text in texts {
        let text = text.as_ref();
        for cut in 0..=text.len() {
            let (first, second) = text.split_at(cut);
            let shown = text.escape_ascii();
            assert_eq!(parse([first, second], true), *expected, "\"{shown}\" cut at {cut}");
        }
    }
}

fn arms<T: AsRef<[u8]>>(word: &'static str, ids: &[isize], texts: impl IntoIterator<Item = T>) {
    assert_all(texts, &Ok(Command::Arm(word, ids.to_vec())));
}

fn reserves<T: AsRef<[u8]>>(word: &'static str, ids: &[isize], texts: impl IntoIterator<Item = T>) {
    assert_all(texts, &Ok(Command::Reserve(word, ids.to_vec())));
}

fn resets<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) {
    assert_all(texts, &Ok(Command::Reset));
}

fn refuses<T: AsRef<[u8]>>(errno: Errno, texts: impl IntoIterator<Item = T>) {
    assert_all(texts, &Err(errno));
}

#[test]
fn g1_white_space_separates() {
    arms(
        "LONG",
        &[7, 8],
        ["LONG2 7 8", "LONG2\t7\n8", "LONG2\x0b7\x0c8", "LONG2\r7 \t\n\x0b\x0c\r 8\n"],
    );
}

#[test]
fn g1_leading_white_space_is_skipped() {
    arms("LONG", &[7], [" LONG 7", "\t\n\x0b\x0c\rLONG 7"]);
    resets([" \nRESET"]);
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
    arms("LONG", &[7], ["LONG 7\0", "LONG 7\08", "LONG 7\0x", "LONG1 7 \0"]);
    resets(["RESET\0", "RESET\0S"]);
    refuses(Errno::EINVAL, ["\0LONG 7", "LONG\0 7", "LONG \x007", "LONG2 7\0 8", "RESE\0T"]);
}

#[test]
fn g2_keywords() {
    arms("LONG", &[4242], ["LONG 4242", "LONG1 4242"]);
    arms("LONG", &[7, 512, 9001], ["LONG3 7 512 9001"]);
    resets(["RESET", "RESET\n"]);
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
        "LONG",
        &[10],
        ["LONG 10", "LONG +10", "LONG 012", "LONG 0000012", "LONG 0xa", "LONG 0XA", "LONG +0x0a"],
    );
    arms("LONG", &[0], ["LONG 0", "LONG 00", "LONG -0", "LONG +0", "LONG 0x0"]);
    arms("LONG", &[-10], ["LONG -10", "LONG -012", "LONG -0xA"]);
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
    arms(
        "LONG",
        &[max],
        [format!("LONG {max}"), format!("LONG {max:#x}"), format!("LONG 0{max:o}")],
    );
    arms(
        "LONG",
        &[min],
        [format!("LONG {min}"), format!("LONG -{min:#x}"), format!("LONG -0{min:o}")],
    );
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
    arms("LONG", &[7, 8], ["LONG2 7 8", "LONG+2 7 8", "LONG02 7 8", "LONG0x2 7 8", "LONG0X2 7 8"]);
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
    let expected = Ok(Command::Arm("LONG", ids));
    assert_eq!(parse([text.as_bytes()], true), expected);
    assert_eq!(parse(text.as_bytes().chunks(256), true), expected);
}

#[test]
fn g4_fewer_ids_is_einval() {
    refuses(Errno::EINVAL, ["LONG", "LONG ", "LONG1", "LONG2 7", "LONG2 7\n", "LONG3 7 8 "]);
}

#[test]
fn g4_text_after_the_last_id_is_skipped() {
    arms("LONG", &[7], ["LONG 7 8", "LONG 7 x", "LONG 7 99999999999999999999", "LONG1 7\nRESET"]);
    resets(["RESET x", "RESET\nLONG 7"]);
}

#[test]
fn g5_an_empty_command_or_another_word_is_einval() {
    refuses(Errno::EINVAL, ["", " ", "\n", "\0", "4242", "SHORT 7", "-", "?"]);
}

#[test]
fn s1_a_refusal_comes_with_the_first_id() {
    let refused = |texts: &[&str], errno| {
        for text in texts {
            assert_eq!(parse([text.as_bytes()], false), Err(errno), "{text:?}");
            assert_eq!(parse(text.as_bytes().chunks(1), false), Err(errno), "{text:?}, in bytes");
        }
    };
    refused(&["LONG 7", "LONG2 7", "LONG2 7 x", "PID2 7 0", "PTY 7"], Errno::EPERM);
    refused(&["RESERVE PID 7", "RESERVE SHM65536 7", "RESERVE MSG2 7 -1"], Errno::EPERM);
    refused(&["LONG", "LONG x", "LONG0 7", "PID 0", "PID34 7", "MSG2 7 8"], Errno::EINVAL);
    refused(&["RESERVE", "RESERVE PTY 7", "RESERVE PID 0"], Errno::EINVAL);
    refused(&["LONG 9223372036854775808", "RESERVE PID 9223372036854775808"], Errno::ERANGE);
    refused(&["LONG65537 7", "RESERVE PID65537 7"], Errno::E2BIG);
    assert_eq!(parse([&b"RESET"[..]], false), Ok(Command::Reset));
}

#[test]
fn s4_memory_that_runs_short_is_enomem() {
    let text = format!("LONG2000 {}", "7 ".repeat(2000));
    let mut budget = 0;
    loop {
        ledger::allow(budget);
        let parsed = parse([text.as_bytes()], true);
        ledger::allow(usize::MAX);
        assert_eq!(ledger::held(), 0, "leaked where allocation {budget} failed");
        match parsed {
            Err(errno) => assert_eq!(errno, Errno::ENOMEM),
            Ok(command) => break assert_eq!(command, Command::Arm("LONG", vec![7; 2000])),
        }
        budget += 1;
    }
    assert!(budget > 3, "2000 ids need 4 blocks");
}

#[test]
fn k1_a_word_for_each_kind() {
    for word in ["PID", "MSG", "SEM", "SHM", "PTY"] {
        arms(
            word,
            &[42],
            [format!("{word} 42"), format!(" {word}\t0x2a\n"), format!("{word} 052")],
        );
        // K2: one command is one request.
        arms(word, &[42], [format!("{word} 42 43"), format!("{word} 42\nLONG 43")]);
        refuses(Errno::EINVAL, [word.to_owned(), format!("{word} LONG 42")]);
    }
}

#[test]
fn k1_words_are_upper_case_and_exact() {
    refuses(
        Errno::EINVAL,
        [
            "pid 7",
            "Pid 7",
            "PId 7",
            "PI 7",
            "P 7",
            "PIDS 7",
            "PIDPID 7",
            "PTYS 7",
            "PT 7",
            "PTD 7",
            "PIY 7",
            "MS 7",
            "MSGS 7",
            "SEG 7",
            "SE 7",
            "SEMS 7",
            "SHMS 7",
            "SHM,7",
            "SM 7",
            "PIDLONG 7",
            "LONGPID 7",
            "LONGRESERVE 7",
            "LONGLONGLONG 7",
            "AAAAAAAAPID 7",
            "TASK 7",
        ],
    );
}

#[test]
fn k1_a_task_has_an_id_a_level() {
    arms("PID", &[7, 512, 9001], ["PID3 7 512 9001", "PID+03 7 512 9001", "PID0x3 7\n512\t9001 x"]);
    refuses(Errno::EINVAL, ["PID0 7", "PID-1 7", "PID2 7", "PIDx 7", "PID1x 7"]);
}

#[test]
fn k1_another_object_has_one_id() {
    for word in ["MSG", "SEM", "SHM", "PTY"] {
        let counts = ["1", "2", "+1", "0", "-1", "01", "0x1", "x", "65536", "65537"];
        refuses(Errno::EINVAL, counts.map(|count| format!("{word}{count} 7 8")));
        refuses(Errno::EINVAL, [format!("{word}{} 7", "9".repeat(30))]);
    }
}

#[test]
fn k4_the_least_and_the_greatest_id() {
    let max = isize::try_from(i32::MAX).unwrap();
    for (word, least) in [("PID", 1), ("MSG", 0), ("SEM", 0), ("SHM", 0), ("PTY", 0)] {
        arms(word, &[least], [format!("{word} {least}"), format!("{word} {least:#x}")]);
        arms(word, &[max], [format!("{word} {max}"), format!("{word} {max:#x}")]);

        let (below, above) = (least - 1, max + 1);
        let ids =
            [format!("{below}"), format!("{above}"), format!("{above:#x}"), format!("-{max}")];
        refuses(Errno::EINVAL, ids.map(|id| format!("{word} {id}")));
        refuses(Errno::EINVAL, [isize::MAX, isize::MIN].map(|id| format!("{word} {id}")));
        refuses(Errno::ERANGE, [format!("{word} {}", isize::MAX as i128 + 1)]);
        refuses(Errno::ERANGE, [format!("{word} {}", isize::MIN as i128 - 1)]);
    }
}

#[test]
fn k4_each_id_is_checked() {
    refuses(Errno::EINVAL, ["PID2 0 7", "PID2 7 0", "PID3 7 512 -1", "PID2 7 2147483648"]);
    arms("LONG", &[0, -1, 2_147_483_648], ["LONG3 0 -1 2147483648"]);
}

#[test]
fn k4_33_levels() {
    let ids: Vec<isize> = (1..=33).collect();
    let words: Vec<String> = ids.iter().map(isize::to_string).collect();
    let words = words.join(" ");
    arms("PID", &ids, [format!("PID33 {words}"), format!("PID0x21 {words} 34")]);
    refuses(Errno::EINVAL, [format!("PID34 {words} 34"), format!("PID65536 {words}")]);
    refuses(Errno::E2BIG, [format!("PID65537 {words}"), format!("PID{} 7", "9".repeat(30))]);
}

#[test]
fn the_first_token_at_fault_decides() {
    let above = isize::MAX as i128 + 1;
    refuses(Errno::EINVAL, [format!("PID2 0 {above}"), format!("LONG2 x {above}")]);
    refuses(Errno::EINVAL, [format!("PIDS65537 {above}"), format!("PID34 {above}")]);
    refuses(Errno::EINVAL, [format!("RESERVE LONG65537 {above}"), format!("RESERVE PTY {above}")]);
    refuses(Errno::ERANGE, [format!("PID2 {above} 0"), format!("RESERVE SEM2 {above} -1")]);
    refuses(Errno::E2BIG, [format!("PID65537 {above}")]);
    refuses(Errno::E2BIG, ["RESERVE SEM65537 x"]);
}

#[test]
fn v1_reserves() {
    for word in ["PID", "MSG", "SEM", "SHM"] {
        reserves(word, &[42], [format!("RESERVE {word} 42"), format!("\tRESERVE\n{word}1 052 x")]);
        reserves(
            word,
            &[9, 7, 7],
            [format!("RESERVE {word}3 9 7 0x7"), format!("RESERVE {word}+03 9 7 7")],
        );
    }
}

#[test]
fn v1_reserves_what_has_numbers_of_one_namespace() {
    refuses(
        Errno::EINVAL,
        [
            "RESERVE LONG 7",
            "RESERVE LONG1 7",
            "RESERVE PTY 7",
            "RESERVE PTY1 7",
            "RESERVE RESET",
            "RESERVE RESERVE PID 7",
            "RESERVE 7",
        ],
    );
}

#[test]
fn v1_the_word_is_exact() {
    refuses(
        Errno::EINVAL,
        [
            "reserve PID 7",
            "RESERV PID 7",
            "RESERVED PID 7",
            "RESERVEPID 7",
            "RESERVE1 PID 7",
            "RESERVE,PID 7",
            "RESETVE PID 7",
            "RESERVE pid 7",
            "RESERVE PIDS 7",
            "RESERVE\0PID 7",
            "PID RESERVE 7",
            "RESERVE",
            "RESERVE ",
            "RESERVE PID",
            "RESERVE PID2 7",
        ],
    );
}

#[test]
fn v1_ids_are_checked() {
    let max = isize::try_from(i32::MAX).unwrap();
    for (word, least) in [("PID", 1), ("MSG", 0), ("SEM", 0), ("SHM", 0)] {
        reserves(word, &[least, max], [format!("RESERVE {word}2 {least} {max}")]);
        refuses(Errno::EINVAL, [format!("RESERVE {word} {}", least - 1)]);
        refuses(Errno::EINVAL, [format!("RESERVE {word}2 7 {}", least - 1)]);
        refuses(Errno::EINVAL, [format!("RESERVE {word}2 7 {}", max + 1)]);
        refuses(Errno::ERANGE, [format!("RESERVE {word} {}", isize::MAX as i128 + 1)]);
    }
}

#[test]
fn v1_65536_ids() {
    let ids: Vec<isize> = (1..=65536).collect();
    let words: Vec<String> = ids.iter().map(isize::to_string).collect();
    let words = words.join(" ");
    for word in ["PID", "MSG", "SEM", "SHM"] {
        let text = format!("RESERVE {word}65536 {words}");
        assert_eq!(parse([text.as_bytes()], true), Ok(Command::Reserve(word, ids.clone())));
        refuses(Errno::E2BIG, [format!("RESERVE {word}65537 1")]);
        refuses(Errno::EINVAL, [format!("RESERVE {word}65536 1"), format!("RESERVE {word}0 1")]);
    }
}
