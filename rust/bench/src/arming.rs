// SPDX-License-Identifier: GPL-2.0

//! What it costs to say which id is next.

use anyhow::Result;

use crate::harness::{Case, Session};
use crate::ids::NEXT_ID;
use crate::sys::{IdFile, Kind, getpid, write_once};

/// Measures a write to `next_id` beside other writes, and beside none. The numbers are all as long.
pub fn measure(session: &mut Session) -> Result<()> {
    let next_id = IdFile::open(NEXT_ID)?;
    let oom_score_adj = IdFile::open(c"/proc/self/oom_score_adj")?;
    let timerslack = IdFile::open(c"/proc/self/timerslack_ns")?;
    let sysctl_path = Kind::Message.sysctl();
    let sysctl = IdFile::open(sysctl_path)?;

    let cases = vec![
        Case::new("getpid()", || {
            getpid();
            Ok(())
        }),
        Case::new("oom_score_adj", || oom_score_adj.write(b"-999")),
        Case::new("timerslack_ns", || timerslack.write(b"4242")),
        Case::new("next_id", || next_id.write(b"LONG 4242")),
        Case::new("msg_next_id", || sysctl.write_at_start(b"4242")),
        Case::new("next_id, opened anew", || write_once(NEXT_ID, b"LONG 4242")),
        Case::new("msg_next_id, opened anew", || write_once(sysctl_path, b"4242")),
    ];
    session.compare("arming", None, cases)?;

    oom_score_adj.write(b"0")?;
    next_id.write(b"RESET")?;
    // The sysctl cannot be taken back, only used up.
    Ok(Kind::Message.remove(Kind::Message.create()?)?)
}
