// SPDX-License-Identifier: GPL-2.0

//! Creates processes, threads and System V IPC objects with chosen ids, and checks each id from
//! outside.
//!
//! Run it as root on a kernel with `CONFIG_NEXT_ID=y`. It exits with 0 only if each object has the
//! ids that were asked for, and each request that must be refused was.

mod compare;
mod create;
mod observe;
mod refusals;
mod reservations;
mod scenario;

use std::process::ExitCode;

use anstream::{eprintln, println};
use anyhow::{Result, bail, ensure};
use demo::{BAD, GOOD};
use nextid::NextId;
use nix::unistd::geteuid;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{BAD}demo-ids:{BAD:#} {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all was as asked.
fn run() -> Result<bool> {
    let kernel = nix::sys::utsname::uname()?;
    let release = kernel.release().to_string_lossy();
    if let Err(error) = NextId::open() {
        bail!("{error} (Linux {release}); `make run` boots a kernel that has it");
    }
    ensure!(geteuid().is_root(), "this must be run as root");

    println!("Objects with chosen ids, by /proc/thread-self/next_id, on Linux {release}.");
    println!("Ids are listed from the innermost pid namespace outwards, as they were written.");

    let mut ids = 0;
    let mut wrong = 0;
    for scenario in scenario::ALL {
        let outcome = compare::run(scenario)?;
        ids += outcome.ids;
        wrong += outcome.wrong;
    }
    let outcome = reservations::run()?;
    ids += outcome.ids;
    wrong += outcome.wrong;
    let failed = refusals::run()?;

    println!();
    if wrong > 0 {
        println!("{BAD}{wrong} of {ids} ids not as asked{BAD:#}");
    } else if failed > 0 {
        println!("{BAD}{failed} requests not refused as they must be{BAD:#}");
    } else {
        println!("{GOOD}all {ids} ids as asked{GOOD:#}");
    }
    Ok(wrong == 0 && failed == 0)
}
