// SPDX-License-Identifier: GPL-2.0

//! What the kernel's own benchmark of the parser told, when it booted.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, ensure};
use nix::libc;

use crate::harness::Session;
use crate::keys::{Case, Group};

/// Reads the kernel's log, in which the benchmark writes `nextid_benchmark: CASE: T ns for N ids`.
/// Where the clock counts instructions a nanosecond is one.
pub fn measure(session: &mut Session) -> Result<()> {
    const PATH: &str = "/dev/kmsg";

    let mut log =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(PATH).context(PATH)?;
    let mut record = [0; 8192];
    let mut cases: Vec<(Case, Vec<f64>)> = Vec::new();
    loop {
        let len = match log.read(&mut record) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // Older records were overwritten: it goes on with the oldest that is left.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => continue,
            Err(error) => return Err(error).context(PATH),
        };
        let Some((case, each)) = std::str::from_utf8(&record[..len]).ok().and_then(parse) else {
            continue;
        };
        let known = Group::Parser.cases().iter().find(|known| known.to_string() == case);
        let case = *known
            .with_context(|| format!("the kernel measured '{case}', which is not in keys.rs"))?;
        match cases.iter_mut().find(|(known, _)| *known == case) {
            Some((_, rounds)) => rounds.push(each),
            None => cases.push((case, vec![each])),
        }
    }
    ensure!(
        !cases.is_empty(),
        "the kernel's log tells nothing: CONFIG_NEXT_ID_BENCHMARK is not set"
    );
    for (case, rounds) in cases {
        session.record(Group::Parser, case, None, rounds);
    }
    Ok(())
}

/// Returns the case, and what one id took.
fn parse(record: &str) -> Option<(&str, f64)> {
    let (case, figures) = record.split_once("nextid_benchmark: ")?.1.split_once(": ")?;
    let (time, ids) = figures.split_once(" ns for ")?;
    let (time, ids): (f64, f64) = (time.parse().ok()?, ids.split(' ').next()?.parse().ok()?);
    Some((case, time / ids))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read() {
        let record = "6,320,512,-;nextid_benchmark: parser and list: 1310720 ns for 65536 ids\n";
        assert_eq!(parse(record), Some(("parser and list", 20.0)));
        assert_eq!(parse("6,1,2,-;nextid_benchmark: none\n"), None);
    }
}
