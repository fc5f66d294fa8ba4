// SPDX-License-Identifier: GPL-2.0

//! System calls as a child of a threaded process needs them: nothing here allocates or locks.

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::os::fd::RawFd;

use nextid::{IPC_PRIVATE, IpcKind};
use nix::errno::Errno;
use nix::libc::{self, clone_args};

pub type Result<T> = std::result::Result<T, Errno>;

/// The ways to create a process.
#[derive(Clone, Copy, Debug)]
pub enum Creation {
    Fork,
    Vfork,
    Clone3,
    /// clone3 with a `set_tid` of its own.
    SetTid(i32),
}

fn clone3(set_tid: &[i32]) -> Result<i32> {
    // SAFETY: All of its fields are integers, for which zero is a value.
    let mut args: clone_args = unsafe { std::mem::zeroed() };
    args.exit_signal = libc::SIGCHLD as u64;
    if !set_tid.is_empty() {
        args.set_tid = set_tid.as_ptr() as u64;
        args.set_tid_size = set_tid.len() as u64;
    }
    // SAFETY: The child has a copy of this memory; what it may do with it is said in `create`.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<clone_args>()) };
    Ok(Errno::result(pid)? as i32)
}

fn fork() -> Result<i32> {
    // SAFETY: As above.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    Ok(Errno::result(pid)? as i32)
}

/// The child of [`vfork`]: `child` is a `*const &dyn Fn() -> i32`.
extern "C" fn run_child(child: *mut c_void) -> c_int {
    // SAFETY: `vfork` passes this.
    let child = unsafe { &*child.cast::<&dyn Fn() -> i32>() };
    child()
}

fn vfork(child: &dyn Fn() -> i32) -> Result<i32> {
    const STACK: usize = 16 << 10;
    #[repr(align(16))]
    struct Stack([u8; STACK]);

    let mut stack = Stack([0; STACK]);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: This thread sleeps, and so its stack stays as it is, until the child has ended.
    let pid = unsafe {
        let top = (&raw mut stack.0).cast::<u8>().add(STACK);
        libc::clone(run_child, top.cast(), flags, (&raw const child).cast_mut().cast())
    };
    Errno::result(pid)
}

/// Creates a process that runs `child` and exits with what it returns. Returns its id.
///
/// This process may have other threads, so that `child` must not allocate, lock or panic.
pub fn create(how: Creation, child: &dyn Fn() -> i32) -> Result<i32> {
    let pid = match how {
        Creation::Vfork => return vfork(child),
        Creation::Fork => fork()?,
        Creation::Clone3 => clone3(&[])?,
        Creation::SetTid(tid) => clone3(&[tid])?,
    };
    if pid == 0 {
        let status = child();
        // SAFETY: It has no preconditions.
        unsafe { libc::_exit(status) }
    }
    Ok(pid)
}

/// Waits for child `pid` (any child if -1), and returns its id and its status as a shell has it: an
/// exit status, or 128 and the signal.
pub fn wait(pid: i32) -> Result<(i32, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for a write.
        let ended = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
        match Errno::result(ended) {
            Ok(ended) if libc::WIFEXITED(status) => return Ok((ended, libc::WEXITSTATUS(status))),
            Ok(ended) => return Ok((ended, 128 + libc::WTERMSIG(status))),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

pub fn kill(pid: i32) {
    // SAFETY: It has no preconditions. Who is dead already needs no killing.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

pub fn getpid() -> i32 {
    // SAFETY: It has no preconditions.
    unsafe { libc::getpid() }
}

pub fn gettid() -> i32 {
    // SAFETY: It has no preconditions.
    unsafe { libc::gettid() }
}

pub fn sleep(microseconds: u32) {
    // SAFETY: It has no preconditions.
    unsafe { libc::usleep(microseconds) };
}

/// Opens `path` with `flags`.
pub fn open(path: &CStr, flags: c_int) -> Result<RawFd> {
    // SAFETY: `path` is valid.
    Errno::result(unsafe { libc::open(path.as_ptr(), flags) })
}

pub fn close(fd: RawFd) {
    // SAFETY: Who calls this owns `fd`.
    unsafe { libc::close(fd) };
}

pub fn write(fd: RawFd, bytes: &[u8]) -> Result<usize> {
    // SAFETY: `bytes` is valid.
    let len = Errno::result(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) })?;
    Ok(len.unsigned_abs())
}

/// Reads from the start of a file.
pub fn read(fd: RawFd, buffer: &mut [u8]) -> Result<usize> {
    // SAFETY: `buffer` is valid for writes.
    let len =
        Errno::result(unsafe { libc::pread(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) })?;
    Ok(len.unsigned_abs())
}

mod ioctl {
    // NS_GET_PID_IN_PIDNS of <linux/nsfs.h>, which takes its argument by value.
    const REQUEST: nix::libc::Ioctl =
        nix::request_code_read!(0xb7, 8, size_of::<std::ffi::c_int>());
    nix::ioctl_write_int_bad!(get_pid_in_pidns, REQUEST);
}

/// Returns the id, in the pid namespace that `namespace` is open on, of the task that is `tid`
/// here.
pub fn pid_in(namespace: RawFd, tid: i32) -> Result<i32> {
    // SAFETY: The argument of this request is a number.
    unsafe { ioctl::get_pid_in_pidns(namespace, tid) }
}

/// Executes the program that `fd` is open on. Returns only if that fails.
pub fn exec(fd: RawFd, argv: &[*const libc::c_char]) -> Errno {
    let empty = c"".as_ptr();
    let envp = [std::ptr::null::<libc::c_char>()];
    // SAFETY: The strings are valid, and the arrays end with a null pointer.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd,
            empty,
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    Errno::last()
}

/// Creates a small IPC object, for its creator alone.
pub fn create_object(kind: IpcKind) -> Result<i32> {
    kind.get(IPC_PRIVATE, 1, libc::IPC_CREAT | 0o600).map_err(|error| errno(&error))
}

/// Removes an IPC object.
pub fn remove_object(kind: IpcKind, id: i32) -> Result<()> {
    kind.remove(id).map_err(|error| errno(&error))
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}
