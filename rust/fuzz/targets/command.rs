// SPDX-License-Identifier: GPL-2.0

//! Commands: the kernel's parser and list against the oracle, whole and in pieces.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &[u8]| core_tests::check(text));
