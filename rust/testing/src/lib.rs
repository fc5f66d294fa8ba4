// SPDX-License-Identifier: GPL-2.0

//! What tests share. Only a process of one thread may fork, so those that fork bring their own
//! `main`, which calls [`run`].

pub mod images;
pub mod processes;

use std::fmt::Debug;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, exit};
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::{Arguments, Completion};
pub use libtest_mimic::{Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{ForkResult, fork, geteuid};

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

/// Fails with `what` unless it `holds`.
///
/// # Errors
///
/// `what`, as it is debugged.
pub fn ensure(holds: bool, what: impl Debug) -> Outcome {
    if holds { Ok(()) } else { Err(format!("unexpected: {what:#?}").into()) }
}

/// Why a test that takes a user namespace is ignored here, if it is: in a chroot none can be made.
#[must_use]
pub fn no_user_namespaces() -> Option<&'static str> {
    let made = Command::new("unshare").args(["--user", "true"]).output();
    let is_made = made.is_ok_and(|made| made.status.success());
    (!is_made).then_some("user namespaces cannot be made here, as in a chroot")
}

/// Why tests are ignored here: for each thing that they take to be there, or not to be there.
#[derive(Clone, Copy, Debug)]
pub struct Hindrances {
    /// Where it takes root, and this is not.
    pub not_root: Option<&'static str>,
    /// Where it takes `next_id`, and it is not there.
    pub no_file: Option<&'static str>,
    /// Where it takes a kernel without it.
    pub file: Option<&'static str>,
    /// Where it takes requests for one kind of object.
    pub no_kinds: Option<&'static str>,
    /// Where it takes a kernel without them.
    pub kinds: Option<&'static str>,
    /// Where it takes reservations.
    pub no_reservations: Option<&'static str>,
    /// Where it takes a kernel without them.
    pub reservations: Option<&'static str>,
}

/// Goes on in new namespaces, as [`enter_namespaces`] does if it can, and looks what the kernel
/// has.
#[must_use]
pub fn set_up() -> Hindrances {
    let not_root = enter_namespaces().err();
    let (file, kinds, reservations) = (has_next_id(), has_kinds(), has_reservations());
    Hindrances {
        not_root,
        no_file: (!file).then_some("this kernel has no next_id"),
        file: file.then_some("this kernel has next_id"),
        no_kinds: (!kinds).then_some("this kernel has no kinds"),
        kinds: kinds.then_some("this kernel has kinds"),
        no_reservations: (!reservations).then_some("this kernel has no reservations"),
        reservations: reservations.then_some("this kernel has reservations"),
    }
}

/// Whether the kernel has `next_id`.
#[must_use]
pub fn has_next_id() -> bool {
    Path::new("/proc/thread-self/next_id").exists()
}

/// Whether it knows requests for one kind of object.
#[must_use]
pub fn has_kinds() -> bool {
    kernel_takes("MSG 0")
}

/// Whether it has reservations.
#[must_use]
pub fn has_reservations() -> bool {
    kernel_takes(&format!("RESERVE PID {}", free_pid()))
}

/// Whether it takes a command for `next_id`. This does not ask the library, which is tested.
fn kernel_takes(command: &str) -> bool {
    let file = OpenOptions::new().write(true).open("/proc/thread-self/next_id");
    file.is_ok_and(|mut file| {
        let is_taken = file.write_all(command.as_bytes()).is_ok();
        let _ = file.write_all(b"RESET");
        is_taken
    })
}

/// Goes on in new pid, IPC and mount namespaces, in which nothing else takes ids. Where it cannot,
/// it says why not.
///
/// # Errors
///
/// Without privilege.
///
/// # Panics
///
/// If the new namespaces cannot be entered.
pub fn enter_namespaces() -> Result<(), &'static str> {
    let namespaces = CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    if !geteuid().is_root() || unshare(namespaces).is_err() {
        return Err("it takes root");
    }
    // The first process looks after orphans, as init does; the second one runs the tests.
    for is_first in [true, false] {
        // SAFETY: This process has no other threads.
        if let ForkResult::Parent { child } = unsafe { fork() }.expect("a process can be made") {
            loop {
                match wait().expect("there is a child") {
                    WaitStatus::Exited(pid, status) if pid == child => exit(status),
                    WaitStatus::Signaled(pid, ..) if pid == child => exit(101),
                    _ => {}
                }
            }
        }
        if is_first {
            // Where it is private, no other namespace gets the new one.
            let proc = Some("proc");
            mount(None::<&str>, "/proc", None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)
                .and_then(|()| mount(proc, "/proc", proc, MsFlags::empty(), None::<&str>))
                .expect("/proc can be mounted");
        }
    }
    Ok(())
}

/// A pid that nothing uses, another one each time.
pub fn free_pid() -> i32 {
    static NEXT: AtomicI32 = AtomicI32::new(20_000);
    loop {
        let pid = NEXT.fetch_add(1, Relaxed);
        if !Path::new(&format!("/proc/{pid}")).exists() {
            return pid;
        }
    }
}

/// Waits for up to a minute, and says whether the condition `holds` then.
pub fn wait_until(mut holds: impl FnMut() -> bool) -> bool {
    (0..3000).any(|_| {
        let held = holds();
        if !held {
            sleep(Duration::from_millis(20));
        }
        held
    })
}
