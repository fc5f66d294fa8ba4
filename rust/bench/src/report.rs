// SPDX-License-Identifier: GPL-2.0

//! Turns what was measured into tables, charts and verdicts.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::data::{self, Measurement, Unit};
use crate::dump_report;
use crate::goals;
use crate::keys::{Case, Group, Kernel, Lifetime};
use crate::number::thousands;
use crate::quartiles;
use crate::results::Results;
use crate::svg::{self, BarGroup, Curve};

/// The groups of IPC objects.
const IPC: [Group; 3] = [Group::MessageQueue, Group::SemaphoreSet, Group::SharedMemory];

/// Writes the tables into the page `path`, and the charts and `quartiles.csv` into the folder
/// beside it that has the name of the page.
pub fn write(results: &Results, path: &Path) -> Result<()> {
    let mut page = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    for (name, text) in sections(results)? {
        page = replace(&page, name, &text).with_context(|| path.display().to_string())?;
    }
    let charts = path.with_extension("");
    fs::create_dir_all(&charts)?;
    for (name, drawing) in drawings(results) {
        let chart = charts.join(name);
        fs::write(&chart, drawing).with_context(|| chart.display().to_string())?;
    }
    let quartiles = charts.join("quartiles.csv");
    fs::write(&quartiles, quartiles::csv(&results.runs)?)
        .with_context(|| quartiles.display().to_string())?;
    fs::write(path, page).with_context(|| path.display().to_string())
}

/// Puts `text` between the two comments of `page` that name its place.
fn replace(page: &str, name: &str, text: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let parts = page.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(&end)?;
        Some((before, after))
    });
    let Some((before, after)) = parts else { bail!("no place for {name}, between its comments") };
    Ok(format!("{before}{begin}\n{text}\n{end}{after}"))
}

/// The parts of the page that come from the measurements.
fn sections(results: &Results) -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("setting", setting(results)?),
        ("goals", goals::table(results)?),
        ("not used", not_used(results)?),
        ("debian", debian(results)?),
        ("arming", competitors(results, &[Group::Arming])?),
        ("tasks", tasks(results)?),
        ("ipc", competitors(results, &IPC)?),
        ("contention", contention(results)?),
        ("restores", restores(results)?),
        ("dumps", dump_report::section(results)?),
        ("reservations", reservations(results)?),
        ("in turn", in_turn(results)?),
        ("growth", growth(results, &[Group::ManyQueues, Group::ManyProcesses, Group::List])?),
        ("parser", competitors(results, &[Group::Parser])?),
        ("memory", memory(results)?),
    ])
}

fn setting(results: &Results) -> Result<String> {
    let mut text = String::new();
    for run in &results.runs {
        let rounds = run.measurements.iter().map(|m| m.rounds.len());
        let rounds = rounds.chain(run.restores.iter().map(|r| r.tried)).max().unwrap_or_default();
        let mut groups: Vec<Group> = run.measurements.iter().map(|m| m.group).collect();
        groups.dedup();
        let mut groups: Vec<String> = groups.iter().map(Group::to_string).collect();
        if !run.restores.is_empty() {
            groups.push("restores".to_owned());
        }
        writeln!(
            text,
            "- {}, {} ({}; up to {rounds} rounds): Linux {}, {} × {}, {} MiB",
            run.build.kernel,
            run.unit,
            groups.join(", "),
            run.build.uname,
            run.machine.processors,
            run.machine.processor,
            run.machine.memory >> 20,
        )?;
    }
    Ok(text)
}

fn not_used(results: &Results) -> Result<String> {
    let mut text = String::from(
        "| instructions | baseline | option off | option on | difference | |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for on in results.group(Kernel::On, Unit::Instructions, Group::NotUsed) {
        let of = |kernel| results.low(kernel, Group::NotUsed, on.case);
        let baseline = number(of(Kernel::Baseline));
        writeln!(text, "| {} | {baseline} | {}", on.case, added(of(Kernel::Off), on.low()))?;
    }
    if results.group(Kernel::Baseline, Unit::Instructions, Group::NotUsed).is_empty() {
        text.push_str("\nThe baseline kernel was not measured in this run.\n");
    }
    Ok(text)
}

fn debian(results: &Results) -> Result<String> {
    let mut text = String::from(
        "| instructions | Debian's own | with the series | difference | |\n\
         | --- | ---: | ---: | ---: | ---: |\n",
    );
    for on in results.group(Kernel::DebianNextId, Unit::Instructions, Group::NotUsed) {
        let own = results.low(Kernel::Debian, Group::NotUsed, on.case);
        writeln!(text, "| {} | {}", on.case, added(own, on.low()))?;
    }
    Ok(text)
}

/// The last cells of a row: what was, what is, and the difference.
fn added(before: Option<f64>, after: f64) -> String {
    let difference = before.map(|before| after - before);
    format!(
        "{} | {} | {} | {} |",
        number(before),
        thousands(after),
        difference.map_or(String::new(), |d| format!("{d:+.0}")),
        difference.map_or(String::new(), |d| format!("{:+.2} %", 100.0 * d / (after - d))),
    )
}

/// A number, if there is one.
fn number(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), thousands)
}

/// A measurement's median and the range of its middle half.
fn spread(measurement: Option<&Measurement>) -> String {
    measurement.map_or("–".to_owned(), |m| spread_of(&m.rounds))
}

/// The same of any values, if there are some.
fn spread_of(values: &[f64]) -> String {
    if values.is_empty() {
        return "–".to_owned();
    }
    let [low, median, high] = data::quartiles(values).map(thousands);
    if low == high { median } else { format!("{median} ({low}–{high})") }
}

/// A table of the cases of `groups`.
fn competitors(results: &Results, groups: &[Group]) -> Result<String> {
    let mut text = String::from("| | | instructions | ns |\n| --- | --- | ---: | ---: |\n");
    for &group in groups {
        let by_time = results.group(Kernel::On, Unit::Nanoseconds, group);
        let mut name = group.to_string();
        for m in results.group(Kernel::On, Unit::Instructions, group) {
            let time = by_time.iter().find(|t| t.case == m.case && t.size == m.size);
            writeln!(
                text,
                "| {name} | {} | {} | {} |",
                m.case,
                spread(Some(m)),
                spread(time.copied())
            )?;
            name.clear();
        }
    }
    Ok(text)
}

fn tasks(results: &Results) -> Result<String> {
    let mut text =
        String::from("| | levels | | instructions | ns |\n| --- | ---: | --- | ---: | ---: |\n");
    for group in [Group::Process, Group::Thread] {
        let by_time = results.group(Kernel::On, Unit::Nanoseconds, group);
        for m in results.group(Kernel::On, Unit::Instructions, group) {
            let time = by_time.iter().find(|t| t.case == m.case && t.size == m.size);
            let levels = m.size.map_or(String::new(), |size| size.to_string());
            writeln!(
                text,
                "| {group} | {levels} | {} | {} | {} |",
                m.case,
                spread(Some(m)),
                spread(time.copied())
            )?;
        }
    }
    Ok(text)
}

fn contention(results: &Results) -> Result<String> {
    let mut text = String::from(
        "| | | objects wanted | wrong ids | id in use | ms |\n\
         | --- | --- | ---: | ---: | ---: | ---: |\n",
    );
    for c in results.contention() {
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            c.group,
            c.case,
            c.wanted,
            c.wrong,
            c.refused,
            thousands(c.milliseconds)
        )?;
    }
    Ok(text)
}

fn restores(results: &Results) -> Result<String> {
    let mut text = String::from(
        "| others' children | | restores | succeeded | wrong id | id in use | reserved again | ms |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for r in results.restores() {
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            r.lifetime,
            r.case,
            r.tried,
            r.restored(),
            r.wrong,
            r.refused,
            if r.case == Case::NextIdReserved {
                r.reserved_again.to_string()
            } else {
                String::new()
            },
            spread_of(&r.milliseconds)
        )?;
    }
    Ok(text)
}

fn reservations(results: &Results) -> Result<String> {
    let tables = [
        by_size(results, Group::BesideReserved, Unit::Instructions, spread)?,
        by_size(results, Group::Reserve, Unit::Instructions, spread)?,
        by_size(results, Group::ReservedMemory, Unit::Bytes, spread)?,
    ];
    Ok(tables.join("\n"))
}

fn in_turn(results: &Results) -> Result<String> {
    let mut text = by_size(results, Group::InTurn, Unit::Instructions, spread)?;
    let group = Group::BesideInTurn;
    write!(
        text,
        "\n| {group} | numbers | ns | 95 % take at most |\n| --- | ---: | ---: | ---: |\n"
    )?;
    for m in results.group(Kernel::On, Unit::Nanoseconds, group) {
        let most = data::quantile(&m.rounds, 0.95);
        let size = sizes_row(m.size.as_slice());
        writeln!(text, "| {} | {size} | {} | {} |", m.case, spread(Some(m)), thousands(most))?;
    }
    Ok(text)
}

/// Tables of `groups` by their sizes.
fn growth(results: &Results, groups: &[Group]) -> Result<String> {
    let median = |m: Option<&Measurement>| number(m.map(Measurement::median));
    let tables = groups.iter().map(|&group| by_size(results, group, Unit::Instructions, median));
    Ok(tables.collect::<Result<Vec<_>>>()?.join("\n"))
}

/// A table of a group by its sizes, with a `cell` for each measurement.
fn by_size(
    results: &Results,
    group: Group,
    unit: Unit,
    cell: impl Fn(Option<&Measurement>) -> String,
) -> Result<String> {
    let mut text = String::new();
    let all = results.group(Kernel::On, unit, group);
    let (cases, sizes) = axes(&all);
    let each = if unit == Unit::Bytes { "together" } else { "each" };
    writeln!(text, "| {group}, {unit} {each} | {} |", sizes_row(&sizes))?;
    writeln!(text, "| --- |{}", " ---: |".repeat(sizes.len()))?;
    for case in cases {
        let of_size = |&size| all.iter().find(|m| m.case == case && m.size == Some(size)).copied();
        let cells: Vec<String> = sizes.iter().map(|size| cell(of_size(size))).collect();
        writeln!(text, "| {case} | {} |", cells.join(" | "))?;
    }
    Ok(text)
}

fn sizes_row(sizes: &[u64]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "counts of objects")]
    let texts: Vec<String> = sizes.iter().map(|&size| thousands(size as f64)).collect();
    texts.join(" | ")
}

/// The cases and the sizes of `measurements`.
fn axes(measurements: &[&Measurement]) -> (Vec<Case>, Vec<u64>) {
    let (mut cases, mut sizes) = (Vec::new(), Vec::new());
    for m in measurements {
        if !cases.contains(&m.case) {
            cases.push(m.case);
        }
        sizes.extend(m.size.filter(|size| !sizes.contains(size)));
    }
    (cases, sizes)
}

fn memory(results: &Results) -> Result<String> {
    let bound = goals::MEMORY_BOUND;
    let mut text = format!("| ids | bytes charged | {bound} | |\n| ---: | ---: | ---: | ---: |\n");
    for m in results.group(Kernel::On, Unit::Bytes, Group::Memory) {
        let Some(size) = m.size else { continue };
        let (used, bound) = (m.median(), goals::memory_bound(size));
        let percent = 100.0 * (used / bound - 1.0);
        writeln!(
            text,
            "| {size} | {} | {} | {percent:+.1} % |",
            thousands(used),
            thousands(bound)
        )?;
    }
    Ok(text)
}

/// The charts, by the names of their files.
fn drawings(results: &Results) -> Vec<(&'static str, String)> {
    let arming = [bars(results, Group::Arming, "")];
    let ipc = IPC.map(|group| bars(results, group, &group.to_string()));
    let levels = curves(results, Group::Process);
    let restores = Lifetime::ALL.map(|lifetime| {
        let all = results.restores().filter(|r| r.lifetime == lifetime);
        #[expect(clippy::cast_precision_loss, reason = "counts of restores")]
        let bars = all.map(|r| (r.case.to_string(), r.restored() as f64));
        BarGroup { name: lifetime.to_string(), bars: bars.collect() }
    });
    let drawings = [
        (
            "restores.svg",
            svg::bars("Restores that succeed, by what others' children do", &restores),
        ),
        ("arming.svg", svg::bars("Choosing the next id: instructions", &arming)),
        ("ipc.svg", svg::bars("An IPC object with its id: instructions", &ipc)),
        (
            "levels.svg",
            svg::curves(
                "A process with its ids: instructions, with its exit and the wait for it",
                "pid namespaces",
                &levels,
            ),
        ),
    ];
    let growth = [
        ("queues.svg", Group::ManyQueues, "One more message queue: instructions", "message queues"),
        ("processes.svg", Group::ManyProcesses, "One more process: instructions", "processes"),
        ("list.svg", Group::List, "One id of a list: instructions", "ids in the list"),
    ]
    .map(|(file, group, title, axis)| (file, svg::curves(title, axis, &curves(results, group))));
    drawings.into_iter().chain(growth).collect()
}

fn bars(results: &Results, group: Group, name: &str) -> BarGroup {
    let all = results.group(Kernel::On, Unit::Instructions, group);
    let bars = all.iter().map(|m| (m.case.to_string(), m.median()));
    BarGroup { name: name.to_owned(), bars: bars.collect() }
}

/// A curve for each case of `group` that has more than one size.
fn curves(results: &Results, group: Group) -> Vec<Curve> {
    let all = results.group(Kernel::On, Unit::Instructions, group);
    let curves = axes(&all).0.into_iter().map(|case| {
        #[expect(clippy::cast_precision_loss, reason = "counts of objects")]
        let points = all
            .iter()
            .filter(|m| m.case == case)
            .filter_map(|m| Some((m.size? as f64, m.median())));
        Curve { name: case.to_string(), points: points.collect() }
    });
    curves.filter(|curve| curve.points.len() > 1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_comments_is_replaced() {
        let page = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n";
        let expected = "a\n<!-- x -->\n\nnew\n\n<!-- end of x -->\nb\n";
        assert_eq!(replace(page, "x", "new\n").unwrap(), expected);
        assert!(replace(page, "y", "new").is_err());
    }
}
