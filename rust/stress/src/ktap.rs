// SPDX-License-Identifier: GPL-2.0

//! Results as KTAP, on standard output.

use std::fmt::Display;

/// A series of tests, whose number is known.
pub struct Ktap {
    number: usize,
    failed: usize,
}

impl Ktap {
    pub fn new(tests: usize) -> Self {
        println!("KTAP version 1\n1..{tests}");
        Self { number: 0, failed: 0 }
    }

    /// Reports a test: passed, where nothing is wrong.
    pub fn report<T: Display>(&mut self, name: impl Display, wrong: impl IntoIterator<Item = T>) {
        let mut result = "ok";
        for line in wrong {
            println!("# {line}");
            result = "not ok";
        }
        self.number += 1;
        self.failed += usize::from(result != "ok");
        println!("{result} {} {name}", self.number);
    }

    pub fn skip(&mut self, name: impl Display, reason: &str) {
        self.number += 1;
        println!("ok {} {name} # SKIP {reason}", self.number);
    }

    /// Returns whether none has failed.
    pub fn passed(&self) -> bool {
        self.failed == 0
    }
}
