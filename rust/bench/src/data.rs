// SPDX-License-Identifier: GPL-2.0

//! What a run of the measurements leaves behind, as JSON.

use std::{fmt, fs};

use anyhow::Context;
use serde::{Deserialize, Serialize, Serializer};

use crate::keys::{Case, Group, Kernel, Lifetime};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Nanoseconds by the guest's clock.
    Nanoseconds,
    /// Instructions that the guest executed, kernel and user space together.
    Instructions,
    /// Bytes of memory.
    Bytes,
    /// System calls, of all tasks that take part.
    SystemCalls,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nanoseconds => "ns",
            Self::Instructions => "instructions",
            Self::Bytes => "bytes",
            Self::SystemCalls => "system calls",
        })
    }
}

/// All rounds of one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// What it is compared with.
    pub group: Group,
    /// The competitor.
    pub case: Case,
    /// How large the problem was, for cases that grow.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// What `rounds` are in.
    pub unit: Unit,
    /// One value an operation, for each round.
    #[serde(serialize_with = "hundredths")]
    pub rounds: Vec<f64>,
}

/// Leaves out the digits that mean nothing.
fn hundredths<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(|value| (100.0 * value).round() / 100.0))
}

impl Measurement {
    /// The lower quartile: rounds in which the kernel did other work as well are above it.
    pub fn low(&self) -> f64 {
        quantile(&self.rounds, 0.25)
    }

    /// The middle of the rounds.
    pub fn median(&self) -> f64 {
        quantile(&self.rounds, 0.5)
    }
}

/// The one of `values` that `share` of them (0 to 1) are not above.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index, well within what both types hold"
    )]
    let index = ((sorted.len() - 1) as f64 * share).round() as usize;
    sorted[index]
}

/// The lower quartile, the median and the upper quartile of `values`.
pub fn quartiles(values: &[f64]) -> [f64; 3] {
    [0.25, 0.5, 0.75].map(|share| quantile(values, share))
}

/// How often a method got the id it asked for while others created objects too.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contention {
    /// What was created.
    pub group: Group,
    /// The competitor.
    pub case: Case,
    /// How many objects were wanted.
    pub wanted: u64,
    /// How many were created with another id, and had to be destroyed.
    pub wrong: u64,
    /// How many creations failed because the id was in use.
    pub refused: u64,
    /// How long it took all together, in milliseconds.
    pub milliseconds: f64,
}

/// How often all processes of a tree got their ids while others forked too.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Restores {
    /// How long each child of the others lived.
    pub lifetime: Lifetime,
    /// The competitor.
    pub case: Case,
    /// How many restores were tried.
    pub tried: usize,
    /// How many made a process with another id, and gave up.
    pub wrong: usize,
    /// How many were refused an id that was in use, and gave up.
    pub refused: usize,
    /// How often other ids had to be chosen because one of them could not be reserved.
    pub reserved_again: usize,
    /// How long each one took that succeeded, in milliseconds.
    #[serde(serialize_with = "hundredths")]
    pub milliseconds: Vec<f64>,
}

impl Restores {
    /// How many succeeded.
    pub fn restored(&self) -> usize {
        self.milliseconds.len()
    }
}

/// The kernel that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Build {
    /// Which of those that are compared.
    pub kernel: Kernel,
    /// Version, build and architecture, as `uname` prints them.
    pub uname: String,
    /// What of its command line is the same on any machine: no paths, and not what virtme-ng told
    /// its own init.
    pub command_line: String,
}

/// The machine that it ran on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// The guest's processor.
    pub processor: String,
    /// How many of them.
    pub processors: usize,
    /// Bytes of memory.
    pub memory: u64,
}

/// One boot of one kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The kernel.
    pub build: Build,
    /// The machine.
    pub machine: Machine,
    /// What time was measured in.
    pub unit: Unit,
    /// What was measured.
    pub measurements: Vec<Measurement>,
    /// What was counted under contention.
    pub contention: Vec<Contention>,
    /// How restores went.
    pub restores: Vec<Restores>,
}

impl Build {
    /// The kernel that runs this program, which was built as `kernel`.
    pub fn running(kernel: Kernel) -> anyhow::Result<Self> {
        let uname = nix::sys::utsname::uname()?;
        let uname = [uname.release(), uname.version(), uname.machine()]
            .map(|part| part.to_string_lossy().into_owned())
            .join(" ");
        let command_line = fs::read_to_string("/proc/cmdline").context("reading /proc/cmdline")?;
        Ok(Self { kernel, uname, command_line: portable(&command_line) })
    }
}

/// The words of a command line that name no path, and are not for virtme-ng's init.
fn portable(command_line: &str) -> String {
    let words = command_line.split_whitespace();
    let kept = words.filter(|word| !word.contains('/') && !word.starts_with("virtme"));
    kept.collect::<Vec<_>>().join(" ")
}

impl Machine {
    /// The machine that runs this program.
    pub fn running() -> anyhow::Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
        let mut names = cpuinfo.lines().filter_map(|line| line.strip_prefix("model name"));
        let processor = names.next().unwrap_or_default().trim_matches([' ', '\t', ':']).to_owned();
        let meminfo = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
        let total = meminfo.split_whitespace().nth(1).context("MemTotal of /proc/meminfo")?;
        Ok(Self { processor, processors: 1 + names.count(), memory: 1024 * total.parse::<u64>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_rounds() {
        let rounds = [5.0, 1.0, 4.0, 2.0, 3.0];
        let quantiles = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| quantile(&rounds, share));
        assert!(quantiles.iter().zip(1..).all(|(&q, n)| (q - f64::from(n)).abs() < 1e-9));
    }
}
