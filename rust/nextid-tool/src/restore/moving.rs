// SPDX-License-Identifier: GPL-2.0

//! A restore by another process, where the dump has the id of this one.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nextid::{Holder, Kind, NextId, Pids, holders};
use nix::sys::signal::kill;
use nix::unistd::{getpid, setsid};

use super::survey::Survey;
use crate::failure;
use crate::report::{self, NOTE};

/// How long the other process waits until this one has ended.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Lets a process with an id that the dump does not have do what `restore` does, once this one has
/// ended and has given back its own.
pub fn restore_with_another_id(
    mut next: NextId,
    survey: &Survey,
    restore: impl FnOnce() -> Result<ExitCode>,
) -> Result<()> {
    let taken = survey.plan.ids(survey.dump);
    let used = holders(Kind::Task, &(301..1301).collect::<Vec<_>>());
    let used: Vec<i64> = used.iter().map(Holder::id).chain(taken).collect();
    let spare = (301..1301).find(|id| !used.contains(id)).context("no id is free for nextid")?;
    report::tell(format_args!(
        "{NOTE}nextid:{NOTE:#} the dump has its id, {}; it goes on as process {spare} when this one \
         has ended, and tells there how that went",
        getpid()
    ));
    let parent = getpid();
    let _ = next.arm(Pids(&[spare]))?.fork(|| {
        // Its session and its group may have that id, too.
        let _ = setsid();
        let start = Instant::now();
        while kill(parent, None).is_ok() && start.elapsed() < TIMEOUT {
            sleep(Duration::from_millis(10));
        }
        match restore() {
            Ok(_) => 0,
            Err(error) => {
                failure::tell(&error);
                failure::status(&error).into()
            }
        }
    })?;
    Ok(())
}
