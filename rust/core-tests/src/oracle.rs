// SPDX-License-Identifier: GPL-2.0

//! A direct reading of the grammar, rule by rule, of the text as a whole.
//!
//! It shares nothing with the parser: no state machine, no incremental arithmetic.

use crate::Errno;

/// The most ids that one command may ask for.
pub const MAX_IDS: i128 = 65536;

/// Returns the ids that the command `text` arms: none for `RESET`.
///
/// # Errors
///
/// The errno of the first fault in the text.
pub fn parse(text: &[u8]) -> Result<Vec<isize>, Errno> {
    // G1: a NUL byte ends the text, white space separates the words.
    let text = text.split(|&byte| byte == b'\0').next().unwrap_or_default();
    let mut words = text
        .split(|&byte| matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r'))
        .filter(|word| !word.is_empty());

    // G2: the keywords; G5: no word, or any other.
    let keyword = words.next().ok_or(Errno::EINVAL)?;
    if keyword == b"RESET" {
        return Ok(Vec::new());
    }
    let count = match keyword.strip_prefix(b"LONG").ok_or(Errno::EINVAL)? {
        b"" => 1,
        digits => number(digits)?,
    };
    // G3: the limits of a count.
    if count < 1 {
        return Err(Errno::EINVAL);
    }
    if count > MAX_IDS {
        return Err(Errno::E2BIG);
    }

    // G4: as many ids as were asked for; nothing after them counts.
    (0..count)
        .map(|_| {
            let id = number(words.next().ok_or(Errno::EINVAL)?)?;
            // G3: an id fits a long.
            isize::try_from(id).map_err(|_| Errno::ERANGE)
        })
        .collect()
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
