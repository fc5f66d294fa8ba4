// SPDX-License-Identifier: GPL-2.0

//! What was measured of restores of dumps, as a table and in a sentence.

use std::fmt::Write;

use anyhow::Result;

use crate::data::{self, Measurement, Unit};
use crate::keys::{Case, Group, Kernel};
use crate::number::thousands;
use crate::results::Results;

/// All kinds of dumps.
const DUMPS: [Group; 4] =
    [Group::DumpOfThreads, Group::DumpOfBoth, Group::DumpOfProcesses, Group::DumpOfObjects];

/// The part of the page that is about them.
pub fn section(results: &Results) -> Result<String> {
    let mut text = String::from(
        "| dump | restored by | system calls | instructions, in millions | ms |\n\
         | --- | --- | ---: | ---: | ---: |\n",
    );
    for group in DUMPS {
        for &case in group.cases() {
            let of = |unit| measured(results, unit, group, case);
            let all = [Unit::SystemCalls, Unit::Instructions, Unit::Nanoseconds].map(of);
            let Some(size) = all.iter().flatten().find_map(|m| m.size) else { continue };
            let [calls, instructions, time] = all;
            #[expect(clippy::cast_precision_loss, reason = "a count of objects")]
            let name = format!("{} {group}", thousands(size as f64));
            writeln!(
                text,
                "| {} | {case} | {} | {} | {} |",
                if case == Case::Criu { &name } else { "" },
                spread(calls, 1.0),
                spread(instructions, 1e6),
                spread(time, 1e6),
            )?;
        }
    }
    text.push('\n');
    text.push_str(&sentence(results));
    Ok(text)
}

fn measured(results: &Results, unit: Unit, group: Group, case: Case) -> Option<&Measurement> {
    results.group(Kernel::On, unit, group).into_iter().find(|m| m.case == case)
}

/// A measurement's median, and all that it was between, in so many units.
fn spread(measurement: Option<&Measurement>, unit: f64) -> String {
    let Some(measurement) = measurement else { return "–".to_owned() };
    let [least, median, most] =
        [0.0, 0.5, 1.0].map(|share| thousands(data::quantile(&measurement.rounds, share) / unit));
    let rounds = measurement.rounds.len();
    if least == most {
        format!("{median} [{rounds}]")
    } else {
        format!("{median} ({least}–{most}) [{rounds}]")
    }
}

/// How much the patches change, from the dump for which that is least to the one for which it is
/// most.
fn sentence(results: &Results) -> String {
    let range = |unit, case| {
        let shares = DUMPS.iter().filter_map(|&group| {
            let of = |case| measured(results, unit, group, case).map(Measurement::median);
            Some(100.0 * of(case)? / of(Case::Criu)?)
        });
        let mut shares: Vec<f64> = shares.collect();
        shares.sort_by(f64::total_cmp);
        let ends = shares.first().zip(shares.last());
        ends.map_or("–".to_owned(), |(least, most)| format!("{least:.1} % to {most:.1} %"))
    };
    let [calls, instructions] = [Unit::SystemCalls, Unit::Instructions]
        .map(|unit| [Case::CriuPatched, Case::NextidRestore].map(|case| range(unit, case)));
    format!(
        "Of the system calls that CRIU makes as it is, it makes {} with the patches, and of the \
         instructions it takes {}; `nextid`, which restores the skeleton alone, makes {} of the \
         system calls, and takes {} of the instructions.\n",
        calls[0], instructions[0], calls[1], instructions[1]
    )
}
