// SPDX-License-Identifier: GPL-2.0

//! What a command prints: text for people, JSON for programs.

use std::fmt::Display;
use std::io::{BufWriter, Write};

use anstyle::{AnsiColor, Style};
use anyhow::Result;
use nextid::{Holder, IpcKind, Kind, Role};
use serde::{Serialize, Serializer};

/// The style of what is wrong.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// The style of what a user should know.
pub const NOTE: Style = AnsiColor::Yellow.on_default();

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

/// Who has an id, for programs.
#[derive(Serialize)]
#[serde(tag = "role", rename_all = "lowercase")]
enum HolderView<'a> {
    Task { kind: &'a str, id: i64, pid: i32, name: &'a str },
    Thread { kind: &'a str, id: i64, pid: i32, name: &'a str },
    Group { kind: &'a str, id: i64, pid: i32, name: &'a str },
    Session { kind: &'a str, id: i64, pid: i32, name: &'a str },
    Object { kind: &'a str, id: i64, object: i64, key: i32, uid: u32 },
    Reservation { kind: &'a str, id: i64, pid: i32, name: &'a str },
}

impl<'a> HolderView<'a> {
    /// None for what this version of the tool knows nothing of.
    fn new(holder: &'a Holder) -> Option<Self> {
        let word = |kind: IpcKind| Kind::from(kind).word();
        let task = Kind::Task.word();
        Some(match *holder {
            Holder::Task { id, role, pid, ref name } => match role {
                Role::Task => Self::Task { kind: task, id, pid, name },
                Role::Thread => Self::Thread { kind: task, id, pid, name },
                Role::Group => Self::Group { kind: task, id, pid, name },
                Role::Session => Self::Session { kind: task, id, pid, name },
                _ => return None,
            },
            Holder::Object { id, kind, object, key, uid } => {
                Self::Object { kind: word(kind), id, object, key, uid }
            }
            Holder::Reservation { id, kind, pid, ref name } => {
                Self::Reservation { kind: kind.word(), id, pid, name }
            }
            _ => return None,
        })
    }
}

/// Prints holders for programs.
pub fn holders<S: Serializer>(holders: &[Holder], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(holders.iter().filter_map(HolderView::new))
}
