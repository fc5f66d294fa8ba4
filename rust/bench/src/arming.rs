// SPDX-License-Identifier: GPL-2.0

//! What it costs to say which id is next.

use anyhow::Result;
use nextid::IpcKind;

use crate::harness::{Competitor, Session};
use crate::keys::{Case, Group};
use crate::method::NEXT_ID;
use crate::sys::{self, IdFile, create, getpid, write_once};

/// Measures a write to `next_id` beside other writes, and beside none. The numbers are all as long.
pub fn measure(session: &mut Session) -> Result<()> {
    let next_id = IdFile::open(NEXT_ID)?;
    let oom_score_adj = IdFile::open(c"/proc/self/oom_score_adj")?;
    let timerslack = IdFile::open(c"/proc/self/timerslack_ns")?;
    let sysctl_path = sys::sysctl(IpcKind::MessageQueue);
    let sysctl = IdFile::open(&sysctl_path)?;

    let competitors = vec![
        Competitor::new(Case::Getpid, || {
            getpid();
            Ok(())
        }),
        Competitor::new(Case::OomScoreAdj, || oom_score_adj.write(b"-999")),
        Competitor::new(Case::TimerslackNs, || timerslack.write(b"4242")),
        Competitor::new(Case::NextId, || next_id.write(b"LONG 4242")),
        Competitor::new(Case::MsgNextId, || sysctl.write_at_start(b"4242")),
        Competitor::new(Case::NextIdOpened, || write_once(NEXT_ID, b"LONG 4242")),
        Competitor::new(Case::MsgNextIdOpened, || write_once(&sysctl_path, b"4242")),
    ];
    session.compare(Group::Arming, None, competitors)?;

    oom_score_adj.write(b"0")?;
    next_id.write(b"RESET")?;
    // The sysctl cannot be taken back, only used up.
    Ok(IpcKind::MessageQueue.remove(create(IpcKind::MessageQueue)?)?)
}
