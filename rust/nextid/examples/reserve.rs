// SPDX-License-Identifier: GPL-2.0

//! Holds pids for five seconds, or tells who is in the way.
//!
//! It takes root, and a kernel with `CONFIG_NEXT_ID`: `cargo run --example reserve 4242 4243`

use std::env::args;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use nextid::{Kind, Reservation};

fn main() -> ExitCode {
    let Ok(pids) = args().skip(1).map(|pid| pid.parse()).collect::<Result<Vec<i64>, _>>() else {
        eprintln!("usage: reserve PID...");
        return ExitCode::from(2);
    };
    match Reservation::new([(Kind::Task, &*pids)]) {
        Ok(_held) => {
            println!("for five seconds, nothing gets one of {pids:?} but who names it");
            sleep(Duration::from_secs(5));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            for holder in error.holders() {
                eprintln!("  {holder}");
            }
            ExitCode::FAILURE
        }
    }
}
