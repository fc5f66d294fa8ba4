// SPDX-License-Identifier: GPL-2.0

//! What tests share. Only a process of one thread may fork, so those that fork bring their own `main`,
//! which calls [`run`].

use std::fmt::Debug;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

pub use libtest_mimic::Failed;
use libtest_mimic::{Arguments, Completion, Trial};

/// What a test comes to.
pub type Outcome = Result<(), Failed>;

/// A test that is ignored where there is a `hindrance`, which says why.
#[must_use]
pub fn test(name: &str, hindrance: Option<&'static str>, run: fn() -> Outcome) -> Trial {
    Trial::ignorable_test(name, move || match hindrance {
        Some(why) => Ok(Completion::ignored_with(why)),
        None => run().map(|()| Completion::Completed),
    })
}

/// Runs those of `tests` that the command line asks for, one after the other.
#[must_use]
pub fn run(tests: Vec<Trial>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // With one thread the tests run in the main thread, and the process has no other.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, tests).exit_code()
}

/// # Errors
///
/// `what` there is, where the expected does not hold.
pub fn ensure(holds: bool, what: impl Debug) -> Outcome {
    if holds { Ok(()) } else { Err(format!("unexpected: {what:#?}").into()) }
}

/// Waits for up to ten seconds, and says whether the condition `holds` then.
pub fn wait_until(mut holds: impl FnMut() -> bool) -> bool {
    (0..500).any(|_| {
        let held = holds();
        if !held {
            sleep(Duration::from_millis(20));
        }
        held
    })
}
