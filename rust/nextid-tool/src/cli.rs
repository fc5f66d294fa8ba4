// SPDX-License-Identifier: GPL-2.0

//! The command line, from which help, completions and the man page come.

// What becomes help is no Markdown.
#![allow(clippy::doc_markdown)]

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum, value_parser};
use clap_complete::Shell;
use nextid::{IpcKind, Kind};

use crate::failure::STATUSES;

/// Create processes and System V IPC objects with chosen ids
///
/// A kernel with CONFIG_NEXT_ID has a file /proc/self/next_id, to which a thread writes the ids of
/// the next object that it creates. nextid does this from the shell: it creates objects, runs
/// programs, reserves ids, tells who has an id, and restores the ids of a whole CRIU dump.
#[derive(Debug, Parser)]
#[command(name = "nextid", version, after_long_help = exit_status())]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// Where the kernel has no next_id, use clone3's set_tid, ns_last_pid and the *_next_id sysctls
    ///
    /// It is for run, msg, sem, shm and restore. Other tasks may use up what the sysctls were told,
    /// or see an object that came out wrong for a moment: it is then undone, and an error.
    #[arg(long, global = true)]
    pub fallback: bool,
}

/// What those of programs say.
pub const EXIT_STATUSES_OF_PROGRAMS: &str = "\
nextid run and nextid reserve exit as their program does: with 126 or 127 where it cannot be \
executed or found, and with 128 + n where signal n ended it. A status from 1 to 7 may come from \
either: if it is nextid's, there is a message on standard error.";

fn exit_status() -> String {
    let line = |(status, text): &(u8, &str)| {
        format!("  {status}    {}\n", text.replace('\n', "\n       "))
    };
    let lines: String = STATUSES.iter().map(line).collect();
    format!("Exit status:\n{lines}{EXIT_STATUSES_OF_PROGRAMS}")
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell what this kernel can do, and what you may do
    Probe(Output),

    /// Run a program in a process with chosen ids
    Run(Run),

    /// Create a message queue with a chosen id
    Msg(Object),

    /// Create a semaphore set with a chosen id
    Sem(SemaphoreSet),

    /// Create a shared memory segment with a chosen id
    Shm(Segment),

    /// Show the ids that the threads of a process have armed
    Show(Show),

    /// Tell who has ids: a process, an object, or a reservation
    ///
    /// It knows what /proc shows it, in the pid and IPC namespaces that it is run in.
    Who(Who),

    /// Hold ids while a program runs, so that nothing gets one by chance
    ///
    /// Whoever names an id gets it all the same: nextid, CRIU, clone3 with set_tid, the *_next_id
    /// sysctls. So the program may be anything that restores. All ids are held, or none, and the
    /// program does not run. It exits as the program does.
    Reserve(Reserve),

    /// Restore the processes, threads and System V IPC objects of a CRIU dump, with their ids
    ///
    /// It makes the skeleton of the dumped tree: processes that only sleep, with the ids, names,
    /// parents, process groups, sessions and threads that were dumped, and the IPC objects with
    /// their contents, in namespaces of their own where the dump had such. All of it or nothing
    /// is made.
    Restore(Restore),

    /// Print the completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },

    /// Print the man page of nextid, or of one of its commands
    Man {
        /// The command
        command: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct Output {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["pids", "above"]).required(true).multiple(true))]
pub struct Run {
    /// An id of the process: first the one in its own pid namespace, then the one in the
    /// namespace above, and so on
    ///
    /// Where nextid itself is the first process of a pid namespace, what the program starts gets
    /// ids above its own, as after any fork. Elsewhere, give --above for that.
    #[arg(long = "pid", value_name = "N", allow_negative_numbers = true)]
    pub pids: Vec<i64>,

    /// A minimum for the ids of the process, its threads and its children: all are greater than N
    ///
    /// As long as nextid runs, the kernel chooses no id up to N in this pid namespace, except one
    /// that was in use when nextid began.
    #[arg(long, value_name = "N", value_parser = value_parser!(i64).range(1..))]
    pub above: Option<i64>,

    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Object {
    /// The id: its sequence number << 15 | its index
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub id: i64,

    /// The key, decimal or with 0x; 0 is IPC_PRIVATE
    #[arg(long, default_value = "0", value_parser = key, allow_negative_numbers = true)]
    pub key: i32,

    /// The permission bits, octal
    #[arg(long, default_value = "600", value_parser = mode)]
    pub mode: u16,

    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct SemaphoreSet {
    #[command(flatten)]
    pub object: Object,

    /// How many semaphores the set has
    #[arg(long, value_name = "N", default_value = "1", value_parser = value_parser!(u16).range(1..))]
    pub count: u16,
}

#[derive(Debug, Args)]
pub struct Segment {
    #[command(flatten)]
    pub object: Object,

    /// The size of the segment, in bytes
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "4096",
        value_parser = value_parser!(u64).range(1..)
    )]
    pub size: u64,
}

#[derive(Debug, Args)]
pub struct Show {
    /// The process. If your shell has armed a pid, `nextid show $$` cannot show it: nextid uses it
    pub pid: i32,

    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct ObjectIds {
    /// An id of processes and threads; this and the others can be given more than once
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pid: Vec<i64>,

    /// An id of a message queue
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    msg: Vec<i64>,

    /// An id of a semaphore set
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    sem: Vec<i64>,

    /// An id of a shared memory segment
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    shm: Vec<i64>,
}

impl ObjectIds {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (Kind, i64)> {
        self.lists().into_iter().flat_map(|(kind, ids)| ids.iter().map(move |&id| (kind, id)))
    }

    /// The ids of each kind.
    pub fn lists(&self) -> [(Kind, &[i64]); 4] {
        [
            (Kind::Task, &self.pid),
            (IpcKind::MessageQueue.into(), &self.msg),
            (IpcKind::SemaphoreSet.into(), &self.sem),
            (IpcKind::SharedMemory.into(), &self.shm),
        ]
    }
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("ids").args(["pid", "msg", "sem", "shm"]).required(true).multiple(true))]
pub struct Who {
    #[command(flatten)]
    pub ids: ObjectIds,

    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("ids")
        .args(["dump", "pid", "msg", "sem", "shm"])
        .required(true)
        .multiple(true)
)]
pub struct Reserve {
    /// The folder of CRIU's images, or an archive of it: all ids of its processes and threads
    pub dump: Option<PathBuf>,

    #[command(flatten)]
    pub reading: Reading,

    #[command(flatten)]
    pub ids: ObjectIds,

    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// The folder of CRIU's images, or an archive of it: what `podman container checkpoint
    /// --export` and the kubelet write, a tar file, which gzip or zstd may have compressed
    pub dump: PathBuf,

    #[command(flatten)]
    pub reading: Reading,

    /// Also give a process or thread of the dump ids further out: PID=OUTER[,OUTER...]
    ///
    /// PID is its id in the dump. The ids are those in the pid namespace around its own, in the one
    /// around that, and so on.
    #[arg(long = "outer-pid", value_name = "PID=OUTER", value_parser = outer_pid)]
    pub outer_pids: Vec<OuterPids>,

    /// Only show what would be restored, and what stands in the way: a kernel without next_id, ids
    /// in use, limits, owners that have no number in this user namespace
    #[arg(long)]
    pub dry_run: bool,

    /// Leave the tree running; without it, nextid waits for the first process to end, and the
    /// tree ends with nextid
    #[arg(long, short, conflicts_with = "dry_run")]
    pub detach: bool,

    #[command(flatten)]
    pub output: Output,
}

/// How a dump is read.
#[derive(Debug, Args)]
pub struct Reading {
    /// The folder or archive of the pre-dump that the dump builds on, if its link `parent` does not
    /// lead there; where that builds on another one, too, that one comes next
    #[arg(long, value_name = "PRE-DUMP", requires = "dump")]
    pub parent: Vec<PathBuf>,

    /// Use the current namespaces of these kinds, instead of new ones
    ///
    /// pid: for a dump of a part of a pid namespace, as of a container of a pod. ipc: for IPC
    /// objects that others use, too; they get no namespace of their own, and its limits stay as
    /// they are.
    #[arg(long, value_name = "KIND", value_enum, value_delimiter = ',', requires = "dump")]
    pub join: Vec<Join>,
}

/// A kind of namespace that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Join {
    Pid,
    Ipc,
}

/// The ids of a process or thread of a dump in pid namespaces further out.
#[derive(Clone, Debug)]
pub struct OuterPids {
    pub pid: i32,
    pub outer: Vec<i64>,
}

fn outer_pid(text: &str) -> Result<OuterPids, String> {
    let parse = || {
        let (pid, outer) = text.split_once('=')?;
        let outer: Result<Vec<i64>, _> = outer.split(',').map(str::parse).collect();
        Some(OuterPids { pid: pid.parse().ok()?, outer: outer.ok()? })
    };
    parse().ok_or_else(|| "it must be like 7=23456, or 7=23456,812".to_owned())
}

fn key(text: &str) -> Result<i32, String> {
    // Keys are ints, and written as their bits.
    let of_bits = |bits: u32| i32::from_ne_bytes(bits.to_ne_bytes());
    let key = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).map(of_bits),
        None => text.parse().or_else(|_| text.parse().map(of_bits)),
    };
    key.map_err(|_| "it must be decimal, or hexadecimal after 0x, in 32 bits".to_owned())
}

fn mode(text: &str) -> Result<u16, String> {
    match u16::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("it must be octal, 0 to 777".to_owned()),
    }
}
