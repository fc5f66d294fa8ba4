// SPDX-License-Identifier: GPL-2.0

//! The tree to dump: processes and System V IPC objects as any program makes them, without a choice
//! of their ids.

use std::ffi::{CString, c_int, c_long};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::ptr;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::{self, ForkResult, Pid, fork};

/// Starts the tree in a pid and an IPC namespace of its own, and returns its first process.
pub fn start() -> Result<Pid> {
    let own = [
        (File::open("/proc/self/ns/pid")?, CloneFlags::CLONE_NEWPID),
        (File::open("/proc/self/ns/ipc")?, CloneFlags::CLONE_NEWIPC),
    ];
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC)?;
    make_objects().context("System V IPC objects")?;
    let first = spawn("init", init)?;
    for (namespace, kind) in own {
        setns(namespace, kind)?;
    }
    Ok(first)
}

/// What a process does once it has its session, its group and its children.
enum Then {
    Sleep,
    Stop,
    Exit(i32),
    Die,
}

/// Forks a process, which runs `begin` and then does what that says; returns when it does.
fn spawn(name: &str, begin: fn() -> Result<Then>) -> Result<Pid> {
    let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: No process here has threads when it forks.
    if let ForkResult::Parent { child } = unsafe { fork() }? {
        drop(writer);
        File::from(reader).read_to_end(&mut Vec::new())?;
        return Ok(child);
    }
    let named = || -> Result<Then> {
        prctl::set_name(&CString::new(name)?)?;
        begin()
    };
    let then = named().unwrap_or_else(|error| {
        eprintln!("demo-dump: {name}: {error:#}");
        Then::Exit(1)
    });
    // SAFETY: Nothing that it closes is used again: what follows never returns.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    let _ = match then {
        Then::Sleep => Ok(()),
        Then::Stop => raise(Signal::SIGSTOP),
        Then::Die => raise(Signal::SIGKILL),
        // SAFETY: It has no preconditions.
        Then::Exit(status) => unsafe { libc::_exit(status) },
    };
    loop {
        unistd::pause();
    }
}

fn init() -> Result<Then> {
    unistd::setsid()?;
    // CRIU makes a folder where a task is, to mount its /proc.
    std::env::set_current_dir("/tmp")?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    unistd::dup2_stdin(&null)?;
    unistd::dup2_stdout(&null)?;
    unistd::dup2_stderr(&null)?;
    drop(null);

    next_pid(42)?;
    spawn("worker", || {
        lead_group()?;
        for name in [c"poll", c"flush"] {
            let (tell, told) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let _ = tell.send(prctl::set_name(name));
                loop {
                    std::thread::park();
                }
            });
            told.recv()??;
        }
        Ok(Then::Sleep)
    })?;
    next_pid(512)?;
    spawn("session", || {
        spawn("stayed", || Ok(Then::Sleep))?;
        unistd::setsid()?;
        spawn("member", || Ok(Then::Sleep))?;
        spawn("leader", || {
            lead_group()?;
            ended(spawn("exited", || Ok(Then::Exit(3)))?)
        })?;
        Ok(Then::Sleep)
    })?;
    next_pid(9001)?;
    // What they leave behind becomes a child of this process.
    end(spawn("gone", || {
        unistd::setsid()?;
        spawn("orphan", || Ok(Then::Sleep))?;
        spawn("orphan", || Ok(Then::Sleep))?;
        Ok(Then::Exit(0))
    })?)?;
    end(spawn("gone", || {
        lead_group()?;
        spawn("grouped", || Ok(Then::Sleep))?;
        Ok(Then::Exit(0))
    })?)?;
    next_pid(30001)?;
    let stopped = spawn("stopped", || Ok(Then::Stop))?;
    waitpid(stopped, Some(WaitPidFlag::WUNTRACED))?;
    ended(spawn("killed", || Ok(Then::Die))?)
}

fn lead_group() -> nix::Result<()> {
    unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0))
}

/// Waits until a child has ended, and leaves it as a zombie.
fn ended(child: Pid) -> Result<Then> {
    waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
    Ok(Then::Sleep)
}

fn end(child: Pid) -> nix::Result<()> {
    waitpid(child, None).map(drop)
}

/// Lets the pid namespace go on with `pid`, as if it had been in use for longer.
fn next_pid(pid: i32) -> io::Result<()> {
    fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())
}

fn make_objects() -> Result<()> {
    let flags = libc::IPC_CREAT | libc::IPC_EXCL;
    // SAFETY: No call but msgsnd(), shmat() and semctl() takes a pointer. Those are given texts of
    // the lengths told, the three values of a set, and the place where the kernel put a segment.
    unsafe {
        let queue = checked(libc::msgget(0x1234, flags | 0o640))?;
        for (kind, text) in [(7, &b"hello restore"[..]), (9, b"x")] {
            let mut message = c_long::to_ne_bytes(kind).to_vec();
            message.extend_from_slice(text);
            checked(libc::msgsnd(queue, message.as_ptr().cast(), text.len(), 0))?;
        }
        // The next one has an index above 1.
        let removed = checked(libc::msgget(libc::IPC_PRIVATE, 0o600))?;
        checked(libc::msgctl(removed, libc::IPC_RMID, ptr::null_mut()))?;
        checked(libc::msgget(libc::IPC_PRIVATE, 0o600))?;

        fs::write("/proc/sys/kernel/sem_next_id", "393916")?;
        let set = checked(libc::semget(0x99, 3, flags | 0o666))?;
        checked(libc::semctl(set, 0, libc::SETALL, [5_u16, 0, 9].as_ptr()))?;

        fs::write("/proc/sys/kernel/shm_next_id", "98313")?;
        let segment = checked(libc::shmget(0x77, 10000, flags | 0o600))?;
        let memory = libc::shmat(segment, ptr::null(), 0);
        Errno::result(memory as isize)?;
        let bytes = std::slice::from_raw_parts_mut(memory.cast::<u8>(), 10000);
        (&mut bytes[..7]).write_all(b"segment")?;
        (&mut bytes[8192..]).write_all(b"third page")?;
        checked(libc::shmdt(memory))?;
    }
    Ok(())
}

fn checked(result: c_int) -> nix::Result<c_int> {
    Errno::result(result)
}
