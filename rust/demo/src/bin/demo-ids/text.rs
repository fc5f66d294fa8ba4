// SPDX-License-Identifier: GPL-2.0

//! Ids as text.

use nextid::Id;

/// Ids as they are written to the file, long lists shortened.
pub fn ids(ids: &[Id]) -> String {
    let text = |ids: &[Id]| ids.iter().map(Id::to_string).collect::<Vec<_>>().join(" ");
    match ids {
        [first @ .., last] if first.len() > 5 => format!("{} … {last}", text(&first[..3])),
        _ => text(ids),
    }
}
