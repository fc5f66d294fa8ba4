// SPDX-License-Identifier: GPL-2.0

//! What a command prints: text for people, JSON for programs.

use std::fmt::Display;
use std::io::{BufWriter, Write};

use anyhow::Result;
use serde::Serialize;

/// Prints `report` on standard output.
pub fn print<R: Display + Serialize>(report: &R, json: bool) -> Result<()> {
    let mut out = BufWriter::new(anstream::stdout());
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(out.flush()?)
}

/// Tells something on standard error, where that can be written to.
pub fn tell(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// A name as it can be shown: it may hold what a terminal would obey.
pub fn printable(name: &str) -> String {
    name.replace(char::is_control, "?")
}
