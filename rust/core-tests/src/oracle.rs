// SPDX-License-Identifier: GPL-2.0

//! A direct reading of the grammar, rule by rule, of the text as a whole.
//!
//! It shares nothing with the parser: no state machine, no incremental arithmetic.

use std::ops::RangeInclusive;

use crate::command::{Command, Errno};

/// G3: the most ids that one command may ask for.
const MAX_IDS: i128 = 65536;

/// K4: how deep pid namespaces nest.
const MAX_LEVELS: i128 = 33;

const INT_MAX: i128 = i32::MAX as i128;

/// A word that asks for ids.
struct Word {
    name: &'static str,
    /// K4: the ids that such an object could have.
    ids: RangeInclusive<i128>,
    /// K1, K4: how many ids one object could have.
    most: i128,
    /// V1: whether `RESERVE` may stand before it.
    reserves: bool,
}

/// G2, K1: none of these is how another begins.
const WORDS: [Word; 6] = [
    Word { name: "LONG", ids: i128::MIN..=i128::MAX, most: MAX_IDS, reserves: false },
    Word { name: "PID", ids: 1..=INT_MAX, most: MAX_LEVELS, reserves: true },
    Word { name: "MSG", ids: 0..=INT_MAX, most: 1, reserves: true },
    Word { name: "SEM", ids: 0..=INT_MAX, most: 1, reserves: true },
    Word { name: "SHM", ids: 0..=INT_MAX, most: 1, reserves: true },
    Word { name: "PTY", ids: 0..=INT_MAX, most: 1, reserves: false },
];

/// Returns what the command `text` asks for, of a writer who may do so only if `may_arm`.
///
/// # Errors
///
/// The errno of the first fault in the text.
pub fn parse(text: &[u8], may_arm: bool) -> Result<Command, Errno> {
    // G1: a NUL byte ends the text, white space separates the tokens.
    let text = text.split(|&byte| byte == b'\0').next().unwrap_or_default();
    let mut tokens = text
        .split(|&byte| matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r'))
        .filter(|token| !token.is_empty());
    // G4, G5: a token that is missing.
    let mut token = || tokens.next().ok_or(Errno::EINVAL);

    // G2, K1, V1: the words; G5: any other.
    let mut keyword = token()?;
    if keyword == b"RESET" {
        return Ok(Command::Reset);
    }
    let reserve = keyword == b"RESERVE";
    if reserve {
        keyword = token()?;
    }
    let (word, count) = WORDS
        .iter()
        .filter(|word| word.reserves || !reserve)
        .find_map(|word| Some((word, keyword.strip_prefix(word.name.as_bytes())?)))
        .ok_or(Errno::EINVAL)?;

    // G3: a count, and its limits; K1: what has none; V1: a list of different objects.
    let count = match count {
        b"" => 1,
        _ if word.most == 1 && !reserve => return Err(Errno::EINVAL),
        digits => number(digits)?,
    };
    if count > MAX_IDS {
        return Err(Errno::E2BIG);
    }
    if count < 1 || (count > word.most && !reserve) {
        return Err(Errno::EINVAL);
    }

    // G4: as many ids as were asked for; nothing after them counts.
    let ids: Result<_, _> = (0..count)
        .map(|_| {
            let id = number(token()?)?;
            // G3: an id fits a long.
            let long = isize::try_from(id).map_err(|_| Errno::ERANGE)?;
            // K4: there could be such an object.
            if !word.ids.contains(&id) {
                return Err(Errno::EINVAL);
            }
            // S1: an id that is well-formed asks for the permission.
            if may_arm { Ok(long) } else { Err(Errno::EPERM) }
        })
        .collect();
    let command = if reserve { Command::Reserve } else { Command::Arm };
    Ok(command(word.name, ids?))
}

/// G3: the value of a C integer. One beyond 128 bits stands for all that are too large.
fn number(word: &[u8]) -> Result<i128, Errno> {
    let (sign, digits) = match word {
        [b'-', digits @ ..] => (-1, digits),
        _ => (1, word.strip_prefix(b"+").unwrap_or(word)),
    };
    let (radix, digits) = match digits {
        [b'0', b'x' | b'X', digits @ ..] => (16, digits),
        [b'0', ..] => (8, digits),
        digits => (10, digits),
    };
    if digits.is_empty() || !digits.iter().all(|&digit| char::from(digit).is_digit(radix)) {
        return Err(Errno::EINVAL);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| Errno::EINVAL)?;
    Ok(sign * i128::from_str_radix(digits, radix).unwrap_or(i128::MAX))
}
