// SPDX-License-Identifier: GPL-2.0

//! Objects of all kinds with chosen ids, and each error.
//!
//! It takes root. On a kernel without `next_id` the fallback is tested, so that most of this runs
//! everywhere. Only a process of one thread may fork, so it brings its own `main`.

use std::error::Error as _;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, ExitStatus};
use std::sync::mpsc;
use std::thread;

use nextid::{
    Action, Child, Error, Feature, Holder, IPC_PRIVATE, IpcKind, Kind, MessageQueue, Method,
    NextId, Pids, Pty, Reservation, Role, SemaphoreSet, SharedMemory, ipc_id,
};
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::{set_child_subreaper, set_dumpable, set_pdeathsig};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, wait, waitpid};
use nix::unistd::{ForkResult, Pid, Uid, fork, getpid, getppid, gettid, pause, setpgid, setresuid};
use testing::{Failed, Hindrances, Outcome, ensure, test};

fn main() -> ExitCode {
    let Hindrances { not_root: root, no_file, file, no_kinds, kinds, no_reservations, .. } =
        testing::set_up();
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
        test("fork_beyond_int", root, || fork_out_of_range(i64::MAX)),
        test("fork_with_more_ids_than_namespaces", root, fork_too_many_levels),
        test("fork_without_privilege", root, fork_without_privilege),
        test("fork_with_threads_is_refused", root, fork_with_threads),
        test("fork_waits_for_joined_threads_to_be_gone", root, fork_after_a_join),
        test("fork_counts_a_first_thread_that_has_ended", root, fork_after_the_first_thread),
        test("fork_closes_the_file_in_the_child", root.or(no_file), fork_closes_the_file),
        test("a_child_that_panics_exits_with_101", root, child_panics),
        test("thread_gets_its_id", root, thread_gets_its_id),
        test("threads_of_several_processes_get_their_ids", root, threads_side_by_side),
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
        test("a_request_is_for_its_kind_alone", root.or(no_kinds), one_kind),
        test("pty_gets_its_index", root.or(no_kinds), pty),
        test("pty_of_an_index_in_use", root.or(no_kinds), pty_taken),
        test("no_pty_without_kinds", kinds, no_pty_without_kinds),
        test("reserved_pids_are_for_who_names_them", root.or(no_reservations), reserved_pids),
        test("reserved_ipc_ids_are_for_who_names_them", root.or(no_reservations), reserved_ipc),
        test("reserved_ids_are_for_older_ways_to_name_them", root.or(no_reservations), older_ways),
        test("reservation_is_all_or_none", root.or(no_reservations), reservation_all_or_none),
        test("reservation_names_who_is_in_the_way", root.or(no_reservations), reservation_taken),
        test("reservation_elsewhere_holds_nothing_here", root.or(no_reservations), elsewhere),
        test("reservation_ends_when_it_is_dropped", root.or(no_reservations), reservation_dropped),
        test("reservation_of_what_cannot_be", root.or(no_reservations), reservation_out_of_range),
        test("reservation_of_free_pids", root.or(no_reservations), reservation_of_free_pids),
        test("no_ids_cannot_be_armed", None, no_ids),
        test("more_than_33_ids_cannot_be_armed", None, too_many_ids),
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

fn free_pid() -> i64 {
    testing::free_pid().into()
}

/// Who has the ids that are in use, where that is why something was refused.
fn holders<T>(refused: &nextid::Result<T>) -> Vec<Holder> {
    refused.as_ref().err().map(Error::holders).unwrap_or_default()
}

/// Runs `child` in a forked process, and takes its panics for its own.
fn in_child(child: impl FnOnce() + std::panic::UnwindSafe) -> Outcome {
    let run = || {
        child();
        0
    };
    let status = open().arm(Pids(&[free_pid()]))?.fork(run)?.wait()?;
    ensure(status.success(), status)
}

fn fork_gets_its_id() -> Outcome {
    let pid = free_pid();
    let child =
        open().arm(Pids(&[pid]))?.fork(move || i32::from(i64::from(getpid().as_raw()) != pid))?;
    ensure(i64::from(child.pid()) == pid, child.pid())?;
    ensure(child.wait()?.success(), "another pid in the child")
}

fn fork_nested() -> Outcome {
    in_child(|| {
        let pid = free_pid();
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        let child = open().arm(Pids(&[1, pid])).unwrap().fork(|| getpid().as_raw()).unwrap();
        assert_eq!(i64::from(child.pid()), pid);
        assert_eq!(child.wait().unwrap().code(), Some(1));
    })
}

fn fork_taken() -> Outcome {
    let own = i64::from(getpid().as_raw());
    let mut next = open();
    let refused = next.arm(Pids(&[own]))?.fork(|| 0);
    ensure(next.armed()?.is_none(), "still armed")?;
    match *holders(&refused) {
        [Holder::Task { id, role, pid, .. }] => {
            ensure((id, role, i64::from(pid)) == (own, Role::Task, own), (id, role, pid))
        }
        ref other => ensure(false, other),
    }
}

/// The id in use is one of an outer namespace, which the caller cannot look into but by `/proc`.
fn fork_taken_outside() -> Outcome {
    let taken = i64::from(getpid().as_raw());
    in_child(move || {
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        let pid = free_pid();
        let child = open().arm(Pids(&[1, pid])).unwrap().fork(|| {
            match *holders(&open().arm(Pids(&[7, taken])).unwrap().fork(|| 0)) {
                [Holder::Task { id, .. }] if id == taken => 0,
                ref other => panic!("{other:?}"),
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
    let leader = open().arm(Pids(&[group]))?.fork(|| {
        setpgid(Pid::from_raw(0), Pid::from_raw(0)).unwrap();
        // SAFETY: This process has no other thread.
        if let ForkResult::Child = unsafe { fork() }.unwrap() {
            pause();
        }
        0
    })?;
    leader.wait()?;
    let holders = holders(&open().arm(Pids(&[group]))?.fork(|| 0));
    killpg(Pid::from_raw(i32::try_from(group)?), Signal::SIGKILL)?;
    wait()?;
    match *holders {
        [Holder::Task { id, role, .. }] => ensure((id, role) == (group, Role::Group), (id, role)),
        ref other => ensure(false, other),
    }
}

/// Checks what is said of ids that the kernel refuses, where children are in a pid namespace below
/// the caller's: `inner` are ids that are free from there outwards, `taken` is in use in the
/// caller's, which is the last of `levels` that `/proc` shows.
fn check_refusals(inner: &[i64], taken: i64, levels: usize) {
    let refused = fork_below(inner, &[taken]);
    let is_taken = matches!(holder(&refused), Some((id, _)) if id == taken);
    assert!(is_taken, "{refused:?}");
    let refused = fork_below(inner, &[1 << 30]);
    assert!(matches!(refused, Err(Error::OutOfRange { .. })), "{refused:?}");
    assert_eq!(child_levels(), levels + inner.len());
}

fn fork_below(inner: &[i64], outer: &[i64]) -> nextid::Result<Child> {
    open().arm(Pids(&[inner, outer].concat())).unwrap().fork(|| 0)
}

/// The id that was in use, and the process that has it.
fn holder(refused: &nextid::Result<Child>) -> Option<(i64, i64)> {
    match *holders(refused) {
        [Holder::Task { id, pid, .. }] => Some((id, pid.into())),
        _ => None,
    }
}

/// In how many pid namespaces a child is said to be.
fn child_levels() -> usize {
    match fork_below(&[], &[7; 33]) {
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
    let taken = i64::from(getpid().as_raw());
    in_child(move || {
        let levels = child_levels();
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        check_refusals(&[1], taken, levels);

        let first = open().arm(Pids(&[1, free_pid()])).unwrap().fork(stay).unwrap();
        check_refusals(&[7], taken, levels);
        assert_eq!(holder(&fork_below(&[1], &[free_pid()])), Some((1, first.pid().into())));
        end(first);
    })
}

/// `setns` may choose a namespace for children that is more than one level below the caller.
fn fork_refused_several_levels_down() -> Outcome {
    let taken = i64::from(getpid().as_raw());
    in_child(move || {
        let levels = child_levels();
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        let below = free_pid();
        let (mut told, mut tell) = UnixStream::pair().unwrap();
        let first = open().arm(Pids(&[1, free_pid()])).unwrap().fork(move || {
            unshare(CloneFlags::CLONE_NEWPID).unwrap();
            let _below = open().arm(Pids(&[1, 5, below])).unwrap().fork(stay).unwrap();
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

fn fork_out_of_range(pid: i64) -> Outcome {
    match open().arm(Pids(&[pid])).and_then(|armed| armed.fork(|| 0)) {
        Err(Error::OutOfRange { ids, .. }) if *ids == [pid] => Ok(()),
        other => ensure(false, other),
    }
}

fn fork_too_many_levels() -> Outcome {
    let first = free_pid();
    let ids: Vec<i64> = (first..first + 33).collect();
    match open().arm(Pids(&ids))?.fork(|| 0) {
        Err(Error::TooManyLevels { levels, .. }) if levels < 33 => Ok(()),
        other => ensure(false, other),
    }
}

fn fork_without_privilege() -> Outcome {
    in_child(|| {
        let pid = free_pid();
        let mut next = open();
        let nobody = Uid::from(65534);
        setresuid(nobody, nobody, nobody).unwrap();
        let refused = next.arm(Pids(&[pid])).and_then(|armed| armed.fork(|| 0));
        assert!(matches!(refused, Err(Error::NotPermitted { .. })), "{refused:?}");
    })
}

fn fork_with_threads() -> Outcome {
    let (stop, stopped) = mpsc::channel::<()>();
    let other = thread::spawn(move || stopped.recv());
    let refused = open().arm(Pids(&[free_pid()]))?.fork(|| 0);
    drop(stop);
    let _ = other.join();
    ensure(matches!(refused, Err(Error::Threaded)), refused)?;
    let child = open().arm(Pids(&[free_pid()]))?.fork(|| 0)?;
    ensure(child.wait()?.success(), "no child")
}

/// A thread is gone only some time after it is joined: here its tracer keeps it until the fork
/// waits.
fn fork_after_a_join() -> Outcome {
    let (mut ours, mut theirs) = UnixStream::pair()?;
    let tracer = open().arm(Pids(&[free_pid()]))?.fork(move || {
        let mut tid = [0; 4];
        theirs.read_exact(&mut tid).unwrap();
        let tid = i32::from_ne_bytes(tid);
        // SAFETY: The request takes no pointer.
        let seized = unsafe { libc::ptrace(libc::PTRACE_SEIZE, tid, 0, 0) };
        assert_eq!(seized, 0);
        theirs.write_all(&[0]).unwrap();
        // The thread is joined: from now on, its process sleeps only where it waits for the thread
        // to be gone.
        theirs.read_exact(&mut [0]).unwrap();
        let stat = format!("/proc/{}/stat", getppid());
        let sleeps = || fs::read_to_string(&stat).is_ok_and(|it| it.contains(") S "));
        assert!(testing::wait_until(sleeps));
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
    let forked = open().arm(Pids(&[free_pid()]))?.fork(|| 0).and_then(Child::wait);
    ensure(tracer.wait()?.success(), "not traced")?;
    ensure(forked.as_ref().is_ok_and(ExitStatus::success), forked)
}

/// The first thread of a process stays until all others have ended.
fn fork_after_the_first_thread() -> Outcome {
    in_child(|| {
        thread::spawn(|| {
            let stat = format!("/proc/self/task/{}/stat", getpid());
            let has_ended = || fs::read_to_string(&stat).is_ok_and(|it| it.contains(") Z "));
            let is_alone = testing::wait_until(has_ended);
            let refused = open().arm(Pids(&[free_pid()])).unwrap().fork(|| 0);
            let is_refused = is_alone && matches!(refused, Err(Error::Threaded));
            // SAFETY: It has no preconditions.
            unsafe { libc::_exit(i32::from(!is_refused)) }
        });
        // SAFETY: It ends this thread, and no other uses what is on its stack.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    })
}

/// It serves the parent only, and a process deep in a tree would have one of each ancestor.
fn fork_closes_the_file() -> Outcome {
    let mut next = open();
    ensure(open_files() == 1, open_files())?;
    let child = next.arm(Pids(&[free_pid()]))?.fork(open_files)?;
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
    let child =
        open().arm(Pids(&[free_pid()]))?.fork(|| std::panic::resume_unwind(Box::new(())))?;
    let status = child.wait()?;
    ensure(status.code() == Some(101), status)
}

fn thread_gets_its_id() -> Outcome {
    let tid = free_pid();
    let thread = open().arm(Pids(&[tid]))?.thread(thread::Builder::new(), gettid)?;
    let got = thread.join().expect("it does not panic");
    ensure(i64::from(got.as_raw()) == tid, got)
}

/// None uses up what another process asked for.
fn threads_side_by_side() -> Outcome {
    let start = || {
        let tids: Vec<i64> = (0..50).map(|_| free_pid()).collect();
        open().arm(Pids(&[free_pid()]))?.fork(move || {
            for tid in tids {
                let thread =
                    open().arm(Pids(&[tid])).unwrap().thread(thread::Builder::new(), gettid);
                assert_eq!(i64::from(thread.unwrap().join().unwrap().as_raw()), tid);
            }
            0
        })
    };
    let children = (0..4).map(|_| start()).collect::<nextid::Result<Vec<_>>>()?;
    for child in children {
        let status = child.wait()?;
        ensure(status.success(), status)?;
    }
    Ok(())
}

fn thread_taken() -> Outcome {
    let own = i64::from(getpid().as_raw());
    let refused = open().arm(Pids(&[own]))?.thread(thread::Builder::new(), || ());
    ensure(matches!(refused, Err(Error::Taken { action: Action::Thread, .. })), refused)
}

/// What comes out with another id is undone, and does not run.
fn used_up() -> Outcome {
    let (pids, queue, index) = ([free_pid()], libc::IPC_PRIVATE, ipc_id(3, 40));
    let (mut next, mut other) = (open(), open());

    let armed = next.arm(Pids(&pids))?;
    let kept = Command::new("true").status()?;
    ensure(kept.success(), kept)?;
    let refused = armed.fork(|| panic!("it runs"));
    ensure(matches!(refused, Err(Error::UsedUp { action: Action::Fork, .. })), refused)?;
    let waited = wait();
    ensure(waited == Err(nix::errno::Errno::ECHILD), waited)?;

    let pids = [free_pid()];
    let armed = next.arm(Pids(&pids))?;
    other.arm(Pids(&[free_pid() + 1]))?.leave_armed()?;
    let refused = armed.thread(thread::Builder::new(), || panic!("it runs"));
    ensure(matches!(refused, Err(Error::UsedUp { action: Action::Thread, .. })), refused)?;

    let pids = [free_pid()];
    let armed = next.arm(Pids(&pids))?;
    other.arm(Pids(&[free_pid() + 1]))?.leave_armed()?;
    let refused = armed.spawn(Command::new("sleep").arg("1000"));
    ensure(matches!(refused, Err(Error::UsedUp { action: Action::Spawn, .. })), refused)?;

    let armed = next.arm(MessageQueue(index))?;
    other.arm(MessageQueue(index + 1))?.leave_armed()?;
    let refused = armed.create(queue, 0o600);
    let kind = IpcKind::MessageQueue;
    ensure(
        matches!(refused, Err(Error::UsedUp { action: Action::Create(it), .. }) if it == kind),
        refused,
    )?;
    // It is free again.
    let id = next.arm(MessageQueue(index + 1))?.create(queue, 0o600)?;
    ensure(i64::from(id) == index + 1, id)
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
        let refused =
            open().arm(Pids(&[free_pid()])).unwrap().thread(thread::Builder::new(), || ());
        let message = refused.unwrap_err().source().unwrap().to_string();
        assert!(message.contains("another pid namespace for children"), "{message}");
    })
}

fn program_gets_its_id() -> Outcome {
    let pid = free_pid();
    let mut child = open().arm(Pids(&[pid]))?.spawn(&mut Command::new("true"))?;
    let got = child.id();
    child.wait()?;
    ensure(i64::from(got) == pid, got)
}

fn program_missing() -> Outcome {
    let mut next = open();
    let refused = next.arm(Pids(&[free_pid()]))?.spawn(&mut Command::new("/does/not/exist"));
    ensure(matches!(refused, Err(Error::System { action: Action::Spawn, .. })), refused)?;
    ensure(next.armed()?.is_none(), "still armed")
}

fn message_queue() -> Outcome {
    let id = ipc_id(3, 9);
    let got = open().arm(MessageQueue(id))?.create(IPC_PRIVATE, 0o600)?;
    ensure(i64::from(got) == id, got)
}

fn semaphore_set() -> Outcome {
    let id = ipc_id(4, 10);
    let got = open().arm(SemaphoreSet(id))?.create(IPC_PRIVATE, 3, 0o600)?;
    ensure(i64::from(got) == id, got)
}

fn shared_memory() -> Outcome {
    let id = ipc_id(5, 11);
    let got = open().arm(SharedMemory(id))?.create(IPC_PRIVATE, 4096, 0o600)?;
    ensure(i64::from(got) == id, got)
}

/// The kernel takes bits above the permissions for flags: 0o4000 for huge pages, which few machines
/// have to give.
fn ipc_mode() -> Outcome {
    let id = open().arm(SharedMemory(ipc_id(5, 12)))?.create(IPC_PRIVATE, 4096, 0o7640)?;
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
    open().arm(MessageQueue(id))?.create(0x4242, 0o600)?;
    match *holders(&open().arm(MessageQueue(ipc_id(7, 12)))?.create(IPC_PRIVATE, 0o600)) {
        [Holder::Object { object, key, uid, .. }] => {
            ensure((object, key, uid) == (id, 0x4242, 0), (object, key, uid))
        }
        ref other => ensure(false, other),
    }
}

fn ipc_key_in_use() -> Outcome {
    open().arm(SemaphoreSet(ipc_id(1, 20)))?.create(0x4343, 1, 0o600)?;
    match open().arm(SemaphoreSet(ipc_id(1, 21)))?.create(0x4343, 1, 0o600) {
        Err(Error::KeyInUse { kind: IpcKind::SemaphoreSet, key: 0x4343 }) => {}
        other => return ensure(false, other),
    }
    // Nothing is left for the next object, whoever creates it.
    // SAFETY: No pointer is passed.
    let id = unsafe { libc::semget(libc::IPC_PRIVATE, 1, 0o600) };
    ensure(id >= 0 && i64::from(id) != ipc_id(1, 21), id)
}

fn ipc_out_of_range() -> Outcome {
    for id in [-1, i64::from(libc::c_int::MAX) + 1] {
        let refused = open().arm(MessageQueue(id)).and_then(|armed| armed.create(IPC_PRIVATE, 0));
        ensure(matches!(refused, Err(Error::OutOfRange { .. })), refused)?;
    }
    let refused = open().arm(SharedMemory(ipc_id(5, 13)))?.create(IPC_PRIVATE, 0, 0);
    let kind = IpcKind::SharedMemory;
    ensure(
        matches!(refused, Err(Error::OutOfRange { action: Action::Create(it), .. }) if it == kind),
        refused,
    )
}

/// A library that makes an object of another kind before the fork does not matter.
fn one_kind() -> Outcome {
    let (pids, id) = ([free_pid()], ipc_id(8, 50));
    let (mut next, mut other) = (open(), open());
    let armed = next.arm(Pids(&pids))?;
    let queue = IpcKind::MessageQueue.get(IPC_PRIVATE, 0, libc::IPC_CREAT)?;
    let child = armed.fork(|| 0)?;
    ensure(i64::from(child.pid()) == pids[0], child.pid())?;
    child.wait()?;

    let armed = next.arm(SharedMemory(id))?;
    ensure(Command::new("true").status()?.success(), "no child")?;
    let segment = armed.create(IPC_PRIVATE, 4096, 0o600)?;
    ensure(i64::from(segment) == id, segment)?;

    // A thread has one request.
    let armed = next.arm(MessageQueue(ipc_id(8, 51)))?;
    other.arm(SemaphoreSet(ipc_id(8, 52)))?.leave_armed()?;
    let refused = armed.create(IPC_PRIVATE, 0o600);
    ensure(matches!(refused, Err(Error::UsedUp { .. })), refused)?;
    Ok(IpcKind::MessageQueue.remove(queue)?)
}

fn pty() -> Outcome {
    let master = open().arm(Pty(77))?.open("/dev/ptmx")?;
    // SAFETY: The buffer is as long as told.
    let name = unsafe {
        let mut name = [0; 64];
        let result = libc::ptsname_r(master.as_raw_fd(), name.as_mut_ptr(), name.len());
        ensure(result == 0, result)?;
        CStr::from_ptr(name.as_ptr()).to_str()?.to_owned()
    };
    ensure(name == "/dev/pts/77", name)
}

fn pty_taken() -> Outcome {
    let _held = open().arm(Pty(78))?.open("/dev/ptmx")?;
    let refused = open().arm(Pty(78))?.open("/dev/ptmx");
    ensure(matches!(refused, Err(Error::Taken { action: Action::OpenPty, .. })), refused)?;
    let refused = open().arm(Pty(i64::from(i32::MAX)))?.open("/dev/ptmx");
    ensure(matches!(refused, Err(Error::OutOfRange { action: Action::OpenPty, .. })), refused)
}

fn no_pty_without_kinds() -> Outcome {
    let refused = open().arm(Pty(7)).map(drop);
    ensure(matches!(refused, Err(Error::NotSupported(Feature::Kinds))), refused)
}

fn reserve(kind: Kind, ids: &[i64]) -> nextid::Result<Reservation> {
    Reservation::new([(kind, ids)])
}

/// The id of a process for which the kernel chooses it, and would choose the one after `last`.
fn pid_after(last: i64) -> Result<i64, Failed> {
    fs::write("/proc/sys/kernel/ns_last_pid", last.to_string())?;
    // SAFETY: This process has no other thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            waitpid(child, None)?;
            Ok(child.as_raw().into())
        }
        // SAFETY: It has no preconditions.
        ForkResult::Child => unsafe { libc::_exit(0) },
    }
}

fn reserved_pids() -> Outcome {
    let (pid, other) = (free_pid(), free_pid());
    let held = reserve(Kind::Task, &[pid, other])?;
    let got = pid_after(pid - 1)?;
    ensure(got != pid && got != other, got)?;
    // Twice: it stays reserved when it is free again.
    for _ in 0..2 {
        let child = open().arm(Pids(&[pid]))?.fork(|| 0)?;
        ensure(i64::from(child.pid()) == pid, child.pid())?;
        child.wait()?;
        let got = pid_after(pid - 1)?;
        ensure(got != pid, got)?;
    }
    drop(held);
    let got = pid_after(pid - 1)?;
    ensure(got == pid, got)
}

fn reserved_ipc() -> Outcome {
    for kind in IpcKind::ALL {
        // The sysctl names it, and falls back to another index where that is in use.
        let free = kind.get(IPC_PRIVATE, 1, libc::IPC_CREAT)?;
        kind.remove(free)?;
        let held = reserve(kind.into(), &[i64::from(free)])?;
        let got = kind.get(IPC_PRIVATE, 1, libc::IPC_CREAT)?;
        kind.remove(got)?;
        ensure(i64::from(got ^ free) & 0x7fff != 0, (kind, got, free))?;
        let mut next = open();
        let id = free.into();
        let named = match kind {
            IpcKind::MessageQueue => next.arm(MessageQueue(id))?.create(IPC_PRIVATE, 0)?,
            IpcKind::SemaphoreSet => next.arm(SemaphoreSet(id))?.create(IPC_PRIVATE, 1, 0)?,
            IpcKind::SharedMemory => next.arm(SharedMemory(id))?.create(IPC_PRIVATE, 1, 0)?,
        };
        ensure(named == free, (kind, named))?;
        kind.remove(named)?;
        drop(held);
    }
    Ok(())
}

/// CRIU as it is names ids by `set_tid`, and by sysctls.
fn older_ways() -> Outcome {
    let (pid, id) = (testing::free_pid(), ipc_id(9, 60));
    let queue = IpcKind::MessageQueue;
    let ids = [(Kind::Task, &[i64::from(pid)][..]), (queue.into(), &[id])];
    let _held = Reservation::new(ids)?;

    // SAFETY: All-zero bytes are a valid `clone_args`.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = libc::SIGCHLD as u64;
    args.set_tid = (&raw const pid) as u64;
    args.set_tid_size = 1;
    // SAFETY: `args` is valid, and no stack is given: it is a fork. The child only exits.
    let child = unsafe {
        let child = libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args));
        if child == 0 {
            libc::_exit(0);
        }
        child
    };
    ensure(child == pid.into(), child)?;
    waitpid(Pid::from_raw(pid), None)?;

    fs::write(queue.next_id_sysctl(), id.to_string())?;
    let got = queue.get(IPC_PRIVATE, 0, libc::IPC_CREAT)?;
    ensure(i64::from(got) == id, got)
}

fn reservation_all_or_none() -> Outcome {
    let (pid, own) = (free_pid(), i64::from(getpid().as_raw()));
    let set = IpcKind::SemaphoreSet.into();
    let refused = Reservation::new([(set, &[70][..]), (Kind::Task, &[pid, own])]);
    ensure(
        matches!(refused, Err(Error::Taken { action: Action::Reserve(Kind::Task), .. })),
        refused,
    )?;
    // Nothing of it is left.
    drop(Reservation::new([(set, &[70][..]), (Kind::Task, &[pid])])?);
    let refused = reserve(Kind::Task, &[pid, pid]);
    ensure(matches!(refused, Err(Error::Taken { .. })), refused)
}

fn reservation_taken() -> Outcome {
    let (pid, own) = (free_pid(), getpid().as_raw());
    let set = IpcKind::SemaphoreSet;
    let ids = [(Kind::Task, &[pid][..]), (set.into(), &[ipc_id(2, 71)])];
    let _held = Reservation::new(ids)?;
    let mut found = holders(&reserve(Kind::Task, &[pid, own.into()]));
    found.sort_by_key(Holder::id);
    match *found {
        [
            Holder::Task { id: used, pid: by, .. },
            Holder::Reservation { id, kind: Kind::Task, pid: holder, .. },
        ] => {
            ensure((used, by, id, holder) == (own.into(), own, pid, own), found)?;
        }
        ref other => ensure(false, other)?,
    }
    // It is the index that is reserved.
    match *holders(&reserve(set.into(), &[ipc_id(5, 71)])) {
        [Holder::Reservation { id, kind: Kind::Ipc(kind), pid: holder, .. }] => {
            ensure((id, kind, holder) == (ipc_id(5, 71), set, own), (id, kind, holder))
        }
        ref other => ensure(false, other),
    }
}

/// The same number in another pid namespace is another id.
fn elsewhere() -> Outcome {
    let (pid, [mut ours, mut theirs]) = (free_pid(), UnixStream::pair()?.into());
    let holder = open().arm(Pids(&[free_pid()]))?.fork(move || {
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        let _held = reserve(Kind::Task, &[pid]).unwrap();
        theirs.write_all(&[0]).unwrap();
        theirs.read_exact(&mut [0]).unwrap();
        0
    })?;
    ours.read_exact(&mut [0])?;
    let found = nextid::holders(Kind::Task, &[pid]);
    let free = reserve(Kind::Task, &[pid]).map(drop);
    ours.write_all(&[0])?;
    holder.wait()?;
    ensure(found.is_empty(), found)?;
    Ok(free?)
}

fn reservation_dropped() -> Outcome {
    let pid = free_pid();
    let held = reserve(Kind::Task, &[pid])?;
    // It may end on another thread.
    thread::spawn(move || drop(held)).join().expect("it does not panic");
    let held = reserve(Kind::Task, &[pid])?;
    // A program does not inherit it.
    let mut child = Command::new("sleep").arg("1000").spawn()?;
    drop(held);
    let free = reserve(Kind::Task, &[pid]).map(drop);
    child.kill()?;
    child.wait()?;
    Ok(free?)
}

fn reservation_out_of_range() -> Outcome {
    for pid in [1, 0, -1, 1 << 30] {
        let refused = reserve(Kind::Task, &[free_pid(), pid]);
        ensure(matches!(refused, Err(Error::OutOfRange { .. })), (pid, refused))?;
    }
    let refused = reserve(IpcKind::SharedMemory.into(), &[-1]);
    ensure(matches!(refused, Err(Error::OutOfRange { .. })), refused)?;
    let refused = reserve(Kind::Pty, &[7]);
    ensure(matches!(refused, Err(Error::NotSupported(Feature::Reservations))), refused)
}

fn reservation_of_free_pids() -> Outcome {
    let own = i64::from(getpid().as_raw());
    let _held = Reservation::of_free_pids(2..=own + 500)?;
    let got = pid_after(1)?;
    ensure(got > own + 500, got)
}

fn no_ids() -> Outcome {
    let refused = open().arm(Pids(&[])).map(drop);
    ensure(matches!(refused, Err(Error::Count { count: 0, .. })), refused)
}

fn too_many_ids() -> Outcome {
    let refused = open().arm(Pids(&[7; 34])).map(drop);
    ensure(matches!(refused, Err(Error::Count { count: 34, max: 33, .. })), refused)
}

fn read_back() -> Outcome {
    let mut next = open();
    let has_kinds = testing::has_kinds();
    ensure((next.method() == Method::NextId) == has_kinds, next.method())?;
    let check = |next: &NextId, kind: Kind, ids: &[i64]| {
        let armed = next.armed()?;
        let is_armed = armed
            .as_ref()
            .is_some_and(|armed| armed.kind == has_kinds.then_some(kind) && *armed.ids == *ids);
        ensure(is_armed, (kind, armed))
    };
    for count in [1, 2, 32, 33] {
        let ids: Vec<i64> = (1..).map(|id| id * 0x123_4567).take(count).collect();
        next.arm(Pids(&ids))?.leave_armed()?;
        check(&next, Kind::Task, &ids)?;
    }
    next.arm(MessageQueue(0))?.leave_armed()?;
    check(&next, IpcKind::MessageQueue.into(), &[0])?;
    next.arm(SemaphoreSet(98313))?.leave_armed()?;
    check(&next, IpcKind::SemaphoreSet.into(), &[98313])?;
    next.arm(SharedMemory(i32::MAX.into()))?.leave_armed()?;
    check(&next, IpcKind::SharedMemory.into(), &[i32::MAX.into()])?;
    if has_kinds {
        next.arm(Pty(7))?.leave_armed()?;
        check(&next, Kind::Pty, &[7])?;
    }
    next.reset()?;
    ensure(next.armed()?.is_none(), "still armed")
}

fn unused() -> Outcome {
    let mut next = open();
    drop(next.arm(Pids(&[free_pid()]))?);
    ensure(next.armed()?.is_none(), "still armed")
}

/// Its files in `/proc` belong to root.
fn not_dumpable() -> Outcome {
    in_child(|| {
        let nobody = Uid::from(65534);
        setresuid(nobody, nobody, nobody).unwrap();
        // It comes with the capability to arm.
        unshare(CloneFlags::CLONE_NEWUSER).unwrap();
        let mut next = NextId::open().unwrap();
        next.arm(Pids(&[7])).unwrap().leave_armed().unwrap();
        let refused = next.armed();
        assert!(matches!(refused, Err(Error::NotPermitted { .. })), "{refused:?}");
        set_dumpable(true).unwrap();
        assert_eq!(next.armed().unwrap().map(|armed| armed.ids.0), Some(vec![7]));
    })
}

fn not_supported() -> Outcome {
    let opened = NextId::open();
    ensure(matches!(opened, Err(Error::NotSupported(_))), opened)?;
    ensure(open().method() == Method::Fallback, open().method())?;
    let kept = open().arm(Pids(&[7]))?.leave_armed();
    ensure(matches!(kept, Err(Error::NotSupported(_))), kept)?;
    let spawned = open().arm(Pids(&[7]))?.spawn(&mut Command::new("true"));
    ensure(matches!(spawned, Err(Error::NotSupported(_))), spawned)
}
