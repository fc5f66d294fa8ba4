// SPDX-License-Identifier: GPL-2.0

//! What was to be reached, and what was.

use std::fmt::Write;

use anyhow::Result;

use crate::data::Unit;
use crate::report::{OFF, ON, Results};
use crate::svg::thousands;

/// A goal, and what was measured of it.
struct Goal {
    what: String,
    measured: String,
    met: bool,
}

/// A table of all goals that something was measured of.
pub fn table(results: &Results) -> Result<String> {
    let mut goals = Vec::new();
    goals.extend(objects(results));
    goals.extend(not_used(results));
    goals.extend(size(results));
    goals.extend(task_struct(results));
    goals.extend(arming(results));
    goals.extend(tasks(results));
    goals.extend(ipc(results));
    goals.extend(contention(results));
    goals.extend(growth(results));
    goals.extend(parser(results));
    goals.extend(memory(results));

    let mut text = String::from("| goal | measured | |\n| --- | --- | --- |\n");
    for Goal { what, measured, met } in goals {
        writeln!(text, "| {what} | {measured} | {} |", if met { "met" } else { "**missed**" })?;
    }
    Ok(text)
}

fn objects(results: &Results) -> Option<Goal> {
    let objects = results.objects.as_ref()?;
    let differ: Vec<String> = objects
        .iter()
        .filter(|(_, sections)| !sections.is_empty())
        .map(|(file, sections)| format!("{file} differs in {}", sections.join(", ")))
        .collect();
    let files: Vec<&str> = objects.iter().map(|(file, _)| file.as_str()).collect();
    Some(Goal {
        what: format!("without the option, the same object code: {}", files.join(", ")),
        measured: if differ.is_empty() { "the same".to_owned() } else { differ.join("; ") },
        met: differ.is_empty(),
    })
}

fn not_used(results: &Results) -> Option<Goal> {
    let on = results.group(ON, Unit::Instructions, "not used");
    let differences = on.iter().filter_map(|m| {
        let off = results.low(OFF, "not used", &m.case)?;
        Some((m.case.as_str(), m.low() - off, off))
    });
    // An entry more in a list is what the option is for.
    let differences: Vec<_> =
        differences.filter(|(case, ..)| *case != "first list of /proc/PID").collect();
    let percent = |&(_, more, off): &(&str, f64, f64)| 100.0 * more / off;
    let most = differences.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let most_percent = differences.iter().max_by(|a, b| percent(a).total_cmp(&percent(b)))?;
    Some(Goal {
        what: "with the option, not used: at most 20 instructions and 0.1 % more".to_owned(),
        measured: format!(
            "at most {:+.0}: {}; {:+.2} %: {}",
            most.1,
            most.0,
            percent(most_percent),
            most_percent.0
        ),
        met: most.1 <= 20.0 && percent(most_percent) <= 0.1,
    })
}

fn size(results: &Results) -> Option<Goal> {
    let bytes = results.bytes_added()?;
    Some(Goal {
        what: "at most 12 KiB of code and data".to_owned(),
        measured: format!("{bytes} bytes"),
        met: bytes <= 12 << 10,
    })
}

fn task_struct(results: &Results) -> Option<Goal> {
    let size = |kernel| {
        let group = results.group(kernel, Unit::Bytes, "task_struct");
        group.first().map(|m| m.median())
    };
    let (off, on) = (size(OFF)?, size(ON)?);
    Some(Goal {
        what: "task_struct larger by a pointer at most".to_owned(),
        measured: format!("{} and {} bytes", thousands(off), thousands(on)),
        met: on - off <= 8.0,
    })
}

fn arming(results: &Results) -> Option<Goal> {
    compare(
        results,
        "arming",
        None,
        "a write to next_id costs at most one to msg_next_id",
        ("next_id", 1.0, "msg_next_id"),
    )
}

/// Whether `case` costs at most `factor` times what `other` does.
fn compare(
    results: &Results,
    group: &str,
    size: Option<u64>,
    what: &str,
    (case, factor, other): (&str, f64, &str),
) -> Option<Goal> {
    let [mine, others] = [case, other].map(|case| results.instructions(group, case, size));
    let (mine, others) = (mine?, others?);
    Some(Goal {
        what: what.to_owned(),
        measured: format!(
            "{} to {} instructions, {:.1} %",
            thousands(mine),
            thousands(others),
            100.0 * mine / others
        ),
        met: mine <= factor * others,
    })
}

fn tasks(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    for (group, sizes) in [
        ("fork, exit and wait", vec![Some(1), Some(2), Some(4), Some(8), Some(32)]),
        ("thread", vec![None]),
    ] {
        for size in sizes {
            let levels = match size {
                Some(1) => " at 1 level".to_owned(),
                Some(n) => format!(" at {n} levels"),
                None => String::new(),
            };
            let within = format!("{group}{levels}: within 2 % of set_tid");
            goals.extend(compare(results, group, size, &within, ("next_id", 1.02, "set_tid")));
            let no_dearer = format!("{group}{levels}: no dearer than ns_last_pid");
            let sysctl = ("next_id", 1.0, "sysctl, kept open");
            goals.extend(compare(results, group, size, &no_dearer, sysctl));
        }
    }
    goals
}

fn ipc(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    for kind in ["msg", "sem", "shm"] {
        let twice = format!("{kind}: at least twice as fast as CRIU's way");
        goals.extend(compare(results, kind, None, &twice, ("next_id", 0.5, "sysctl, as CRIU")));
        let ahead = format!("{kind}: ahead of the sysctl on an open descriptor");
        goals.extend(compare(results, kind, None, &ahead, ("next_id", 1.0, "sysctl, kept open")));
    }
    goals
}

fn contention(results: &Results) -> Option<Goal> {
    let mine: Vec<_> = results.contention().filter(|c| c.case == "next_id").collect();
    let (wrong, refused, wanted) = mine.iter().fold((0, 0, 0), |(wrong, refused, wanted), c| {
        (wrong + c.wrong, refused + c.refused, wanted + c.wanted)
    });
    (!mine.is_empty()).then(|| Goal {
        what: "beside others, no wrong id and no retry".to_owned(),
        measured: format!("{wrong} wrong and {refused} refused of {wanted}"),
        met: wrong == 0 && refused == 0,
    })
}

/// What one object costs more among many than among few, beside what it costs with no id chosen.
fn growth(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    for group in ["message queues", "processes"] {
        let all = results.group(ON, Unit::Instructions, group);
        let added = |size| {
            let [mine, none] =
                ["next_id", "no id"].map(|case| results.instructions(group, case, Some(size)));
            Some(mine? - none?)
        };
        let sizes: Vec<u64> = all.iter().filter_map(|m| m.size).collect();
        let (Some(&least), Some(&most)) = (sizes.iter().find(|&&s| s >= 100), sizes.iter().max())
        else {
            continue;
        };
        if least == most {
            continue;
        }
        let (Some(few), Some(many), Some(whole)) =
            (added(least), added(most), results.instructions(group, "next_id", Some(most)))
        else {
            continue;
        };
        goals.push(Goal {
            what: format!("{group}: what the id costs is flat from {least} to {most}"),
            measured: format!("{} to {} of {}", thousands(few), thousands(many), thousands(whole)),
            met: many - few <= 0.05 * whole,
        });
    }
    let lists = results.group(ON, Unit::Instructions, "ids in a list");
    let long: Vec<f64> =
        lists.iter().filter(|m| m.size >= Some(1000)).map(|m| m.median()).collect();
    if let (Some(least), Some(most)) =
        (long.iter().copied().reduce(f64::min), long.iter().copied().reduce(f64::max))
    {
        goals.push(Goal {
            what: "lists: the cost of an id is flat from 1,000 ids up".to_owned(),
            measured: format!("{} to {} instructions", thousands(least), thousands(most)),
            met: most <= 1.05 * least,
        });
    }
    goals
}

fn parser(results: &Results) -> Option<Goal> {
    compare(
        results,
        "parser",
        None,
        "the parser at least twice as fast as simple_strtol() in the loop of 2008",
        ("parser", 0.5, "simple_strtol"),
    )
}

/// What a list may take: 8 bytes an id and a page, and 1 % of that.
pub const MEMORY_BOUND: &str = "1.01 × (8 × ids + 4096)";

/// The same for a list of `size` ids.
#[expect(clippy::cast_precision_loss, reason = "counts of ids")]
pub fn memory_bound(size: u64) -> f64 {
    1.01 * (8.0 * size as f64 + 4096.0)
}

fn memory(results: &Results) -> Option<Goal> {
    // Of short lists too little is counted: the page tells.
    let mut all = results.group(ON, Unit::Bytes, "memory");
    all.retain(|m| m.size >= Some(4096));
    let over = all.iter().filter_map(|m| Some((m.size?, m.median() / memory_bound(m.size?))));
    let (size, most) = over.max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(Goal {
        what: format!("memory of long lists: at most {MEMORY_BOUND} bytes"),
        measured: format!("{:.1} % of that at most, with {size} ids", 100.0 * most),
        met: most <= 1.0,
    })
}
