// SPDX-License-Identifier: GPL-2.0

//! Objects of all kinds with chosen ids, and each error.
//!
//! It takes root. On a kernel without `next_id` the fallback is tested, so that most of this runs
//! everywhere. Only a process of one thread may fork, so it brings its own `main`.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nextid::{Action, Child, Error, Holder, IPC_PRIVATE, Id, Method, NextId, Role, ipc_id};
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::{set_child_subreaper, set_dumpable, set_pdeathsig};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, wait, waitpid};
use nix::unistd::{ForkResult, Pid, Uid, fork, getpid, gettid, pause, setpgid, setresuid};
use testing::{Outcome, ensure, test};

fn main() -> ExitCode {
    let root = testing::enter_namespaces().err();
    let (file, no_file) = if NextId::open().is_ok() {
        (Some("this kernel has next_id"), None)
    } else {
        (None, Some("this kernel has no next_id"))
    };
    testing::run(vec![
        test("fork_gets_its_id", root, fork_gets_its_id),
        test("fork_gets_its_ids_in_a_nested_namespace", root, fork_nested),
        test("fork_of_a_pid_in_use_names_the_holder", root, fork_taken),
        test("fork_of_an_outer_pid_in_use_names_the_holder", root, fork_taken_outside),
        test("fork_of_a_process_group_in_use_names_the_holder", root, fork_taken_by_group),
        test("fork_into_a_new_namespace_says_why_not", root, fork_refused_in_a_new_namespace),
        test("fork_several_levels_down_says_why_not", root, fork_refused_several_levels_down),
        test("fork_below_the_range", root, || fork_out_of_range(0)),
        test("fork_above_the_range", root, || fork_out_of_range(1 << 30)),
        test("fork_beyond_int", root, || fork_out_of_range(Id::MAX)),
        test("fork_with_more_ids_than_namespaces", root, fork_too_many_levels),
        test("fork_without_privilege", root, fork_without_privilege),
        test("fork_with_threads_is_refused", root, fork_with_threads),
        test("fork_waits_for_joined_threads_to_be_gone", root, fork_after_a_join),
        test("fork_closes_the_file_in_the_child", root.or(no_file), fork_closes_the_file),
        test("a_child_that_panics_exits_with_101", root, child_panics),
        test("thread_gets_its_id", root, thread_gets_its_id),
        test("thread_of_an_id_in_use", root, thread_taken),
        test("ids_used_up_in_between_are_an_error", root.or(no_file), used_up),
        test("libc_knows_the_id_of_a_forked_thread", root, libc_knows_the_id),
        test("thread_with_another_pid_namespace_for_children", root, thread_after_unshare),
        test("program_gets_its_id", no_file, program_gets_its_id),
        test("program_that_is_not_there", no_file, program_missing),
        test("message_queue_gets_its_id", root, message_queue),
        test("semaphore_set_gets_its_id", root, semaphore_set),
        test("shared_memory_gets_its_id", root, shared_memory),
        test("ipc_mode_is_no_flags", root, ipc_mode),
        test("ipc_index_in_use_names_the_holder", root, ipc_taken),
        test("ipc_key_in_use", root, ipc_key_in_use),
        test("ipc_out_of_range", root, ipc_out_of_range),
        test("no_ids_cannot_be_armed", None, no_ids),
        test("more_than_65536_ids_cannot_be_armed", None, too_many_ids),
        test("what_is_armed_is_read_back", no_file, read_back),
        test("armed_ids_that_are_not_used_are_disarmed", no_file, unused),
        test(
            "a_process_that_is_not_dumpable_can_arm",
            root.or(no_file).or(testing::no_user_namespaces()),
            not_dumpable,
        ),
        test("without_the_file_it_is_not_supported", file, not_supported),
    ])
}

fn open() -> NextId {
    NextId::open_or_fallback().expect("to open")
}

fn free_pid() -> Id {
    testing::free_pid().into()
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

/// Checks what is said of ids that the kernel refuses, where children are in a pid namespace below
/// the caller's: `inner` are ids that are free from there outwards, `taken` is in use in the
/// caller's, which is the last of `levels` that `/proc` shows.
fn check_refusals(inner: &[Id], taken: Id, levels: usize) {
    let refused = fork_below(inner, &[taken]);
    let is_taken = matches!(holder(&refused), Some((id, _)) if id == taken);
    assert!(is_taken, "{refused:?}");
    let refused = fork_below(inner, &[1 << 30]);
    assert!(matches!(refused, Err(Error::OutOfRange { .. })), "{refused:?}");
    assert_eq!(child_levels(), levels + inner.len());
}

fn fork_below(inner: &[Id], outer: &[Id]) -> nextid::Result<Child> {
    open().arm(&[inner, outer].concat()).unwrap().fork(|| 0)
}

/// The id that was in use, and the process that has it.
fn holder(refused: &nextid::Result<Child>) -> Option<(Id, Id)> {
    match *refused {
        Err(Error::Taken { holder: Some(Holder::Task { id, pid, .. }), .. }) => {
            Some((id, pid.into()))
        }
        _ => None,
    }
}

/// In how many pid namespaces a child is said to be.
fn child_levels() -> usize {
    match fork_below(&[], &[7; 34]) {
        Err(Error::TooManyLevels { levels, .. }) => levels,
        other => panic!("{other:?}"),
    }
}

/// Stays until it is killed, or its parent ends.
fn stay() -> i32 {
    set_pdeathsig(Signal::SIGKILL).unwrap();
    pause();
    0
}

fn end(child: Child) {
    kill(Pid::from_raw(child.pid()), Signal::SIGKILL).unwrap();
    child.wait().unwrap();
}

fn fork_refused_in_a_new_namespace() -> Outcome {
    let taken = Id::from(getpid().as_raw());
    in_child(move || {
        let levels = child_levels();
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        check_refusals(&[1], taken, levels);

        let first = open().arm(&[1, free_pid()]).unwrap().fork(stay).unwrap();
        check_refusals(&[7], taken, levels);
        assert_eq!(holder(&fork_below(&[1], &[free_pid()])), Some((1, first.pid().into())));
        end(first);
    })
}

/// `setns` may choose a namespace for children that is more than one level below the caller.
fn fork_refused_several_levels_down() -> Outcome {
    let taken = Id::from(getpid().as_raw());
    in_child(move || {
        let levels = child_levels();
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        let below = free_pid();
        let (mut told, mut tell) = UnixStream::pair().unwrap();
        let first = open().arm(&[1, free_pid()]).unwrap().fork(move || {
            unshare(CloneFlags::CLONE_NEWPID).unwrap();
            let _below = open().arm(&[1, 5, below]).unwrap().fork(stay).unwrap();
            tell.write_all(&[0]).unwrap();
            stay()
        });
        let first = first.unwrap();
        told.read_exact(&mut [0]).unwrap();
        let namespace = File::open(format!("/proc/{below}/ns/pid")).unwrap();
        setns(namespace, CloneFlags::CLONE_NEWPID).unwrap();

        check_refusals(&[7, 8], taken, levels);
        let outer = [free_pid()];
        assert_eq!(holder(&fork_below(&[7, 1], &outer)), Some((1, first.pid().into())));
        assert_eq!(holder(&fork_below(&[1, 8], &outer)), Some((1, below)));
        assert!(fork_below(&[7, 8], &outer).unwrap().wait().unwrap().success());
        end(first);
    })
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
    let (stop, stopped) = mpsc::channel::<()>();
    let other = thread::spawn(move || stopped.recv());
    let refused = open().arm(&[free_pid()])?.fork(|| 0);
    drop(stop);
    let _ = other.join();
    ensure(matches!(refused, Err(Error::Threaded)), refused)?;
    let child = open().arm(&[free_pid()])?.fork(|| 0)?;
    ensure(child.wait()?.success(), "no child")
}

/// A thread is gone only some time after it is joined: here its tracer keeps it for longer.
fn fork_after_a_join() -> Outcome {
    let (mut ours, mut theirs) = UnixStream::pair()?;
    let tracer = open().arm(&[free_pid()])?.fork(move || {
        let mut tid = [0; 4];
        theirs.read_exact(&mut tid).unwrap();
        let tid = i32::from_ne_bytes(tid);
        // SAFETY: The request takes no pointer.
        let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, tid, 0, 0) };
        assert_eq!(seized, 0);
        theirs.write_all(&[0]).unwrap();
        // The thread is joined.
        theirs.read_exact(&mut [0]).unwrap();
        thread::sleep(Duration::from_millis(100));
        waitpid(Pid::from_raw(tid), Some(WaitPidFlag::__WALL)).unwrap();
        0
    })?;
    let (stop, stopped) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        tell.send(gettid().as_raw()).unwrap();
        stopped.recv()
    });
    ours.write_all(&told.recv()?.to_ne_bytes())?;
    ours.read_exact(&mut [0])?;
    drop(stop);
    let _ = thread.join();
    ours.write_all(&[0])?;
    let forked = open().arm(&[free_pid()])?.fork(|| 0).and_then(Child::wait);
    ensure(tracer.wait()?.success(), "not traced")?;
    ensure(forked.as_ref().is_ok_and(ExitStatus::success), forked)
}

/// It serves the parent only, and a process deep in a tree would have one of each ancestor.
fn fork_closes_the_file() -> Outcome {
    let mut next = open();
    ensure(open_files() == 1, open_files())?;
    let child = next.arm(&[free_pid()])?.fork(open_files)?;
    let status = child.wait()?;
    ensure(status.success(), status)
}

/// How many `next_id` files this process has open.
fn open_files() -> i32 {
    let links = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let paths = links.filter_map(|link| fs::read_link(link.path()).ok());
    paths.map(|path| i32::from(path.ends_with("next_id"))).sum()
}

fn child_panics() -> Outcome {
    let child = open().arm(&[free_pid()])?.fork(|| std::panic::resume_unwind(Box::new(())))?;
    let status = child.wait()?;
    ensure(status.code() == Some(101), status)
}

fn thread_gets_its_id() -> Outcome {
    let tid = free_pid();
    let thread = open().arm(&[tid])?.thread(thread::Builder::new(), gettid)?;
    let got = thread.join().expect("it does not panic");
    ensure(Id::from(got.as_raw()) == tid, got)
}

fn thread_taken() -> Outcome {
    let own = Id::from(getpid().as_raw());
    let refused = open().arm(&[own])?.thread(thread::Builder::new(), || ());
    ensure(matches!(refused, Err(Error::Taken { action: Action::Thread, .. })), refused)
}

/// What comes out with another id is undone, and does not run.
fn used_up() -> Outcome {
    let (pid, queue, index) = (free_pid(), libc::IPC_PRIVATE, ipc_id(3, 40));
    let (mut next, mut other) = (open(), open());

    let armed = next.arm(&[pid])?;
    let kept = Command::new("true").status()?;
    ensure(kept.success(), kept)?;
    let refused = armed.fork(|| panic!("it runs"));
    ensure(matches!(refused, Err(Error::UsedUp { action: Action::Fork, .. })), refused)?;
    let waited = wait();
    ensure(waited == Err(nix::errno::Errno::ECHILD), waited)?;

    let armed = next.arm(&[free_pid()])?;
    other.arm(&[free_pid() + 1])?.keep()?;
    let refused = armed.thread(thread::Builder::new(), || panic!("it runs"));
    ensure(matches!(refused, Err(Error::UsedUp { action: Action::Thread, .. })), refused)?;

    let armed = next.arm(&[free_pid()])?;
    other.arm(&[free_pid() + 1])?.keep()?;
    let refused = armed.spawn(Command::new("sleep").arg("1000"));
    ensure(matches!(refused, Err(Error::UsedUp { action: Action::Spawn, .. })), refused)?;

    let armed = next.arm(&[index])?;
    other.arm(&[index + 1])?.keep()?;
    let refused = armed.message_queue(queue, 0o600);
    ensure(matches!(refused, Err(Error::UsedUp { action: Action::MessageQueue, .. })), refused)?;
    // It is free again.
    let id = next.arm(&[index + 1])?.message_queue(queue, 0o600)?;
    ensure(Id::from(id) == index + 1, id)
}

/// To signal a thread, and to change the user of all, libc needs its id.
fn libc_knows_the_id() -> Outcome {
    in_child(|| {
        // SAFETY: It has no preconditions.
        let main = unsafe { libc::pthread_self() };
        // SAFETY: The thread runs until this one is joined. No signal is sent.
        let killed = thread::spawn(move || unsafe { libc::pthread_kill(main, 0) });
        assert_eq!(killed.join().unwrap(), 0);
    })
}

fn thread_after_unshare() -> Outcome {
    in_child(|| {
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        let refused = open().arm(&[free_pid()]).unwrap().thread(thread::Builder::new(), || ());
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("another pid namespace for children"), "{message}");
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

/// The kernel takes bits above the permissions for flags: 0o4000 for huge pages, which few machines
/// have to give.
fn ipc_mode() -> Outcome {
    let id = open().arm(&[ipc_id(5, 12)])?.shared_memory(IPC_PRIVATE, 4096, 0o7640)?;
    // SAFETY: All-zero bytes are a valid `shmid_ds`, and it is valid to be filled.
    let mode = unsafe {
        let mut state: libc::shmid_ds = std::mem::zeroed();
        let filled = libc::shmctl(id, libc::IPC_STAT, &raw mut state);
        ensure(filled == 0, filled)?;
        u32::from(state.shm_perm.mode)
    };
    ensure(mode == 0o640, mode)
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

/// Its files in `/proc` belong to root.
fn not_dumpable() -> Outcome {
    in_child(|| {
        let nobody = Uid::from(65534);
        setresuid(nobody, nobody, nobody).unwrap();
        // It comes with the capability to arm.
        unshare(CloneFlags::CLONE_NEWUSER).unwrap();
        let mut next = NextId::open().unwrap();
        next.arm(&[7]).unwrap().keep().unwrap();
        let refused = next.armed();
        assert!(matches!(refused, Err(Error::NotPermitted { .. })), "{refused:?}");
        set_dumpable(true).unwrap();
        assert_eq!(next.armed().unwrap(), [7]);
    })
}

fn not_supported() -> Outcome {
    let opened = NextId::open();
    ensure(matches!(opened, Err(Error::NotSupported)), opened)?;
    ensure(open().method() == Method::Fallback, open().method())?;
    let kept = open().arm(&[7])?.keep();
    ensure(matches!(kept, Err(Error::NotSupported)), kept)?;
    let spawned = open().arm(&[7])?.spawn(&mut Command::new("true"));
    ensure(matches!(spawned, Err(Error::NotSupported)), spawned)
}
