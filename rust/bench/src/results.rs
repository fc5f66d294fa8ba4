// SPDX-License-Identifier: GPL-2.0

//! All that was measured, and how to find a figure in it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::data::{Contention, Measurement, Restores, Run, Unit};
use crate::keys::{Case, Group, Kernel};

/// All that was measured.
#[derive(Default)]
pub struct Results {
    /// Each boot of a kernel.
    pub runs: Vec<Run>,
    /// For each file that the series changes, the sections in which it differs without the option.
    pub object_code: Option<Vec<(String, Vec<String>)>>,
    /// What `bloat-o-meter` says of the option.
    pub size: Option<String>,
}

impl Results {
    /// Reads all of a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut results = Self::default();
        let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            let read = || fs::read_to_string(&path).with_context(|| path.display().to_string());
            if path.ends_with("object-code.json") {
                results.object_code = Some(serde_json::from_str(&read()?)?);
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
    pub fn group(&self, kernel: Kernel, unit: Unit, group: Group) -> Vec<&Measurement> {
        let runs = self.runs.iter().filter(|run| run.build.kernel == kernel);
        let all = runs.flat_map(|run| &run.measurements);
        all.filter(|m| m.group == group && m.unit == unit).collect()
    }

    /// The lower quartile of the instructions of one case on `kernel`.
    pub fn low(&self, kernel: Kernel, group: Group, case: Case) -> Option<f64> {
        let group = self.group(kernel, Unit::Instructions, group);
        group.into_iter().find(|m| m.case == case).map(Measurement::low)
    }

    /// The median instructions of one case on the kernel with the option.
    pub fn instructions(&self, group: Group, case: Case, size: Option<u64>) -> Option<f64> {
        let group = self.group(Kernel::On, Unit::Instructions, group);
        group.into_iter().find(|m| m.case == case && m.size == size).map(Measurement::median)
    }

    /// All that was counted under contention.
    pub fn contention(&self) -> impl Iterator<Item = &Contention> {
        self.runs.iter().flat_map(|run| &run.contention)
    }

    /// How all restores went.
    pub fn restores(&self) -> impl Iterator<Item = &Restores> {
        self.runs.iter().flat_map(|run| &run.restores)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_read_from_bloat_o_meter() {
        let size = "add/remove: 1/0\nTotal: Before=1000, After=1234, chg +23.40%\n".to_owned();
        let results = Results { size: Some(size), ..Results::default() };
        assert_eq!(results.bytes_added(), Some(234));
    }
}
