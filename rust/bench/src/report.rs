// SPDX-License-Identifier: GPL-2.0

//! Turns what was measured into tables, charts and verdicts.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::data::{Measurement, Run, Unit};
use crate::goals;
use crate::svg::{self, Curve, Group, thousands};

/// The kernels that are compared, as runs name them.
pub const PRISTINE: &str = "pristine";
/// The kernel with the series and without the option.
pub const OFF: &str = "off";
/// The kernel with the option.
pub const ON: &str = "on";

/// All that was measured.
pub struct Results {
    runs: Vec<Run>,
    /// For each file that the series changes, the sections in which it differs without the option.
    pub objects: Option<Vec<(String, Vec<String>)>>,
    /// What `bloat-o-meter` says of the option.
    pub size: Option<String>,
}

impl Results {
    /// Reads all of a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut results = Self { runs: Vec::new(), objects: None, size: None };
        let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            let read = || fs::read_to_string(&path).with_context(|| path.display().to_string());
            if path.ends_with("objects.json") {
                results.objects = Some(serde_json::from_str(&read()?)?);
            } else if path.ends_with("size.txt") {
                results.size = Some(read()?);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                let run = serde_json::from_str(&read()?);
                results.runs.push(run.with_context(|| path.display().to_string())?);
            }
        }
        ensure!(!results.runs.is_empty(), "{}: nothing was measured", folder.display());
        Ok(results)
    }

    /// What was measured on `kernel` in `unit` for `group`, in the order of measuring.
    pub fn group(&self, kernel: &str, unit: Unit, group: &str) -> Vec<&Measurement> {
        let runs = self.runs.iter().filter(|run| run.kernel.name == kernel);
        let all = runs.flat_map(|run| &run.measurements);
        all.filter(|m| m.group == group && m.unit == unit).collect()
    }

    /// The lower quartile of the instructions of one case on `kernel`.
    pub fn low(&self, kernel: &str, group: &str, case: &str) -> Option<f64> {
        let group = self.group(kernel, Unit::Instructions, group);
        group.into_iter().find(|m| m.case == case).map(Measurement::low)
    }

    /// The median instructions of one case on the kernel with the option.
    pub fn instructions(&self, group: &str, case: &str, size: Option<u64>) -> Option<f64> {
        let group = self.group(ON, Unit::Instructions, group);
        group.into_iter().find(|m| m.case == case && m.size == size).map(Measurement::median)
    }

    /// All that was counted under contention.
    pub fn contention(&self) -> impl Iterator<Item = &crate::data::Contention> {
        self.runs.iter().flat_map(|run| &run.contention)
    }

    /// By how many bytes the option makes the kernel larger.
    pub fn bytes_added(&self) -> Option<i64> {
        let total = self.size.as_ref()?.lines().find(|line| line.starts_with("Total: "))?;
        let number = |name| {
            let rest = total.split_once(name)?.1;
            rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse::<i64>().ok()
        };
        Some(number("After=")? - number("Before=")?)
    }
}

/// Writes the tables into the page `path`, and the charts and `rounds.json` into the folder beside
/// it that has the name of the page.
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
    let rounds = charts.join("rounds.json");
    fs::write(&rounds, json(&results.runs)?).with_context(|| rounds.display().to_string())?;
    fs::write(path, page).with_context(|| path.display().to_string())
}

/// All runs, one a line.
fn json(runs: &[Run]) -> Result<String> {
    let lines =
        runs.iter().map(|run| Ok(serde_json::to_string(run)?)).collect::<Result<Vec<_>>>()?;
    Ok(format!("[\n{}\n]\n", lines.join(",\n")))
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
        ("arming", competitors(results, &["arming"])?),
        ("tasks", tasks(results)?),
        ("ipc", competitors(results, &["msg", "sem", "shm"])?),
        ("contention", contention(results)?),
        ("growth", growth(results, &["message queues", "processes", "ids in a list"])?),
        ("parser", competitors(results, &["parser"])?),
        ("memory", memory(results)?),
    ])
}

fn setting(results: &Results) -> Result<String> {
    let mut text = String::new();
    for run in &results.runs {
        let rounds = run.measurements.iter().map(|m| m.rounds.len()).max().unwrap_or_default();
        let mut groups: Vec<&str> = run.measurements.iter().map(|m| m.group.as_str()).collect();
        groups.dedup();
        writeln!(
            text,
            "- {}, {} ({}; up to {rounds} rounds): Linux {}, {} × {}, {} MiB",
            run.kernel.name,
            run.unit,
            groups.join(", "),
            run.kernel.uname,
            run.machine.processors,
            run.machine.processor,
            run.machine.memory >> 20,
        )?;
    }
    Ok(text)
}

fn not_used(results: &Results) -> Result<String> {
    let mut text = String::from(
        "| instructions | pristine | option off | option on | difference | |\n\
         | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for on in results.group(ON, Unit::Instructions, "not used") {
        let of = |kernel| results.low(kernel, "not used", &on.case);
        let (pristine, off, low) = (of(PRISTINE), of(OFF), on.low());
        let difference = off.map(|off| low - off);
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            on.case,
            number(pristine),
            number(off),
            thousands(low),
            difference.map_or(String::new(), |d| format!("{d:+.0}")),
            difference.map_or(String::new(), |d| format!("{:+.2} %", 100.0 * d / (low - d))),
        )?;
    }
    if results.group(PRISTINE, Unit::Instructions, "not used").is_empty() {
        text.push_str("\nThe pristine kernel was not measured in this run.\n");
    }
    Ok(text)
}

/// A number, if there is one.
fn number(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), thousands)
}

/// A measurement's median and the range of its middle half.
fn spread(measurement: Option<&Measurement>) -> String {
    let Some(m) = measurement else { return "–".to_owned() };
    let [low, high] = [0.25, 0.75].map(|share| thousands(m.quantile(share)));
    let median = thousands(m.median());
    if low == high { median } else { format!("{median} ({low}–{high})") }
}

/// A table of the cases of `groups`.
fn competitors(results: &Results, groups: &[&str]) -> Result<String> {
    let mut text = String::from("| | | instructions | ns |\n| --- | --- | ---: | ---: |\n");
    for group in groups {
        let by_time = results.group(ON, Unit::Nanoseconds, group);
        let mut name = *group;
        for m in results.group(ON, Unit::Instructions, group) {
            let time = by_time.iter().find(|t| t.case == m.case && t.size == m.size);
            writeln!(
                text,
                "| {name} | {} | {} | {} |",
                m.case,
                spread(Some(m)),
                spread(time.copied())
            )?;
            name = "";
        }
    }
    Ok(text)
}

fn tasks(results: &Results) -> Result<String> {
    let mut text =
        String::from("| | levels | | instructions | ns |\n| --- | ---: | --- | ---: | ---: |\n");
    for group in ["fork, exit and wait", "thread"] {
        let by_time = results.group(ON, Unit::Nanoseconds, group);
        for m in results.group(ON, Unit::Instructions, group) {
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
            c.object,
            c.case,
            c.wanted,
            c.wrong,
            c.refused,
            thousands(c.milliseconds)
        )?;
    }
    Ok(text)
}

/// A table of `groups` by their sizes.
fn growth(results: &Results, groups: &[&str]) -> Result<String> {
    let mut text = String::new();
    for group in groups {
        if !text.is_empty() {
            text.push('\n');
        }
        let all = results.group(ON, Unit::Instructions, group);
        let (cases, sizes) = axes(&all);
        writeln!(text, "| {group}, instructions each | {} |", sizes_row(&sizes))?;
        writeln!(text, "| --- |{}", " ---: |".repeat(sizes.len()))?;
        for case in cases {
            let values =
                sizes.iter().map(|&size| number(results.instructions(group, case, Some(size))));
            writeln!(text, "| {case} | {} |", values.collect::<Vec<_>>().join(" | "))?;
        }
    }
    Ok(text)
}

fn sizes_row(sizes: &[u64]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "counts of objects")]
    let texts: Vec<String> = sizes.iter().map(|&size| thousands(size as f64)).collect();
    texts.join(" | ")
}

/// The cases and the sizes of `measurements`.
fn axes<'a>(measurements: &[&'a Measurement]) -> (Vec<&'a str>, Vec<u64>) {
    let (mut cases, mut sizes) = (Vec::new(), Vec::new());
    for m in measurements {
        if !cases.contains(&m.case.as_str()) {
            cases.push(m.case.as_str());
        }
        sizes.extend(m.size.filter(|size| !sizes.contains(size)));
    }
    (cases, sizes)
}

fn memory(results: &Results) -> Result<String> {
    let bound = goals::MEMORY_BOUND;
    let mut text = format!("| ids | bytes charged | {bound} | |\n| ---: | ---: | ---: | ---: |\n");
    for m in results.group(ON, Unit::Bytes, "memory") {
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
    let arming = [bars(results, "arming", None, "")];
    let ipc = ["msg", "sem", "shm"].map(|kind| bars(results, kind, None, kind));
    let levels = growth_curves(results, "fork, exit and wait");
    let drawings = [
        ("arming.svg", svg::bars("Choosing the next id: instructions", &arming)),
        ("ipc.svg", svg::bars("An IPC object with its id: instructions", &ipc)),
        (
            "levels.svg",
            svg::curves(
                "A process with its ids: instructions for fork, exit and wait",
                "pid namespaces",
                &levels,
            ),
        ),
    ];
    let growth = [
        ("queues.svg", "message queues", "One more message queue: instructions", "message queues"),
        ("processes.svg", "processes", "One more process: instructions", "processes"),
        ("list.svg", "ids in a list", "One id of a list: instructions", "ids in the list"),
    ]
    .map(|(file, group, title, axis)| {
        (file, svg::curves(title, axis, &growth_curves(results, group)))
    });
    drawings.into_iter().chain(growth).collect()
}

fn bars(results: &Results, group: &str, size: Option<u64>, name: &str) -> Group {
    let all = results.group(ON, Unit::Instructions, group);
    let bars = all.iter().filter(|m| m.size == size).map(|m| (m.case.clone(), m.median()));
    Group { name: name.to_owned(), bars: bars.collect() }
}

/// A curve for each case of `group` that has more than one size.
fn growth_curves(results: &Results, group: &str) -> Vec<Curve> {
    let all = results.group(ON, Unit::Instructions, group);
    let curves = axes(&all).0.into_iter().map(|case| {
        #[expect(clippy::cast_precision_loss, reason = "counts of objects")]
        let points = all
            .iter()
            .filter(|m| m.case == case)
            .filter_map(|m| Some((m.size? as f64, m.median())));
        Curve { name: case.to_owned(), points: points.collect() }
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

    #[test]
    fn the_size_is_read_from_bloat_o_meter() {
        let size = "add/remove: 1/0\nTotal: Before=1000, After=1234, chg +23.40%\n".to_owned();
        let results = Results { runs: Vec::new(), objects: None, size: Some(size) };
        assert_eq!(results.bytes_added(), Some(234));
    }
}
