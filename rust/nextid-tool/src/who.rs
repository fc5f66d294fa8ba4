// SPDX-License-Identifier: GPL-2.0

//! `nextid who`: who has an id.

use std::fmt;
use std::process::ExitCode;

use nextid::{Holder, Kind, holders};
use serde::Serialize;

use crate::cli::ObjectIds;
use crate::{failure, report};

#[derive(Serialize)]
pub struct Holders {
    #[serde(serialize_with = "report::holders")]
    holders: Vec<Holder>,
    /// The ids that nobody has.
    #[serde(skip)]
    others: Vec<(Kind, i64)>,
}

impl Holders {
    /// Finds out who has `ids`.
    pub fn of(ids: &ObjectIds) -> Self {
        let mut all = Self { holders: Vec::new(), others: Vec::new() };
        for (kind, ids) in ids.lists() {
            let mut holders = holders(kind, ids);
            holders.sort_by_key(Holder::id);
            let is_held = |id| holders.iter().any(|holder| holder.id() == id);
            all.others.extend(ids.iter().filter(|&&id| !is_held(id)).map(|&id| (kind, id)));
            all.holders.append(&mut holders);
        }
        all
    }

    /// Tells a program what the text tells people.
    pub fn exit_code(&self) -> ExitCode {
        if self.holders.is_empty() { ExitCode::SUCCESS } else { failure::IN_USE.into() }
    }
}

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for holder in &self.holders {
            writeln!(f, "{holder}")?;
        }
        for (kind, id) in &self.others {
            writeln!(f, "{kind} {id}: /proc shows nobody who has it")?;
        }
        Ok(())
    }
}
