// SPDX-License-Identifier: GPL-2.0

//! New namespaces.

use anyhow::Result;
use nix::sched::{CloneFlags, unshare};

use crate::failure::NoNamespace;

/// Moves this process to a namespace of its own, or its children, where `flag` is of pid
/// namespaces.
pub fn enter_new(kind: &'static str, flag: CloneFlags) -> Result<()> {
    unshare(flag).map_err(|error| NoNamespace { kind, error }.into())
}
