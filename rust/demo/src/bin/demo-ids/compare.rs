// SPDX-License-Identifier: GPL-2.0

//! What was asked for beside what came.

use anyhow::Result;
use demo::{Row, print_table, print_title};
use nextid::Ids;

use crate::create::Created;
use crate::observe;
use crate::scenario::Scenario;

/// How many ids were asked for, and how many of them did not come.
#[derive(Default)]
pub struct Outcome {
    pub ids: usize,
    pub wrong: usize,
}

/// Creates the objects of `scenario`, looks at them from outside, prints a table and removes them.
pub fn run(scenario: &'static Scenario) -> Result<Outcome> {
    let created = Created::new(scenario)?;
    let mut outcome = Outcome::default();
    let mut rows = Vec::new();
    let mut add = |label: String, wanted: &[i64], asked: String, got: Result<Vec<i64>, String>| {
        let (right, got) = match got {
            Ok(got) => (count_equal(&got, wanted), Ids(got).to_string()),
            Err(why) => (0, why),
        };
        outcome.ids += wanted.len();
        outcome.wrong += wanted.len() - right;
        rows.push(Row { good: right == wanted.len(), cells: [label, asked, got] });
    };

    let tasks = observe::tasks_below(created.pid())?;
    for task in scenario.tasks() {
        let got = created.task(task.name, task.ids[0]).and_then(|()| {
            let mut ids = tasks.get(task.name).ok_or("not in /proc")?.clone();
            // What the kernel chose for the namespaces further out was not asked for.
            ids.truncate(task.ids.len());
            Ok(ids)
        });
        add(task.label, task.ids, Ids::from(task.ids).to_string(), got);
    }

    let objects = observe::ipc_objects(created.pid())?;
    for object in scenario.objects {
        let id = object.id();
        let got = created.object(id).and_then(|()| {
            let list = object.kind.list();
            let is_listed = objects.contains(&(object.kind, id));
            is_listed.then(|| vec![id]).ok_or(format!("not in {list}"))
        });
        let asked = format!("{id} = {} << 15 | {}", object.sequence, object.index);
        add(object.kind.to_string(), &[id], asked, got);
    }

    created.remove()?;
    print_title(scenario.title);
    print_table(["object", "asked for", "got"], 2, &rows);
    Ok(outcome)
}

fn count_equal(got: &[i64], wanted: &[i64]) -> usize {
    got.iter().zip(wanted).filter(|(got, wanted)| got == wanted).count()
}
