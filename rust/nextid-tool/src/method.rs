// SPDX-License-Identifier: GPL-2.0

//! How the kernel is told the ids of objects.

use anyhow::{Context, Result};
use nextid::{Error, Method, NextId};

use crate::report::{self, NOTE};

/// Opens the file of this thread, or goes without, and says what is lost where something is.
pub fn open(fallback: bool) -> Result<NextId> {
    let next = match NextId::open() {
        Err(Error::NotSupported(_)) if fallback => NextId::open_or_fallback()?,
        next @ Err(Error::NotSupported(_)) => {
            next.context("without --fallback, this takes next_id")?
        }
        next => next?,
    };
    let kernel = match next.method() {
        Method::NextId => return Ok(next),
        Method::Fallback => "this kernel has no next_id",
        _ => "the next_id of this kernel is an older one",
    };
    report::tell(format_args!("{NOTE}nextid:{NOTE:#} {kernel}; using {}", next.method()));
    Ok(next)
}
