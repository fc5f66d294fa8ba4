// SPDX-License-Identifier: GPL-2.0

//! The ids of a tree.

use std::fmt;

use anyhow::Result;
use demo::observe;
use nix::unistd::Pid;

/// The ids of the processes, the threads and the System V IPC objects of a tree, with what
/// [`observe::tables`] tells beside them.
#[derive(PartialEq)]
pub struct Ids {
    tasks: Vec<Told>,
    objects: Vec<Told>,
}

/// A name, an id, and what is told of it.
type Told = (String, i32, String);

impl Ids {
    /// What is there now.
    pub fn of(first: Pid) -> Result<Self> {
        let [tasks, objects] = observe::tables(first)?
            .map(|table| table.rows.into_iter().map(|row| (row.name, row.id, row.shown)).collect());
        Ok(Self { tasks, objects })
    }

    /// As it is shown in a table beside what it must be.
    pub fn shown_beside(&self, wanted: &Self) -> String {
        if self == wanted {
            return "the same".to_owned();
        }
        let told = |ids: &Self| -> Vec<String> {
            let all = ids.tasks.iter().chain(&ids.objects);
            all.map(|(name, _, shown)| format!("{} {shown}", name.trim())).collect()
        };
        let (is, was) = (told(self), told(wanted));
        let new = is.iter().filter(|it| !was.contains(it));
        let gone = was.iter().filter(|it| !is.contains(it));
        let differences: Vec<_> =
            gone.map(|it| format!("-[{it}]")).chain(new.map(|it| format!("+[{it}]"))).collect();
        differences.join(" ")
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut pids: Vec<i32> = self.tasks.iter().map(|task| task.1).collect();
        pids.sort_unstable();
        write!(f, "{} pids: {}", pids.len(), ranges(&pids))?;
        for (name, id, _) in &self.objects {
            write!(f, ", {name} {id}")?;
        }
        Ok(())
    }
}

/// Sorted numbers, as `42-44,512`.
fn ranges(numbers: &[i32]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let texts: Vec<_> = runs
        .map(|run| match run {
            [one] => one.to_string(),
            _ => format!("{}-{}", run[0], run[run.len() - 1]),
        })
        .collect();
    texts.join(",")
}
