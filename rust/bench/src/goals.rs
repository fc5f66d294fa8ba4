// SPDX-License-Identifier: GPL-2.0

//! What was to be reached, and what was.

use std::fmt::Write;

use anyhow::Result;

use crate::data::{Contention, Measurement, Restores, Unit};
use crate::keys::{Case, Group, Kernel};
use crate::number::thousands;
use crate::results::Results;

/// At how many levels of pid namespaces processes are compared.
const LEVELS: [u64; 5] = [1, 2, 4, 8, 32];

/// A goal, and what was measured of it, if anything was.
struct Goal {
    what: String,
    measured: Option<Measured>,
}

struct Measured {
    text: String,
    met: bool,
}

/// A table of all goals.
pub fn table(results: &Results) -> Result<String> {
    let mut text = String::from("| goal | measured | |\n| --- | --- | --- |\n");
    for Goal { what, measured } in goals(results) {
        let (measured, verdict) = match &measured {
            None => ("not measured in this run", "–"),
            Some(Measured { text, met: true }) => (text.as_str(), "met"),
            Some(Measured { text, met: false }) => (text.as_str(), "**missed**"),
        };
        writeln!(text, "| {what} | {measured} | {verdict} |")?;
    }
    Ok(text)
}

/// All goals, whatever was measured.
fn goals(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut add = |what: &str, measured| goals.push(Goal { what: what.to_owned(), measured });

    add("without the option, the same object code", object_code(results));
    let kernels = [
        ("", (Kernel::Off, Kernel::On)),
        (", as Debian configures it", (Kernel::Debian, Kernel::DebianNextId)),
    ];
    for (place, kernels) in kernels {
        add(
            &format!("with the option, not used{place}: at most 20 instructions and 0.1 % more"),
            not_used(results, kernels),
        );
    }
    add("at most 12 KiB of code and data", size(results));
    for (place, kernels) in kernels {
        add(
            &format!("task_struct larger by a pointer at most{place}"),
            task_struct(results, kernels),
        );
    }
    add(
        "a write to next_id costs at most one to msg_next_id",
        compare(results, Group::Arming, None, (Case::NextId, 1.0, Case::MsgNextId)),
    );
    for levels in LEVELS {
        let plural = if levels == 1 { "" } else { "s" };
        add(
            &format!("{} at {levels} level{plural}: within 2 % of set_tid", Group::Process),
            compare(results, Group::Process, Some(levels), (Case::NextId, 1.02, Case::SetTid)),
        );
    }
    // The sysctl knows the innermost pid namespace only.
    add(
        &format!("{} at 1 level: at most as ns_last_pid", Group::Process),
        compare(results, Group::Process, Some(1), (Case::NextId, 1.0, Case::Sysctl)),
    );
    add(
        &format!("{}: within 2 % of set_tid", Group::Thread),
        compare(results, Group::Thread, None, (Case::NextId, 1.02, Case::SetTid)),
    );
    add(
        &format!("{}: at most as ns_last_pid", Group::Thread),
        compare(results, Group::Thread, None, (Case::NextId, 1.0, Case::Sysctl)),
    );
    for group in [Group::MessageQueue, Group::SemaphoreSet, Group::SharedMemory] {
        add(
            &format!("{group}: at least twice as fast as CRIU's way"),
            compare(results, group, None, (Case::NextId, 0.5, Case::SysctlAsCriu)),
        );
        add(
            &format!("{group}: ahead of the sysctl on an open descriptor"),
            compare(results, group, None, (Case::NextId, 1.0, Case::Sysctl)),
        );
    }
    add("beside others, no wrong id and no retry", contention(results));
    add("beside others, all restores with a reservation succeed", restores(results));
    for group in [Group::ManyQueues, Group::ManyProcesses] {
        add(
            &format!("{group}: what the id costs does not grow among many"),
            growth(results, group),
        );
    }
    add(
        "lists: what an id costs does not grow from 1,000 ids up",
        flat(results, Group::List, Case::NextId),
    );
    for case in [Case::Dense, Case::Scattered] {
        add(
            &format!("{case} reservations: what an id costs does not grow from 1,000 ids up"),
            flat(results, Group::Reserve, case),
        );
    }
    add(
        "the parser at least twice as fast as simple_strtol() in the loop of 2008",
        compare(results, Group::Parser, None, (Case::Parser, 0.5, Case::SimpleStrtol)),
    );
    add(&format!("memory of long lists: at most {MEMORY_BOUND} bytes"), memory(results));
    goals
}

fn object_code(results: &Results) -> Option<Measured> {
    let files = results.object_code.as_ref()?;
    let differ: Vec<String> = files
        .iter()
        .filter(|(_, sections)| !sections.is_empty())
        .map(|(file, sections)| format!("{file} differs in {}", sections.join(", ")))
        .collect();
    let files: Vec<&str> = files.iter().map(|(file, _)| file.as_str()).collect();
    let met = differ.is_empty();
    let text = if met { format!("the same in {}", files.join(", ")) } else { differ.join("; ") };
    Some(Measured { text, met })
}

/// What the option costs where it is not used: on the second kernel, beside the first.
fn not_used(results: &Results, (without, with): (Kernel, Kernel)) -> Option<Measured> {
    /// What the option adds to a case.
    struct Added {
        case: Case,
        instructions: f64,
        percent: f64,
    }

    let mut all = Vec::new();
    for on in results.group(with, Unit::Instructions, Group::NotUsed) {
        // One more file in the list is what the option is for.
        if on.case == Case::ListProc {
            continue;
        }
        let off = results.low(without, Group::NotUsed, on.case)?;
        let instructions = on.low() - off;
        all.push(Added { case: on.case, instructions, percent: 100.0 * instructions / off });
    }
    let most = all.iter().max_by(|a, b| a.instructions.total_cmp(&b.instructions))?;
    let most_percent = all.iter().max_by(|a, b| a.percent.total_cmp(&b.percent))?;
    Some(Measured {
        text: format!(
            "at most {:+.0}: {}; {:+.2} %: {}",
            most.instructions, most.case, most_percent.percent, most_percent.case
        ),
        met: most.instructions <= 20.0 && most_percent.percent <= 0.1,
    })
}

fn size(results: &Results) -> Option<Measured> {
    let bytes = results.bytes_added()?;
    Some(Measured { text: format!("{bytes} bytes"), met: bytes <= 12 << 10 })
}

/// The size of `task_struct` on both kernels.
fn task_struct(results: &Results, (without, with): (Kernel, Kernel)) -> Option<Measured> {
    let size = |kernel| {
        let group = results.group(kernel, Unit::Bytes, Group::TaskStruct);
        group.first().map(|m| m.median())
    };
    let (off, on) = (size(without)?, size(with)?);
    Some(Measured {
        text: format!("{} and {} bytes", thousands(off), thousands(on)),
        met: on - off <= 8.0,
    })
}

/// Whether `case` costs at most `factor` times what `other` does.
fn compare(
    results: &Results,
    group: Group,
    size: Option<u64>,
    (case, factor, other): (Case, f64, Case),
) -> Option<Measured> {
    let mine = results.instructions(group, case, size)?;
    let others = results.instructions(group, other, size)?;
    let percent = 100.0 * mine / others;
    Some(Measured {
        text: format!(
            "{} against {} instructions, {percent:.1} %",
            thousands(mine),
            thousands(others)
        ),
        met: mine <= factor * others,
    })
}

fn contention(results: &Results) -> Option<Measured> {
    let mine: Vec<_> = results.contention().filter(|c| c.case == Case::NextId).collect();
    if mine.is_empty() {
        return None;
    }
    let sum = |field: fn(&Contention) -> u64| mine.iter().map(|c| field(c)).sum();
    let (wrong, refused, wanted): (u64, u64, u64) =
        (sum(|c| c.wrong), sum(|c| c.refused), sum(|c| c.wanted));
    Some(Measured {
        text: format!("{wrong} wrong and {refused} refused of {wanted}"),
        met: wrong == 0 && refused == 0,
    })
}

fn restores(results: &Results) -> Option<Measured> {
    let reserved: Vec<_> = results.restores().filter(|r| r.case == Case::NextIdReserved).collect();
    if reserved.is_empty() {
        return None;
    }
    let of =
        |r: &&Restores| format!("{} of {}, others' children {}", r.restored(), r.tried, r.lifetime);
    Some(Measured {
        text: reserved.iter().map(of).collect::<Vec<_>>().join("; "),
        met: reserved.iter().all(|r| r.restored() == r.tried),
    })
}

/// What one object costs more among many than among few, beside what it costs with no id chosen.
fn growth(results: &Results, group: Group) -> Option<Measured> {
    let of = |case, size| results.instructions(group, case, Some(size));
    let added = |size| Some(of(Case::NextId, size)? - of(Case::NoId, size)?);
    let all = results.group(Kernel::On, Unit::Instructions, group);
    let sizes = || all.iter().filter_map(|m| m.size);
    let (least, most) = (sizes().find(|&size| size >= 100)?, sizes().max()?);
    if least == most {
        return None;
    }
    let (few, many, whole) = (added(least)?, added(most)?, of(Case::NextId, most)?);
    Some(Measured {
        text: format!(
            "{} among {least}, {} among {most}, of {} instructions",
            thousands(few),
            thousands(many),
            thousands(whole)
        ),
        met: many - few <= 0.05 * whole,
    })
}

/// Whether what one of many costs is more than what one of 1,000 does, or of as few as were
/// measured.
fn flat(results: &Results, group: Group, case: Case) -> Option<Measured> {
    let mut all = results.group(Kernel::On, Unit::Instructions, group);
    all.retain(|m| m.case == case && m.size >= Some(1000));
    let few = all.iter().min_by_key(|m| m.size)?;
    let most = all.iter().max_by(|a, b| a.median().total_cmp(&b.median()))?;
    Some(Measured {
        text: format!(
            "{} instructions at first, {} at most",
            thousands(few.median()),
            thousands(most.median())
        ),
        met: most.median() <= 1.05 * few.median(),
    })
}

/// What a list may take: 8 bytes an id and a page, and 1 % of that.
pub const MEMORY_BOUND: &str = "1.01 × (8 × ids + 4096)";

/// The same for a list of `size` ids.
#[expect(clippy::cast_precision_loss, reason = "counts of ids")]
pub fn memory_bound(size: u64) -> f64 {
    1.01 * (8.0 * size as f64 + 4096.0)
}

fn memory(results: &Results) -> Option<Measured> {
    // Of short lists too little is counted: the page tells.
    let mut all = results.group(Kernel::On, Unit::Bytes, Group::Memory);
    all.retain(|m| m.size >= Some(4096));
    let share = |m: &&Measurement| Some((m.size?, m.median() / memory_bound(m.size?)));
    let (size, most) = all.iter().filter_map(share).max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(Measured {
        text: format!("{:.1} % of that at most, with {size} ids", 100.0 * most),
        met: most <= 1.0,
    })
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::data::{Build, Machine, Run};
    use crate::keys::Lifetime;

    /// A boot of `kernel` in which all was measured, by each unit.
    fn run(kernel: Kernel, unit: Unit) -> Run {
        let measurement =
            |group, case, size| Measurement { group, case, size, unit, rounds: vec![4096.0] };
        let sizes = [None, Some(1), Some(2), Some(4), Some(8), Some(32), Some(100), Some(65536)];
        let measurements = Group::value_variants().iter().flat_map(|&group| {
            let cases = group.cases().iter();
            cases.flat_map(move |&case| sizes.map(|size| measurement(group, case, size)))
        });
        Run {
            build: Build { kernel, uname: String::new(), command_line: String::new() },
            machine: Machine { processor: String::new(), processors: 1, memory: 0 },
            unit,
            measurements: measurements.collect(),
            contention: vec![Contention {
                group: Group::Process,
                case: Case::NextId,
                wanted: 1,
                wrong: 0,
                refused: 0,
                milliseconds: 1.0,
            }],
            restores: vec![Restores {
                lifetime: Lifetime::Millisecond,
                case: Case::NextIdReserved,
                tried: 1,
                wrong: 0,
                refused: 0,
                reserved_again: 0,
                milliseconds: vec![1.0],
            }],
        }
    }

    /// Results in which nothing is missing.
    fn whole() -> Results {
        let units = [Unit::Instructions, Unit::Bytes];
        let kernels = Kernel::value_variants().iter();
        let runs = kernels.flat_map(|&kernel| units.map(|unit| run(kernel, unit)));
        Results {
            runs: runs.collect(),
            object_code: Some(vec![("kernel/fork.o".to_owned(), Vec::new())]),
            size: Some("Total: Before=1000, After=1234, chg +23.40%\n".to_owned()),
        }
    }

    #[test]
    fn each_goal_is_judged_placeall_was_measured() {
        for goal in goals(&whole()) {
            assert!(goal.measured.is_some(), "{}", goal.what);
        }
    }

    #[test]
    fn each_goal_has_a_row_placenothing_was_measured() {
        let rows = goals(&Results::default());
        assert!(rows.iter().all(|goal| goal.measured.is_none()));
        let names = |goals: Vec<Goal>| goals.into_iter().map(|goal| goal.what).collect::<Vec<_>>();
        assert_eq!(names(rows), names(goals(&whole())));
        assert!(table(&Results::default()).unwrap().contains("not measured"));
    }
}
