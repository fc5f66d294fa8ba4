// SPDX-License-Identifier: GPL-2.0

//! The parser of a kernel that has neither System V IPC nor ptys.

#![cfg(test)]
#![allow(clippy::duplicate_mod)]

/// Takes the place of the compiler's own macro: no option is on.
macro_rules! cfg {
    ($option:ident) => {
        false
    };
}

include!(concat!(env!("OUT_DIR"), "/modules.rs"));

use std::ops::ControlFlow;

use parser::{ParseError, Parser};

fn parse(text: &str) -> Result<ControlFlow<()>, ParseError> {
    Parser::new().feed(text.as_bytes(), true, &mut |_, _| Ok(()))
}

#[test]
fn k1_the_word_of_what_there_is_not_is_einval() {
    for text in ["MSG 7", "SEM 7", "SHM 7", "PTY 7", "RESERVE MSG 7", "RESERVE SEM2 7 8"] {
        assert_eq!(parse(text), Err(ParseError::Malformed), "{text}");
    }
    for text in ["LONG 7", "PID 7", "RESERVE PID 7", "RESET"] {
        assert_eq!(parse(text), Ok(ControlFlow::Break(())), "{text}");
    }
}
