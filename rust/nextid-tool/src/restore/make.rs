// SPDX-License-Identifier: GPL-2.0

//! Makes the processes of a plan.
//!
//! All go through the same steps, with a barrier after each. A process reports that it has done a
//! step, and waits at the barrier: it reads one byte from a pipe. When all have reported, the
//! restorer, which is none of them, writes as many bytes as there are processes. There are two such
//! pipes, used in turn, so that a fast process does not take the byte of one that is still at the
//! barrier before. Where one of them fails, or the restorer ends, the pipes are closed: all read
//! their end, wait for their children and exit; and the restorer, if it is there, kills what does
//! not. So there never is half a tree.

use std::cell::Cell;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use criu_images::{Dump, State};
use nextid::{Method, NextId, Pids, Reservation};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{Id as WaitId, WaitPidFlag, WaitStatus, wait, waitid, waitpid};
use nix::unistd::{self, Pid};

use super::ending::{self, Cores};
use super::ipc::Attachment;
use super::namespace;
use super::plan::{Node, Plan, Step};
use super::thread;
use crate::failure::{self, Failure};

/// How long no process may report anything, in milliseconds.
const REPORT_TIMEOUT: u16 = 60_000;

/// Makes the tree, and calls `progress` for each process that is born.
///
/// None of its processes keeps what is `held` of ids.
pub fn make<'a>(
    mut next: NextId,
    held: &Cell<Option<Reservation>>,
    dump: &'a Dump,
    plan: &'a Plan,
    attachments: &'a [Attachment<'a>],
    detach: bool,
    progress: impl Fn(),
) -> Result<Tree<'a>> {
    let (reports, report) = pipe()?;
    let ((even_barrier, even_release), (odd_barrier, odd_release)) = (pipe()?, pipe()?);
    if dump.own_pid_namespace {
        namespace::enter_new_pid()?;
    } else {
        // What is left of a tree whose first process is gone is to be found: see `Tree::drop()`.
        prctl::set_child_subreaper(true)?;
    }
    let restorer = detach.then(own_pidfd).transpose()?;
    let cores = Cores::new(dump)?;
    let shared = Shared {
        method: next.method(),
        dump,
        plan,
        attachments,
        restorer,
        outer_group: unistd::getpgrp().as_raw(),
        cores: &cores,
        report,
        barriers: [even_barrier, odd_barrier],
    };
    let (reports, releases) =
        (Cell::new(Some(reports)), Cell::new(Some([even_release, odd_release])));
    let first = next.arm(Pids(&plan.all_ids_of(plan.nodes[0].pid)))?.fork(|| {
        // What is the restorer's is closed in its child.
        drop((reports.take(), releases.take(), held.take()));
        shared.run_first()
    })?;
    drop(shared);

    let (Some(reports), Some(releases)) = (reports.take(), releases.take()) else {
        unreachable!("only the child took them")
    };
    let tree = Tree { first: Pid::from_raw(first.pid()), dump, plan };
    coordinate(reports, releases, dump, plan, progress)?;
    Ok(tree)
}

/// A tree, all of which is ended unless it is kept.
pub struct Tree<'a> {
    /// Its first process.
    pub first: Pid,
    dump: &'a Dump,
    plan: &'a Plan,
}

impl Tree<'_> {
    /// Lets it stay.
    pub fn keep(self) -> Result<()> {
        prctl::set_child_subreaper(false)?;
        if is_stopped_init(self.dump, 0) {
            kill(self.first, Signal::SIGSTOP)?;
        }
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Tree<'_> {
    /// Where it was not complete, the pipes of the barriers are closed, so that its processes also
    /// end by themselves, but for one that hangs.
    fn drop(&mut self) {
        if self.dump.own_pid_namespace {
            // The kernel ends all others with it.
            kill_init_and_wait(self.first);
            return;
        }
        kill_and_wait(self.first);
        // A process whose parent has ended becomes a child of this one: where no child is left,
        // nothing is. As long as a child is not waited for, its id is nobody else's: no other
        // process is killed.
        let is_child = |pid| {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            waitid(WaitId::Pid(pid), flags).is_ok()
        };
        let mut is_done = false;
        while !is_done {
            is_done = true;
            for node in &self.plan.nodes {
                let pid = Pid::from_raw(node.pid);
                if is_child(pid) {
                    kill_and_wait(pid);
                    is_done = false;
                }
            }
        }
    }
}

/// Kills a child, and waits until it is gone.
fn kill_and_wait(child: Pid) {
    // It may have ended by itself.
    let _ = kill(child, Signal::SIGKILL);
    let _ = waitpid(child, None);
}

/// Kills a child that is the first process of a pid namespace, and waits until that is gone.
///
/// The kernel does not end a pid namespace as long as an id in it is in use, and one is while its
/// first process is in the group of another, which it may have joined at the last moment.
fn kill_init_and_wait(first: Pid) {
    // It may have ended by itself.
    let _ = kill(first, Signal::SIGKILL);
    while waitpid(first, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive) {
        let _ = unistd::setpgid(first, unistd::getpgrp());
        sleep(Duration::from_millis(1));
    }
}

/// Leads all processes through their steps.
fn coordinate(
    reports: File,
    mut releases: [File; 2],
    dump: &Dump,
    plan: &Plan,
    progress: impl Fn(),
) -> Result<()> {
    let mut reports = BufReader::new(reports);
    for (number, &step) in plan.steps.iter().enumerate() {
        let reporting = (0..plan.nodes.len()).filter(|&place| plan.outlives(place, step));
        let reporting: Vec<usize> = reporting.collect();
        for _ in &reporting {
            receive_report(&mut reports)?;
            if step == Step::Fork {
                progress();
            }
        }
        let is_last = step == Step::Complete;
        let waiting = reporting.iter().filter(|&&place| !is_last || !is_zombie(dump, place));
        releases[number % 2].write_all(&vec![0; waiting.count()])?;
    }
    Ok(())
}

/// Whether the process at `place` ends when the tree is complete.
fn is_zombie(dump: &Dump, place: usize) -> bool {
    matches!(dump.processes[place].state, State::Zombie { .. })
}

/// Whether the process at `place` is stopped, and the first of a pid namespace: nothing inside of
/// that can stop it.
fn is_stopped_init(dump: &Dump, place: usize) -> bool {
    place == 0 && dump.own_pid_namespace && dump.processes[0].state == State::Stopped
}

/// Waits for a report.
fn receive_report(reports: &mut BufReader<File>) -> Result<()> {
    if reports.buffer().is_empty() {
        let mut ready = [PollFd::new(reports.get_ref().as_fd(), PollFlags::POLLIN)];
        let ready_count = poll(&mut ready, PollTimeout::from(REPORT_TIMEOUT))?;
        ensure!(ready_count > 0, "a process that is being restored hangs, or was killed");
    }
    let mut report = String::new();
    ensure!(
        reports.read_line(&mut report)? > 0,
        "the processes that are being restored were killed"
    );
    match report.trim_end().split_once(' ') {
        None => Ok(()),
        Some((status, text)) => {
            let status = status.parse().unwrap_or(failure::OTHER);
            Err(Failure::new(status, format!("{text}; all that was made is undone")).into())
        }
    }
}

/// What all processes have in common.
struct Shared<'a> {
    method: Method,
    dump: &'a Dump,
    plan: &'a Plan,
    /// Segments that all inherit, and only some keep.
    attachments: &'a [Attachment<'a>],
    /// The restorer, where they do not end with it.
    restorer: Option<OwnedFd>,
    /// The process group of the restorer.
    outer_group: i32,
    cores: &'a Cores,
    report: File,
    barriers: [File; 2],
}

impl Shared<'_> {
    /// The life of the first process.
    fn run_first(&self) -> i32 {
        let set_up = || -> Result<()> {
            let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
            unistd::dup2_stdin(&null)?;
            unistd::dup2_stdout(&null)?;
            unistd::dup2_stderr(&null)?;
            std::env::set_current_dir("/")?;
            if self.restorer.is_none() {
                prctl::set_pdeathsig(Signal::SIGKILL)?;
            }
            // Orphans are to become its children, as those of the init of a namespace do.
            Ok(prctl::set_child_subreaper(true)?)
        };
        match set_up() {
            Ok(()) => self.run(0),
            Err(error) => self.report_failure(&error),
        }
    }

    /// The life of the process at `place`.
    fn run(&self, place: usize) -> i32 {
        match self.run_steps(place) {
            Ok(true) => self.sleep(place),
            Ok(false) => self.end(place),
            Err(error) => self.report_failure(&error),
        }
    }

    /// Goes through all steps; returns whether the process stays.
    fn run_steps(&self, place: usize) -> Result<bool> {
        for (number, &step) in self.plan.steps.iter().enumerate() {
            self.run_step(place, step).with_context(|| self.describe(place))?;
            if !self.plan.outlives(place, step) {
                return Ok(false);
            }
            if step == Step::Complete && is_zombie(self.dump, place) {
                (&self.report).write_all(b"\n")?;
                return Ok(false);
            }
            self.wait_at_barrier(number)?;
        }
        Ok(true)
    }

    fn describe(&self, place: usize) -> String {
        let Node { pid, .. } = self.plan.nodes[place];
        if self.plan.nodes[place].is_helper() {
            format!("helper {pid}")
        } else {
            format!("process {pid}")
        }
    }

    /// Does what the process at `place` has to do in a step.
    fn run_step(&self, place: usize, step: Step) -> Result<()> {
        let node = &self.plan.nodes[place];
        let join = |group: i32| {
            let group = if self.plan.is_own_group(group) { group } else { self.outer_group };
            unistd::setpgid(Pid::from_raw(0), Pid::from_raw(group))
                .with_context(|| format!("cannot join process group {group}"))
        };
        match step {
            Step::Fork => self.fork_children(node),
            Step::MakeGroups if node.makes_group => {
                join(node.pid).context("cannot make a process group")
            }
            Step::JoinGroups if self.plan.joins_group(node) && !node.makes_group => {
                join(node.group)
            }
            Step::LeaveGroups if self.plan.joins_group(node) && node.makes_group => {
                join(node.group)
            }
            // The first process is one all the time.
            Step::Adopt(depth) if node.adopts.is_some() && place > 0 => {
                Ok(prctl::set_child_subreaper(node.adopts == Some(depth))?)
            }
            Step::End(depth) => {
                for &child in node.early.iter().chain(&node.late) {
                    if self.plan.nodes[child].ends == Some(depth) {
                        waitpid(Pid::from_raw(self.plan.nodes[child].pid), None)?;
                    }
                }
                Ok(())
            }
            Step::Complete => self.complete(place),
            _ => Ok(()),
        }
    }

    /// Makes the session, and forks the children that are born before and after that.
    fn fork_children(&self, node: &Node) -> Result<()> {
        let fork_all = |children: &[usize]| -> Result<()> {
            if children.is_empty() {
                return Ok(());
            }
            let mut next = self.open_next_id()?;
            for &child in children {
                let ids = self.plan.all_ids_of(self.plan.nodes[child].pid);
                // Its parent waits for it as for any child.
                let _ = next.arm(Pids(&ids))?.fork(|| self.run(child))?;
            }
            Ok(())
        };
        fork_all(&node.early)?;
        if node.leads_session() {
            unistd::setsid().context("cannot make a session")?;
        }
        fork_all(&node.late)
    }

    /// Opens the `next_id` file of this process.
    fn open_next_id(&self) -> nextid::Result<NextId> {
        match self.method {
            Method::Fallback => NextId::open_or_fallback(),
            _ => NextId::open(),
        }
    }

    /// Waits for children that end, and creates threads.
    fn complete(&self, place: usize) -> Result<()> {
        let node = &self.plan.nodes[place];
        for &child in &node.children {
            if let State::Zombie { status } = self.dump.processes[child].state {
                ending::check(self.plan.nodes[child].pid, status)?;
            }
        }
        let process = &self.dump.processes[place];
        for attachment in self.attachments {
            attachment.leave_to(process.pid, place == 0);
        }
        if !process.threads.is_empty() {
            let ids_of = |tid| self.plan.all_ids_of(tid);
            thread::create_all(&mut self.open_next_id()?, &process.threads, ids_of)?;
        }
        prctl::set_name(&CString::new(&*process.name)?)?;
        if place > 0 {
            prctl::set_child_subreaper(process.is_subreaper)?;
        }
        self.check(place)
    }

    /// Whether the process is what it is to be.
    fn check(&self, place: usize) -> Result<()> {
        let node = &self.plan.nodes[place];
        let (pid, group) = (unistd::getpid().as_raw(), unistd::getpgrp().as_raw());
        let session = unistd::getsid(None)?.as_raw();
        ensure!(pid == node.pid, "it came out as {pid}");
        ensure!(group == node.group || !self.plan.is_own_group(node.group), "in group {group}");
        let own_session = self.plan.is_own_session(node.session);
        ensure!(session == node.session || !own_session, "in session {session}");
        if let Some(parent) = self.dump.processes[place].parent {
            let (wanted, parent) = (self.plan.nodes[parent].pid, unistd::getppid().as_raw());
            ensure!(parent == wanted, "a child of {parent}");
        }
        Ok(())
    }

    /// Reports that the step with this number is done, and waits for the next one.
    fn wait_at_barrier(&self, number: usize) -> Result<()> {
        (&self.report).write_all(b"\n")?;
        if (&self.barriers[number % 2]).read(&mut [0])? == 0 {
            exit_after_children();
        }
        Ok(())
    }

    /// Reports an error, and waits for the end.
    fn report_failure(&self, error: &Error) -> ! {
        let text = failure::text(error).replace('\n', " ");
        let report = format!("{} {text}\n", failure::status(error));
        // Where nobody listens any more, the end is near as well.
        let _ = (&self.report).write_all(report.as_bytes());
        for mut barrier in &self.barriers {
            while barrier.read(&mut [0]).is_ok_and(|read| read > 0) {}
        }
        exit_after_children()
    }

    /// Stays as what was dumped.
    fn sleep(&self, place: usize) -> ! {
        let process = &self.dump.processes[place];
        match process.parent {
            None => drop(prctl::set_child_subreaper(process.is_subreaper)),
            Some(parent) if self.restorer.is_none() => {
                let _ = prctl::set_pdeathsig(Signal::SIGKILL);
                // It may have come too late for a parent that has just been killed.
                if unistd::getppid().as_raw() != self.dump.processes[parent].pid {
                    // At once: its children may sleep already, until it ends.
                    // SAFETY: It has no preconditions.
                    unsafe { libc::_exit(1) }
                }
            }
            Some(_) => {}
        }
        let stops = process.state == State::Stopped && !is_stopped_init(self.dump, place);
        if let (true, Some(restorer)) = (stops, &self.restorer) {
            // Its end may orphan their process group, and if any process of that is stopped by
            // then, the kernel sends SIGHUP to all.
            let mut ended = [PollFd::new(restorer.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut ended, PollTimeout::NONE);
        }
        close_files();
        if stops {
            let _ = raise(Signal::SIGSTOP);
        }
        loop {
            unistd::pause();
        }
    }

    /// Ends as what was dumped.
    fn end(&self, place: usize) -> i32 {
        match self.dump.processes.get(place).map(|process| process.state) {
            Some(State::Zombie { status }) => self.cores.end(status),
            _ => 0,
        }
    }
}

/// Closes all files but the standard ones. A seccomp filter may refuse what does it at once.
fn close_files() {
    // SAFETY: Nothing that it closes is used again: all that follows is sleep.
    if unsafe { libc::close_range(3, libc::c_uint::MAX, 0) } == 0 {
        return;
    }
    let listed = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let number = |file: fs::DirEntry| file.file_name().to_str()?.parse::<i32>().ok();
    let open: Vec<i32> = listed.filter_map(number).filter(|&file| file > 2).collect();
    for file in open {
        // SAFETY: As above.
        unsafe { libc::close(file) };
    }
}

/// Ends the process, after those that it forked.
fn exit_after_children() -> ! {
    while wait().is_ok() {}
    // SAFETY: It has no preconditions.
    unsafe { libc::_exit(1) }
}

/// A descriptor of this process, which becomes readable when it has ended.
fn own_pidfd() -> Result<OwnedFd> {
    // SAFETY: No pointer is passed.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
    let pidfd = Errno::result(pidfd).context("cannot open a pidfd of nextid itself")?;
    // SAFETY: It is a new descriptor, which the kernel closes on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd.try_into()?) })
}

fn pipe() -> Result<(File, File)> {
    let (read, write) = unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok((read.into(), write.into()))
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::unistd::ForkResult;

    use super::*;
    use crate::sample::{self, process};

    /// How long they hang: nothing that is tested takes as long.
    const HANG: Duration = Duration::from_secs(600);

    /// Processes that hang: unless they are killed, they tell at the end that they were not.
    struct Hanging {
        survivors: File,
        survives: File,
    }

    impl Hanging {
        fn new() -> Self {
            let (survivors, survives) = pipe().unwrap();
            fcntl(&survivors, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
            Self { survivors, survives }
        }

        /// Forks a process that runs `child`, and then hangs.
        fn fork(&self, child: impl FnOnce()) -> Pid {
            // SAFETY: No `child` allocates, or takes a lock.
            match unsafe { unistd::fork() }.unwrap() {
                ForkResult::Parent { child } => child,
                ForkResult::Child => {
                    child();
                    std::thread::sleep(HANG);
                    let _ = (&self.survives).write_all(&[0]);
                    // SAFETY: It has no preconditions.
                    unsafe { libc::_exit(0) }
                }
            }
        }

        /// Whether none of those that are gone did so by itself.
        fn were_killed(&self) -> bool {
            (&self.survivors).read(&mut [0]).is_err()
        }
    }

    /// A dump of a process and its child.
    fn dump(first: i32, second: i32) -> Dump {
        let processes = vec![process(first, None, 0, 0), process(second, Some(0), 0, 0)];
        Dump { own_pid_namespace: false, ..sample::dump(processes) }
    }

    #[test]
    fn a_tree_that_hangs_is_undone() {
        // As `make()` does.
        prctl::set_child_subreaper(true).unwrap();
        let hanging = Hanging::new();
        let (mut reader, mut writer) = pipe().unwrap();
        let first = hanging.fork(|| {
            let second = hanging.fork(|| {});
            let _ = writer.write_all(&second.as_raw().to_ne_bytes());
        });
        let mut second = [0; 4];
        reader.read_exact(&mut second).unwrap();
        let second = i32::from_ne_bytes(second);

        let dump = dump(first.as_raw(), second);
        let plan = Plan::new(&dump, Iterator::collect).unwrap();
        drop(Tree { first, dump: &dump, plan: &plan });
        assert_eq!(kill(first, None), Err(Errno::ESRCH));
        assert_eq!(kill(Pid::from_raw(second), None), Err(Errno::ESRCH));
        assert!(hanging.were_killed());
    }

    #[test]
    fn a_process_whose_parent_was_killed_does_not_wait_for_its_children() {
        let hanging = Hanging::new();
        // No process has such an id, so that the parent of none is there.
        let dump = dump(i32::MAX, 1);
        let plan = Plan::new(&dump, Iterator::collect).unwrap();
        let ((even_barrier, _), (odd_barrier, _), (mut ready, mut report)) =
            (pipe().unwrap(), pipe().unwrap(), pipe().unwrap());
        let cores = Cores::new(&dump).unwrap();
        let shared = Shared {
            method: Method::NextId,
            dump: &dump,
            plan: &plan,
            attachments: &[],
            restorer: None,
            outer_group: 0,
            cores: &cores,
            report: report.try_clone().unwrap(),
            barriers: [even_barrier, odd_barrier],
        };
        let process = hanging.fork(|| {
            hanging.fork(|| {
                let _ = prctl::set_pdeathsig(Signal::SIGKILL);
                let _ = report.write_all(b"\n");
            });
            let _ = ready.read(&mut [0]);
            shared.sleep(1);
        });
        assert_eq!(waitpid(process, None), Ok(WaitStatus::Exited(process, 1)));
        assert!(hanging.were_killed());
    }
}
