// SPDX-License-Identifier: GPL-2.0

//! Every way to choose the id of the next object.

use std::ffi::{CStr, CString, c_int};
use std::fs;
use std::io;

use anyhow::{Context, Result, ensure};
use nextid::IpcKind;
use nix::libc::pid_t;

use crate::keys::Case;
use crate::sys::{Child, IdFile, create, fork, sysctl, thread, write_once};

/// The file of the calling thread.
pub const NEXT_ID: &CStr = c"/proc/thread-self/next_id";
/// The last pid that the kernel chose.
pub const NS_LAST_PID: &CStr = c"/proc/sys/kernel/ns_last_pid";

/// The longest command for a task, in bytes: an id of up to seven digits in each of 33 pid
/// namespaces.
const MOST_TEXT: usize = "LONG33".len() + 33 * " 4194303".len();

/// Writes the command `LONG X`, or `LONG<n> X0 ... X<n-1>`, to `text`, and returns how long it is.
///
/// # Panics
///
/// Where `text` is too short for it.
pub fn write_command<I: Copy + itoa::Integer>(text: &mut [u8], ids: &[I]) -> usize {
    let mut digits = itoa::Buffer::new();
    let mut len = 0;
    let mut put = |bytes: &[u8]| {
        text[len..][..bytes.len()].copy_from_slice(bytes);
        len += bytes.len();
    };
    put(b"LONG");
    if ids.len() != 1 {
        put(digits.format(ids.len()).as_bytes());
    }
    for &id in ids {
        put(b" ");
        put(digits.format(id).as_bytes());
    }
    len
}

/// How the id of an object is chosen.
#[derive(Debug)]
pub enum Method {
    /// The kernel chooses.
    None,
    /// By `/proc/thread-self/next_id`.
    NextId(IdFile),
    /// By `set_tid` of clone3(2).
    SetTid,
    /// By a sysctl that is kept open.
    Sysctl(IdFile),
    /// By a sysctl that is opened for each object, as CRIU does.
    SysctlOnce(CString),
}

impl Method {
    /// What it is in reports.
    pub fn case(&self) -> Case {
        match self {
            Self::None => Case::NoId,
            Self::NextId(_) => Case::NextId,
            Self::SetTid => Case::SetTid,
            Self::Sysctl(_) => Case::Sysctl,
            Self::SysctlOnce(_) => Case::SysctlAsCriu,
        }
    }

    /// By `next_id`.
    pub fn next_id() -> Result<Self> {
        IdFile::open(NEXT_ID).map(Self::NextId)
    }

    /// All methods for IPC objects of a kind.
    pub fn all_for_ipc(kind: IpcKind) -> Result<Vec<Self>> {
        let sysctl = sysctl(kind);
        Ok(vec![
            Self::None,
            Self::next_id()?,
            Self::Sysctl(IdFile::open(&sysctl)?),
            Self::SysctlOnce(sysctl),
        ])
    }

    /// All methods for processes and threads. The sysctl knows the innermost pid namespace only.
    pub fn all_for_tasks(levels: usize) -> Result<Vec<Self>> {
        let mut all = vec![Self::None, Self::next_id()?, Self::SetTid];
        if levels == 1 {
            all.push(Self::Sysctl(IdFile::open(NS_LAST_PID)?));
            all.push(Self::SysctlOnce(NS_LAST_PID.to_owned()));
        }
        Ok(all)
    }
}

impl Method {
    /// Creates an IPC object that is to have `id`. Returns the id that it has.
    pub fn ipc(&self, kind: IpcKind, id: c_int) -> Result<c_int> {
        match self {
            Self::None | Self::SetTid => {}
            Self::NextId(file) => arm(file, &[id])?,
            Self::Sysctl(file) => file.write_at_start(itoa::Buffer::new().format(id).as_bytes())?,
            Self::SysctlOnce(path) => write_once(path, itoa::Buffer::new().format(id).as_bytes())?,
        }
        Ok(create(kind)?)
    }

    /// Forks a process that is to have `ids`, innermost pid namespace first. Returns the id that it
    /// has there.
    pub fn process(&self, ids: &[pid_t], child: Child) -> Result<pid_t> {
        Ok(fork(self.choose_task(ids)?, child)?)
    }

    /// Creates a thread that is to have `ids`, and waits for its end. Returns the id that it had.
    pub fn thread(&self, ids: &[pid_t]) -> Result<pid_t> {
        Ok(thread(self.choose_task(ids)?)?)
    }

    /// Chooses the ids of the next task, and returns those that are to be passed to clone3(2).
    fn choose_task<'a>(&self, ids: &'a [pid_t]) -> Result<&'a [pid_t]> {
        match self {
            Self::None => {}
            Self::NextId(file) => arm(file, ids)?,
            Self::SetTid => return Ok(ids),
            Self::Sysctl(file) => {
                file.write_at_start(itoa::Buffer::new().format(ids[0] - 1).as_bytes())?;
            }
            Self::SysctlOnce(path) => {
                write_once(path, itoa::Buffer::new().format(ids[0] - 1).as_bytes())?;
            }
        }
        Ok(&[])
    }

    /// An error unless the id is the one that was wanted, where the method promises it: a sysctl is
    /// a hint, which any other task may use up.
    pub fn check(&self, wanted: c_int, got: c_int) -> Result<()> {
        ensure!(
            matches!(self, Self::None | Self::Sysctl(_) | Self::SysctlOnce(_)) || wanted == got,
            "{}: wanted id {wanted}, got {got}",
            self.case()
        );
        Ok(())
    }
}

/// Arms `ids`. The text is on the stack, which a fork copies at any rate: the heap would be copied
/// for the text alone.
fn arm(file: &IdFile, ids: &[pid_t]) -> Result<()> {
    let mut text = [0; MOST_TEXT];
    let len = write_command(&mut text, ids);
    file.write(&text[..len])
}

/// Whether a creation failed because its id is in use.
pub fn is_in_use(error: &anyhow::Error) -> bool {
    let errno = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    errno == Some(nix::libc::EBUSY) || errno == Some(nix::libc::EEXIST)
}

/// The id of an IPC object with sequence number 1 and `index`.
pub fn ipc_id(index: c_int) -> Result<c_int> {
    Ok((1 << ipc_shift()?) + index)
}

/// Where the sequence number begins in an IPC id.
fn ipc_shift() -> Result<u32> {
    let command_line = fs::read_to_string("/proc/cmdline").context("reading /proc/cmdline")?;
    let extended = command_line.split_whitespace().any(|word| word == "ipcmni_extend");
    Ok(if extended { 24 } else { 15 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_out() {
        for (ids, text) in [(&[7][..], "LONG 7"), (&[7, -512, 9001], "LONG3 7 -512 9001")] {
            let mut out = [0; MOST_TEXT];
            let len = write_command(&mut out, ids);
            assert_eq!(&out[..len], text.as_bytes());
        }
    }
}
