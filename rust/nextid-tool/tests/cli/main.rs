// SPDX-License-Identifier: GPL-2.0

//! The tool as its users meet it: what it prints, how it exits, what is there afterwards.
//!
//! It takes root. `--fallback` is given throughout, so that it runs on any kernel; where the kernel
//! has `next_id`, that is used.

mod common;
mod objects;
mod reserve;
mod restore;
mod restore_ipc;
mod restore_trees;
mod run;
mod tell;

use std::process::ExitCode;

fn main() -> ExitCode {
    let hindrances = testing::set_up();
    let parts = [
        run::tests,
        objects::tests,
        reserve::tests,
        tell::tests,
        restore::tests,
        restore_ipc::tests,
        restore_trees::tests,
    ];
    testing::run(parts.iter().flat_map(|tests| tests(&hindrances)).collect())
}
