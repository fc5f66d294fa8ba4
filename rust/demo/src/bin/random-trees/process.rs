// SPDX-License-Identifier: GPL-2.0

//! The processes that carry a history out, in a pid namespace of their own. Each is told what to do
//! through a socket, and answers when it has done it.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{self, ForkResult, Pid, fork};
use procfs::process::Process;
use serde::{Deserialize, Serialize};
use testing::wait_until;

use crate::history::{Action, History};

/// How long a process may take for one action, in milliseconds.
const ACTION_TIMEOUT: u16 = 30_000;

/// What a process is told.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Do(Action),
    /// To join a group by its id, which only the one who tells it knows.
    Setpgid(i32),
    /// To close everything, and to do nothing any more.
    Sleep,
}

/// What it answers: what the call returned, or its errno.
type Answer = Result<i32, i32>;

/// A running tree.
pub struct Tree {
    /// Its first process, as it is called here.
    pub first: Pid,
    /// Its pid namespace.
    namespace: File,
    /// The ends of all sockets at which orders are given.
    ends: Vec<OwnedFd>,
    /// The pid of each process in its namespace, by its place.
    pids: Vec<i32>,
}

impl Tree {
    /// Lets processes carry a history out.
    pub fn start(history: &History) -> Result<Self> {
        let mut pairs = Vec::new();
        for _ in 0..history.places() {
            let flags = SockFlag::SOCK_CLOEXEC;
            pairs.push(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?);
        }
        let (ends, theirs): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();

        let own = File::open("/proc/self/ns/pid")?;
        unshare(CloneFlags::CLONE_NEWPID)?;
        // SAFETY: This process has one thread.
        let first = match unsafe { fork() }? {
            ForkResult::Child => {
                drop(ends);
                let status = set_up_first().map_or(1, |()| obey(&theirs, 0));
                // SAFETY: It has no preconditions.
                unsafe { libc::_exit(status) }
            }
            ForkResult::Parent { child } => child,
        };
        setns(own, CloneFlags::CLONE_NEWPID)?;
        let namespace = File::open(format!("/proc/{first}/ns/pid"))?;
        let mut tree = Self { first, namespace, ends, pids: vec![0; history.places()] };
        tree.pids[0] = 1;
        tree.carry_out(history).inspect_err(|_| tree.end())?;
        Ok(tree)
    }

    /// Ends all of it.
    pub fn end(&self) {
        // It may have ended already.
        let _ = kill(self.first, Signal::SIGKILL);
        let _ = waitpid(self.first, None);
    }

    fn carry_out(&mut self, history: &History) -> Result<()> {
        for (number, &(place, action)) in history.steps.iter().enumerate() {
            self.carry_out_step(place, action)
                .with_context(|| format!("step {number}, process {place}: {action:?}"))?;
        }
        for &place in &history.living {
            let told = self.tell(place, &Order::Sleep);
            let _ = told.with_context(|| format!("process {place}: sleep"))?;
        }
        for &place in &history.stopped {
            let pid = self.outer_pid(place)?;
            kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
            let process = Process::new(pid)?;
            let stops = wait_until(|| process.stat().is_ok_and(|stat| stat.state == 'T'));
            ensure!(stops, "process {place} does not stop");
        }
        Ok(())
    }

    fn carry_out_step(&mut self, place: usize, action: Action) -> Result<()> {
        match action {
            Action::Fork { child } => {
                let pid = self.tell(place, &Order::Do(action))?;
                self.pids[child] = pid.map_err(Errno::from_raw)?;
            }
            Action::JoinGroup { of } => {
                let pid = Pid::from_raw(self.outer_pid(of)?);
                let group = Process::new(pid.as_raw())?.status()?.nspgid.unwrap_or_default();
                // A group outside has no id inside.
                if let Some(&group @ 1..) = group.last() {
                    let _ = self.tell(place, &Order::Setpgid(group))?;
                }
            }
            _ if action.is_end() => {
                let pid = self.outer_pid(place)?;
                let process = File::from(pidfd_open(pid)?);
                send(
                    self.ends[place].as_raw_fd(),
                    &encode(&Order::Do(action))?,
                    MsgFlags::empty(),
                )?;
                wait_for(&process)?;
            }
            // Refused ones are a part of the history.
            _ => drop(self.tell(place, &Order::Do(action))?),
        }
        Ok(())
    }

    /// Tells a process what to do, and waits until it has done it.
    fn tell(&self, place: usize, order: &Order) -> Result<Answer> {
        let end = &self.ends[place];
        send(end.as_raw_fd(), &encode(order)?, MsgFlags::empty())?;
        wait_for(end)?;
        receive(end.as_raw_fd())?.context("it has ended")
    }

    /// The pid of a process here.
    fn outer_pid(&self, place: usize) -> Result<i32> {
        /// `NS_GET_PID_FROM_PIDNS`, of Linux 6.11.
        const GET_PID: libc::c_ulong = 0x8004_b706;
        let pid = self.pids[place];
        // SAFETY: This one takes a number in place of a pointer.
        let outer = unsafe { libc::ioctl(self.namespace.as_raw_fd(), GET_PID, pid) };
        Errno::result(outer).with_context(|| format!("pid {pid} of the namespace"))
    }
}

fn pidfd_open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: It takes no pointer.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: It has just been opened, for this alone.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
}

/// Waits until something can be read, or a process has ended.
fn wait_for(file: &impl AsFd) -> Result<()> {
    let mut files = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    ensure!(poll(&mut files, PollTimeout::from(ACTION_TIMEOUT))? > 0, "it does not answer");
    Ok(())
}

fn encode(message: &impl Serialize) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(message)?)
}

/// Receives a message; none where nobody sends any more.
fn receive<T: for<'a> Deserialize<'a>>(socket: RawFd) -> Result<Option<T>> {
    let mut message = [0; 256];
    let length = recv(socket, &mut message, MsgFlags::empty())?;
    Ok(if length == 0 { None } else { Some(serde_json::from_slice(&message[..length])?) })
}

fn set_up_first() -> Result<()> {
    // CRIU makes a folder where a task is, to mount its /proc.
    std::env::set_current_dir("/tmp")?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    unistd::dup2_stdin(&null)?;
    unistd::dup2_stdout(&null)?;
    unistd::dup2_stderr(&null)?;
    Ok(())
}

/// The life of a process; returns the status to end with.
fn obey(sockets: &[OwnedFd], place: usize) -> i32 {
    let named = CString::new(format!("p{place}")).map_err(anyhow::Error::from);
    let run = || -> Result<i32> {
        prctl::set_name(&named?)?;
        let socket = sockets[place].as_raw_fd();
        loop {
            let Some(order) = receive(socket)? else { bail!("nobody gives orders any more") };
            let answer = match order {
                Order::Do(Action::Exit { status }) => return Ok(status),
                Order::Do(Action::Fork { child }) => {
                    // SAFETY: Other threads of this process hold no lock: all of them sleep.
                    match unsafe { fork() } {
                        Ok(ForkResult::Child) => return Ok(obey(sockets, child)),
                        Ok(ForkResult::Parent { child }) => Ok(child.as_raw()),
                        Err(errno) => Err(errno),
                    }
                }
                Order::Do(action) => act(action).map(|()| 0),
                Order::Setpgid(group) => {
                    unistd::setpgid(Pid::from_raw(0), Pid::from_raw(group)).map(|()| 0)
                }
                Order::Sleep => Ok(0),
            };
            let answer: Answer = answer.map_err(|errno| errno as i32);
            send(socket, &encode(&answer)?, MsgFlags::empty())?;
            if let Order::Sleep = order {
                sleep();
            }
        }
    };
    run().unwrap_or(1)
}

/// Does what is done by one call.
fn act(action: Action) -> nix::Result<()> {
    match action {
        Action::Setsid => unistd::setsid().map(drop),
        Action::LeadGroup => unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0)),
        Action::Subreaper { on } => prctl::set_child_subreaper(on),
        Action::Thread => {
            let (tell, told) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let _ = tell.send(());
                loop {
                    std::thread::park();
                }
            });
            told.recv().map_err(|_| Errno::EAGAIN)
        }
        Action::LastPid { pid } => {
            let written = fs::write("/proc/sys/kernel/ns_last_pid", pid.to_string());
            written.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))
        }
        Action::Reap => waitpid(None, Some(WaitPidFlag::WNOHANG)).map(drop),
        Action::Die { signal, core } => {
            let limit = if core { RLIM_INFINITY } else { 0 };
            setrlimit(Resource::RLIMIT_CORE, limit, limit)?;
            // SAFETY: The default action runs no code of this process.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            }
            Err(Errno::EINVAL)
        }
        // These are done by who is told.
        Action::Fork { .. } | Action::JoinGroup { .. } | Action::Exit { .. } => Err(Errno::EINVAL),
    }
}

/// Closes all files, and sleeps forever.
fn sleep() -> ! {
    // SAFETY: Nothing that it closes is used again: what follows never returns.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    loop {
        unistd::pause();
    }
}
