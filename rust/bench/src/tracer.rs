// SPDX-License-Identifier: GPL-2.0

//! Counts the system calls of a program and of all that it starts.

use std::collections::HashSet;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Runs a program to its end, and returns how many system calls were made by it, and by the tasks
/// that it made, from its start to its end. Those tasks go on, untraced.
///
/// A task has one tracer. When a traced one seizes another by ptrace(2), as CRIU does in the end
/// with all tasks that it has restored, that one is left to it: what it does from then on is not
/// counted.
///
/// What it prints goes to `output` and `errors`. The caller must have no other children that end
/// meanwhile.
pub fn count_system_calls(
    command: &Command,
    output: impl Into<Stdio>,
    errors: impl Into<Stdio>,
) -> Result<u64> {
    let mut stopped = Command::new("sh");
    stopped.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).arg(command.get_program());
    let child = stopped.args(command.get_args()).stdout(output).stderr(errors).spawn()?;
    let first = Pid::from_raw(i32::try_from(child.id())?);
    waitpid(first, Some(WaitPidFlag::WUNTRACED))?;
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE;
    ptrace::seize(first, options)?;
    kill(first, Signal::SIGCONT)?;
    let mut tracer = Tracer { tasks: HashSet::from([first]), calls: 0 };
    let status = tracer.run(first)?;
    if status != 0 {
        bail!("{} exits with {status}", command.get_program().to_string_lossy());
    }
    tracer.leave_all()?;
    Ok(tracer.calls)
}

struct Tracer {
    tasks: HashSet<Pid>,
    calls: u64,
}

impl Tracer {
    /// Lets all run until the first has ended, and returns its exit status.
    fn run(&mut self, first: Pid) -> Result<i32> {
        loop {
            let status = waitpid(None, Some(WaitPidFlag::__WALL))?;
            match status {
                WaitStatus::Exited(pid, status) if pid == first => return Ok(status),
                WaitStatus::Signaled(pid, signal, _) if pid == first => bail!("killed: {signal}"),
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => self.forget(pid),
                _ => {
                    let Some(pid) = status.pid() else { continue };
                    self.tasks.insert(pid);
                    self.see(first, &status)?;
                    resume(pid, signal_of(&status), ptrace::syscall)?;
                }
            }
        }
    }

    /// Counts, where a task has begun a system call.
    fn see(&mut self, first: Pid, status: &WaitStatus) -> Result<()> {
        match *status {
            // Not what the shell has done before.
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) if pid == first => {
                self.calls = 0;
            }
            WaitStatus::PtraceSyscall(pid) => {
                if let Some((number, arguments)) = entered(pid)? {
                    self.calls += 1;
                    if number == libc::SYS_ptrace.unsigned_abs()
                        && arguments[0] == u64::from(libc::PTRACE_SEIZE)
                    {
                        self.leave(Pid::from_raw(i32::try_from(arguments[1])?))?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Traces a task no more.
    fn leave(&mut self, pid: Pid) -> Result<()> {
        if !self.tasks.contains(&pid) {
            return Ok(());
        }
        match ptrace::interrupt(pid) {
            Ok(()) => {
                let status = waitpid(pid, Some(WaitPidFlag::__WALL))?;
                if matches!(status, WaitStatus::PtraceSyscall(_)) && entered(pid)?.is_some() {
                    self.calls += 1;
                }
                resume(pid, signal_of(&status), ptrace::detach)?;
            }
            Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.forget(pid);
        Ok(())
    }

    fn leave_all(&mut self) -> Result<()> {
        let tasks: Vec<Pid> = self.tasks.iter().copied().collect();
        tasks.into_iter().try_for_each(|pid| self.leave(pid))
    }

    fn forget(&mut self, pid: Pid) {
        self.tasks.remove(&pid);
    }
}

/// The number and the arguments of the system call that a task has begun, if it has.
fn entered(pid: Pid) -> Result<Option<(u64, [u64; 6])>> {
    let info = match ptrace::syscall_info(pid) {
        Ok(info) => info,
        Err(Errno::ESRCH) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return Ok(None);
    }
    // SAFETY: It is what the kernel fills in for an entry.
    let entry = unsafe { info.u.entry };
    Ok(Some((entry.nr, entry.args)))
}

/// The signal that a task has stopped to be given.
fn signal_of(status: &WaitStatus) -> Option<Signal> {
    if let WaitStatus::Stopped(_, signal) = *status { Some(signal) } else { None }
}

/// Lets a task go on, unless it has been killed.
fn resume(
    pid: Pid,
    signal: Option<Signal>,
    how: impl FnOnce(Pid, Option<Signal>) -> nix::Result<()>,
) -> Result<()> {
    match how(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// System calls of a shell that runs `script`.
    fn count(script: &str) -> u64 {
        count_system_calls(Command::new("sh").args(["-c", script]), Stdio::null(), Stdio::inherit())
            .unwrap()
    }

    #[test]
    fn system_calls_are_counted_in_children_too() {
        // By one test, as each waits for any child.
        let one = count("kill -0 $$");
        assert_eq!(count("kill -0 $$"), one);
        let more = count("kill -0 $$; kill -0 $$; kill -0 $$");
        assert_eq!(more, one + 2);
        let in_child = count("(kill -0 $$; kill -0 $$; kill -0 $$) & wait");
        assert!(in_child >= one + 4, "{in_child} of {one}");
    }
}
