// SPDX-License-Identifier: GPL-2.0

//! The programs.

mod containers;
mod servers;
mod shells;
mod start;

use crate::program::Program;

/// All of them, in the order of the table.
pub fn all() -> Vec<Box<dyn Program>> {
    vec![
        Box::new(servers::POSTGRESQL),
        Box::new(servers::REDIS),
        Box::new(servers::NGINX),
        Box::new(servers::PYTHON),
        Box::new(servers::PERL),
        Box::new(shells::Tmux),
        Box::new(shells::Pipeline),
        Box::new(containers::Runc),
        Box::new(containers::Podman),
    ]
}
