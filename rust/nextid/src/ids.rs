// SPDX-License-Identifier: GPL-2.0

//! Lists of ids.

use std::fmt;
use std::ops::Deref;

/// A list of ids, those of a task innermost pid namespace first.
///
/// Displayed with spaces between them, a long list shortened.
///
/// ```
/// use nextid::Ids;
///
/// assert_eq!(Ids::from(&[7, 512][..]).to_string(), "7 512");
/// assert_eq!(Ids::from_iter(1..=34).to_string(), "1 2 3 … 34");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids(pub Vec<i64>);

impl From<&[i64]> for Ids {
    fn from(ids: &[i64]) -> Self {
        Self(ids.to_vec())
    }
}

impl FromIterator<i64> for Ids {
    fn from_iter<T: IntoIterator<Item = i64>>(ids: T) -> Self {
        Self(ids.into_iter().collect())
    }
}

impl Deref for Ids {
    type Target = [i64];

    fn deref(&self) -> &[i64] {
        &self.0
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// How many of a long list are shown before the last one.
        const FIRST: usize = 3;

        let (shown, last) = match &*self.0 {
            [first @ .., last] if first.len() > 5 => (&first[..FIRST], Some(last)),
            all => (all, None),
        };
        let mut separator = "";
        for id in shown {
            write!(f, "{separator}{id}")?;
            separator = " ";
        }
        last.map_or(Ok(()), |last| write!(f, " … {last}"))
    }
}
