// SPDX-License-Identifier: GPL-2.0

//! What is kept of the rounds: how many there were, and their quartiles.

use anyhow::Result;
use serde::Serialize;

use crate::data::{self, Run, Unit};
use crate::keys::{Case, Group, Kernel};

/// One measurement, for one operation.
#[derive(Serialize)]
struct Row {
    kernel: Kernel,
    group: Group,
    case: Case,
    size: Option<u64>,
    unit: Unit,
    rounds: usize,
    lower_quartile: String,
    median: String,
    upper_quartile: String,
}

/// The quartiles of `runs`, as CSV.
pub fn csv(runs: &[Run]) -> Result<Vec<u8>> {
    let mut table = csv::Writer::from_writer(Vec::new());
    for run in runs {
        for m in &run.measurements {
            let [lower_quartile, median, upper_quartile] =
                data::quartiles(&m.rounds).map(|value| format!("{value:.2}"));
            table.serialize(Row {
                kernel: run.build.kernel,
                group: m.group,
                case: m.case,
                size: m.size,
                unit: m.unit,
                rounds: m.rounds.len(),
                lower_quartile,
                median,
                upper_quartile,
            })?;
        }
    }
    Ok(table.into_inner()?)
}
