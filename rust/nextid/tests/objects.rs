// SPDX-License-Identifier: GPL-2.0

//! Objects of all kinds with chosen ids, and each error.
//!
//! It takes root. On a kernel without `next_id` it is the peers that are tested, so that most of
//! this runs everywhere. Only a process of one thread may fork, so it brings its own `main`.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use libtest_mimic::{Arguments, Failed, Trial};
use nextid::{Action, Error, Holder, IPC_PRIVATE, Id, Method, NextId, Role};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::wait;
use nix::unistd::{ForkResult, Pid, Uid, fork, geteuid, getpid, gettid, pause, setpgid, setresuid};

type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);

    let root = geteuid().is_root() && unshare(CloneFlags::CLONE_NEWIPC).is_ok();
    let file = NextId::open().is_ok();
    let test =
        |name, needs: bool, run: fn() -> Outcome| Trial::test(name, run).with_ignored_flag(!needs);
    let tests = vec![
        test("fork_gets_its_id", root, fork_gets_its_id),
        test("fork_gets_its_ids_in_a_nested_namespace", root, fork_nested),
        test("fork_of_a_pid_in_use_names_the_holder", root, fork_taken),
        test("fork_of_an_outer_pid_in_use_names_the_holder", root, fork_taken_outside),
        test("fork_of_a_process_group_in_use_names_the_holder", root, fork_taken_by_group),
        test("fork_below_the_range", root, || fork_out_of_range(0)),
        test("fork_above_the_range", root, || fork_out_of_range(1 << 30)),
        test("fork_beyond_int", root, || fork_out_of_range(Id::MAX)),
        test("fork_with_more_ids_than_namespaces", root, fork_too_many_levels),
        test("fork_without_privilege", root, fork_without_privilege),
        test("fork_with_threads_is_refused", root, fork_with_threads),
        test("a_child_that_panics_exits_with_101", root, child_panics),
        test("thread_gets_its_id", root, thread_gets_its_id),
        test("thread_of_an_id_in_use", root, thread_taken),
        test("program_gets_its_id", file, program_gets_its_id),
        test("program_that_is_not_there", file, program_missing),
        test("message_queue_gets_its_id", root, message_queue),
        test("semaphore_set_gets_its_id", root, semaphore_set),
        test("shared_memory_gets_its_id", root, shared_memory),
        test("ipc_index_in_use_names_the_holder", root, ipc_taken),
        test("ipc_key_in_use", root, ipc_key_in_use),
        test("ipc_out_of_range", root, ipc_out_of_range),
        test("no_ids_cannot_be_armed", true, no_ids),
        test("more_than_65536_ids_cannot_be_armed", true, too_many_ids),
        test("what_is_armed_is_read_back", file, read_back),
        test("armed_ids_that_are_not_used_are_disarmed", file, unused),
        test("without_the_file_it_is_not_supported", !file, not_supported),
    ];
    libtest_mimic::run(&arguments, tests).exit_code()
}

fn open() -> NextId {
    NextId::open_or_peers().expect("to open")
}

/// A pid that nothing uses, another one each time.
fn free_pid() -> Id {
    static NEXT: AtomicI32 = AtomicI32::new(20_000);
    loop {
        let pid = NEXT.fetch_add(1, Relaxed);
        if !Path::new(&format!("/proc/{pid}")).exists() {
            return pid.into();
        }
    }
}

fn ipc_id(sequence: Id, index: Id) -> Id {
    sequence << 15 | index
}

fn ensure(holds: bool, what: impl std::fmt::Debug) -> Outcome {
    if holds { Ok(()) } else { Err(format!("unexpected: {what:?}").into()) }
}

/// Runs `child` in a forked process, and takes its panics for its own.
fn in_child(child: impl FnOnce() + std::panic::UnwindSafe) -> Outcome {
    let run = || {
        child();
        0
    };
    let status = open().arm(&[free_pid()])?.fork(run)?.wait()?;
    ensure(status.success(), status)
}

fn fork_gets_its_id() -> Outcome {
    let pid = free_pid();
    let child = open().arm(&[pid])?.fork(move || i32::from(Id::from(getpid().as_raw()) != pid))?;
    ensure(Id::from(child.pid()) == pid, child.pid())?;
    ensure(child.wait()?.success(), "another pid in the child")
}

fn fork_nested() -> Outcome {
    in_child(|| {
        let pid = free_pid();
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        let child = open().arm(&[1, pid]).unwrap().fork(|| getpid().as_raw()).unwrap();
        assert_eq!(Id::from(child.pid()), pid);
        assert_eq!(child.wait().unwrap().code(), Some(1));
    })
}

fn fork_taken() -> Outcome {
    let own = Id::from(getpid().as_raw());
    let mut next = open();
    let refused = next.arm(&[own])?.fork(|| 0);
    ensure(next.armed()?.is_empty(), "still armed")?;
    match refused {
        Err(Error::Taken { holder: Some(Holder::Task { id, role, pid, .. }), .. }) => {
            ensure((id, role, Id::from(pid)) == (own, Role::Task, own), (id, role, pid))
        }
        other => ensure(false, other),
    }
}

/// The id in use is one of an outer namespace, which the caller cannot look into but by `/proc`.
fn fork_taken_outside() -> Outcome {
    let taken = Id::from(getpid().as_raw());
    in_child(move || {
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        let pid = free_pid();
        let child = open().arm(&[1, pid]).unwrap().fork(|| {
            match open().arm(&[7, taken]).unwrap().fork(|| 0) {
                Err(Error::Taken { holder: Some(Holder::Task { id, .. }), .. }) if id == taken => 0,
                other => panic!("{other:?}"),
            }
        });
        assert!(child.unwrap().wait().unwrap().success());
    })
}

/// A pid is in use as long as a process group has it, though its process is gone.
fn fork_taken_by_group() -> Outcome {
    let group = free_pid();
    // What the leader leaves behind becomes a child of this process.
    set_child_subreaper(true)?;
    let leader = open().arm(&[group])?.fork(|| {
        setpgid(Pid::from_raw(0), Pid::from_raw(0)).unwrap();
        // SAFETY: This process has no other thread.
        if let ForkResult::Child = unsafe { fork() }.unwrap() {
            pause();
        }
        0
    })?;
    leader.wait()?;
    let refused = open().arm(&[group])?.fork(|| 0);
    killpg(Pid::from_raw(i32::try_from(group)?), Signal::SIGKILL)?;
    wait()?;
    match refused {
        Err(Error::Taken { holder: Some(Holder::Task { id, role, .. }), .. }) => {
            ensure((id, role) == (group, Role::Group), (id, role))
        }
        other => ensure(false, other),
    }
}

fn fork_out_of_range(pid: Id) -> Outcome {
    match open().arm(&[pid])?.fork(|| 0) {
        Err(Error::OutOfRange { action: Action::Fork, ids }) if ids.0 == [pid] => Ok(()),
        other => ensure(false, other),
    }
}

fn fork_too_many_levels() -> Outcome {
    let first = free_pid();
    let ids: Vec<Id> = (first..first + 34).collect();
    match open().arm(&ids)?.fork(|| 0) {
        Err(Error::TooManyLevels { levels, .. }) if levels < 34 => Ok(()),
        other => ensure(false, other),
    }
}

fn fork_without_privilege() -> Outcome {
    in_child(|| {
        let pid = free_pid();
        let mut next = open();
        let nobody = Uid::from(65534);
        setresuid(nobody, nobody, nobody).unwrap();
        let refused = next.arm(&[pid]).and_then(|armed| armed.fork(|| 0));
        assert!(matches!(refused, Err(Error::NotPermitted { .. })), "{refused:?}");
    })
}

fn fork_with_threads() -> Outcome {
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let other = thread::spawn(move || stopped.recv());
    let refused = open().arm(&[free_pid()])?.fork(|| 0);
    drop(stop);
    let _ = other.join();
    ensure(matches!(refused, Err(Error::Threaded)), refused)?;
    // A thread is gone only some time after it is joined.
    while std::fs::read_dir("/proc/self/task")?.count() > 1 {
        thread::yield_now();
    }
    Ok(())
}

fn child_panics() -> Outcome {
    let child = open().arm(&[free_pid()])?.fork(|| std::panic::resume_unwind(Box::new(())))?;
    let status = child.wait()?;
    ensure(status.code() == Some(101), status)
}

/// Runs in a child: a test thread would keep later tests from forking for a moment.
fn thread_gets_its_id() -> Outcome {
    in_child(|| {
        let tid = free_pid();
        let got = open().arm(&[tid]).unwrap().thread(thread::Builder::new(), gettid).unwrap();
        assert_eq!(Id::from(got.join().unwrap().as_raw()), tid);
    })
}

fn thread_taken() -> Outcome {
    in_child(|| {
        let own = Id::from(getpid().as_raw());
        let refused = open().arm(&[own]).unwrap().thread(thread::Builder::new(), || ());
        assert!(matches!(refused, Err(Error::Taken { action: Action::Thread, .. })), "{refused:?}");
    })
}

fn program_gets_its_id() -> Outcome {
    let pid = free_pid();
    let mut child = open().arm(&[pid])?.spawn(&mut Command::new("true"))?;
    let got = child.id();
    child.wait()?;
    ensure(Id::from(got) == pid, got)
}

fn program_missing() -> Outcome {
    let mut next = open();
    let refused = next.arm(&[free_pid()])?.spawn(&mut Command::new("/does/not/exist"));
    ensure(matches!(refused, Err(Error::System { action: Action::Spawn, .. })), refused)?;
    ensure(next.armed()?.is_empty(), "still armed")
}

fn message_queue() -> Outcome {
    let id = ipc_id(3, 9);
    let got = open().arm(&[id])?.message_queue(IPC_PRIVATE, 0o600)?;
    ensure(Id::from(got) == id, got)
}

fn semaphore_set() -> Outcome {
    let id = ipc_id(4, 10);
    let got = open().arm(&[id])?.semaphore_set(IPC_PRIVATE, 3, 0o600)?;
    ensure(Id::from(got) == id, got)
}

fn shared_memory() -> Outcome {
    let id = ipc_id(5, 11);
    let got = open().arm(&[id])?.shared_memory(IPC_PRIVATE, 4096, 0o600)?;
    ensure(Id::from(got) == id, got)
}

fn ipc_taken() -> Outcome {
    let id = ipc_id(6, 12);
    open().arm(&[id])?.message_queue(0x4242, 0o600)?;
    match open().arm(&[ipc_id(7, 12)])?.message_queue(IPC_PRIVATE, 0o600) {
        Err(Error::Taken { holder: Some(Holder::Object { id: holder, key, uid }), .. }) => {
            ensure((holder, key, uid) == (id, 0x4242, 0), (holder, key, uid))
        }
        other => ensure(false, other),
    }
}

fn ipc_key_in_use() -> Outcome {
    open().arm(&[ipc_id(1, 20)])?.semaphore_set(0x4343, 1, 0o600)?;
    match open().arm(&[ipc_id(1, 21)])?.semaphore_set(0x4343, 1, 0o600) {
        Err(Error::KeyInUse { action: Action::SemaphoreSet, key: 0x4343 }) => {}
        other => return ensure(false, other),
    }
    // Nothing is left for the next object, whoever creates it.
    // SAFETY: No pointer is passed.
    let id = unsafe { libc::semget(libc::IPC_PRIVATE, 1, 0o600) };
    ensure(id >= 0 && Id::from(id) != ipc_id(1, 21), id)
}

fn ipc_out_of_range() -> Outcome {
    match open().arm(&[-1])?.shared_memory(IPC_PRIVATE, 4096, 0o600) {
        Err(Error::OutOfRange { action: Action::SharedMemory, .. }) => {}
        other => return ensure(false, other),
    }
    match open().arm(&[Id::from(libc::c_int::MAX) + 1])?.message_queue(IPC_PRIVATE, 0o600) {
        Err(Error::OutOfRange { action: Action::MessageQueue, .. }) => Ok(()),
        other => ensure(false, other),
    }
}

fn no_ids() -> Outcome {
    let refused = open().arm(&[]).map(drop);
    ensure(matches!(refused, Err(Error::Count(0))), refused)
}

fn too_many_ids() -> Outcome {
    let refused = open().arm(&vec![7; nextid::MAX_IDS + 1]).map(drop);
    ensure(matches!(refused, Err(Error::Count(65537))), refused)
}

fn read_back() -> Outcome {
    let mut next = open();
    for count in [1, 2, 32, 33, 512, 513, nextid::MAX_IDS] {
        let ids: Vec<Id> = (0..).map(|id: Id| id * 0x1234_5678_9abc).take(count).collect();
        next.arm(&ids)?.keep()?;
        ensure(next.armed()? == ids, count)?;
    }
    next.reset()?;
    ensure(next.armed()?.is_empty(), "still armed")
}

fn unused() -> Outcome {
    let mut next = open();
    drop(next.arm(&[free_pid()])?);
    ensure(next.armed()?.is_empty(), "still armed")
}

fn not_supported() -> Outcome {
    let opened = NextId::open();
    ensure(matches!(opened, Err(Error::NotSupported)), opened)?;
    ensure(open().method() == Method::Peers, open().method())?;
    let kept = open().arm(&[7])?.keep();
    ensure(matches!(kept, Err(Error::NotSupported)), kept)?;
    let spawned = open().arm(&[7])?.spawn(&mut Command::new("true"));
    ensure(matches!(spawned, Err(Error::NotSupported)), spawned)
}
