// SPDX-License-Identifier: GPL-2.0

//! What measurements are found by: the kernel, the group and the case.

use std::fmt;

use clap::ValueEnum;
use nextid::IpcKind;
use serde::{Deserialize, Serialize};

/// To create a process that ends at once, and to wait for it.
const PROCESS: &str = "fork, exit and wait";

/// How many threads each process of a dump has where both are many, its first included.
pub const THREADS_OF_BOTH: u64 = 20;

/// The kernels that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    /// Without the series.
    Baseline,
    /// With the series, without the option.
    Off,
    /// With the option.
    On,
    /// Debian's own.
    Debian,
    /// Debian's, with the series and the option.
    DebianNextId,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Baseline => "baseline",
            Self::Off => "off",
            Self::On => "on",
            Self::Debian => "Debian",
            Self::DebianNextId => "Debian, on",
        })
    }
}

/// Cases that are compared with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(ValueEnum))]
pub enum Group {
    /// What programs do that choose no id.
    NotUsed,
    /// The size of `task_struct`.
    TaskStruct,
    /// To choose the next id.
    Arming,
    /// To create a process with its ids, which ends at once, and to wait for it.
    Process,
    /// The same for a thread.
    Thread,
    /// To create a message queue with its id.
    MessageQueue,
    /// To create a semaphore set with its id.
    SemaphoreSet,
    /// To create a shared memory segment with its id.
    SharedMemory,
    /// One message queue more, among many.
    ManyQueues,
    /// One process more, among many.
    ManyProcesses,
    /// One id of a list.
    List,
    /// The kernel's own benchmark of the parser.
    Parser,
    /// The memory of a list.
    Memory,
    /// What programs do that choose no id, where so many ids are reserved.
    BesideReserved,
    /// To reserve so many ids, by one command.
    Reserve,
    /// The memory of a reservation in a namespace that has no other.
    ReservedMemory,
    /// A fork in a pid namespace where so many numbers are in use and reserved in turn.
    InTurn,
    /// A fork beside such a pid namespace.
    BesideInTurn,
    /// To restore a dump of one process with so many threads.
    DumpOfThreads,
    /// To restore a dump of so many processes, each with some threads.
    DumpOfBoth,
    /// To restore a dump of so many processes.
    DumpOfProcesses,
    /// To restore a dump of one process and so many IPC objects.
    DumpOfObjects,
}

impl Group {
    /// The cases that it has.
    pub fn cases(self) -> &'static [Case] {
        match self {
            Self::NotUsed => &[
                Case::Fork,
                Case::Thread,
                Case::Msgget,
                Case::Semget,
                Case::Shmget,
                Case::StatCached,
                Case::StatFirst,
                Case::StatLast,
                Case::StatNone,
                Case::ListProc,
            ],
            Self::TaskStruct => &[Case::ObjectSize],
            Self::Arming => &[
                Case::Getpid,
                Case::OomScoreAdj,
                Case::TimerslackNs,
                Case::NextId,
                Case::MsgNextId,
                Case::NextIdOpened,
                Case::MsgNextIdOpened,
            ],
            Self::Process | Self::Thread => {
                &[Case::NoId, Case::NextId, Case::SetTid, Case::Sysctl, Case::SysctlAsCriu]
            }
            Self::MessageQueue | Self::SemaphoreSet | Self::SharedMemory => {
                &[Case::NoId, Case::NextId, Case::Sysctl, Case::SysctlAsCriu]
            }
            Self::ManyQueues => &[Case::NoId, Case::NextId, Case::Sysctl],
            Self::ManyProcesses => &[Case::NoId, Case::NextId, Case::SetTid],
            Self::List | Self::Memory => &[Case::NextId],
            Self::Parser => &[Case::Parser, Case::ParserAndList, Case::SimpleStrtol],
            Self::BesideReserved => &[Case::Fork, Case::Msgget],
            Self::Reserve | Self::ReservedMemory => &[Case::Dense, Case::Scattered],
            Self::InTurn => &[Case::Fork],
            Self::BesideInTurn => &[Case::NothingElse, Case::OtherForks, Case::OtherForksInTurn],
            Self::DumpOfThreads
            | Self::DumpOfBoth
            | Self::DumpOfProcesses
            | Self::DumpOfObjects => &[Case::Criu, Case::CriuPatched, Case::NextidRestore],
        }
    }

    /// To create an IPC object of a kind.
    pub fn of(kind: IpcKind) -> Self {
        match kind {
            IpcKind::MessageQueue => Self::MessageQueue,
            IpcKind::SemaphoreSet => Self::SemaphoreSet,
            IpcKind::SharedMemory => Self::SharedMemory,
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotUsed => "not used",
            Self::TaskStruct => "task_struct",
            Self::Arming => "arming",
            Self::Process => PROCESS,
            Self::Thread => "thread",
            Self::MessageQueue => "msg",
            Self::SemaphoreSet => "sem",
            Self::SharedMemory => "shm",
            Self::ManyQueues => "message queues",
            Self::ManyProcesses => "processes",
            Self::List => "ids in a list",
            Self::Parser => "parser",
            Self::Memory => "memory",
            Self::BesideReserved => "ids reserved in the namespace",
            Self::Reserve => "ids reserved at once",
            Self::ReservedMemory => "ids in a reservation",
            Self::InTurn => "numbers in use and reserved in turn",
            Self::BesideInTurn => "fork, exit and wait beside a pid namespace",
            Self::DumpOfThreads => "threads of one process",
            Self::DumpOfBoth => return write!(f, "processes with {THREADS_OF_BOTH} threads each"),
            Self::DumpOfProcesses => "processes with one thread each",
            Self::DumpOfObjects => "IPC objects",
        })
    }
}

/// What is measured within a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// The kernel chooses the id.
    NoId,
    /// By `next_id`.
    NextId,
    /// By `set_tid` of clone3(2).
    SetTid,
    /// By a sysctl that is kept open.
    Sysctl,
    /// By a sysctl that is opened for each object, as CRIU does.
    SysctlAsCriu,
    /// By `next_id`, once all ids are reserved.
    NextIdReserved,

    /// The least that a system call can do.
    Getpid,
    /// A write to this file.
    OomScoreAdj,
    /// A write to this file.
    TimerslackNs,
    /// A write to this file.
    MsgNextId,
    /// A write to `next_id`, with open and close.
    NextIdOpened,
    /// A write to `msg_next_id`, with open and close.
    MsgNextIdOpened,

    /// A process that ends at once, and the wait for it.
    Fork,
    /// A thread that ends at once, and the wait for it.
    Thread,
    /// A message queue, and its removal.
    Msgget,
    /// A semaphore set, and its removal.
    Semget,
    /// A shared memory segment, and its removal.
    Shmget,
    /// stat(2) of a file of `/proc/PID` that was looked up before.
    StatCached,
    /// stat(2) of its first file, in a folder that is new.
    StatFirst,
    /// stat(2) of its last file, in a folder that is new.
    StatLast,
    /// stat(2) of a file that does not exist, in a folder that is new.
    StatNone,
    /// A list of all its files, in a folder that is new.
    ListProc,

    /// The size of a slab object.
    ObjectSize,

    /// The parser alone.
    Parser,
    /// The parser, with the list that it fills.
    ParserAndList,
    /// The loop of 2008.
    SimpleStrtol,

    /// Ids that follow each other.
    Dense,
    /// Ids far from each other.
    Scattered,

    /// Nobody else does anything.
    NothingElse,
    /// Another process forks in the pid namespace, where numbers are in use.
    OtherForks,
    /// The same, where the numbers between them are reserved.
    OtherForksInTurn,

    /// CRIU as it is.
    Criu,
    /// CRIU with `patches/criu/`.
    CriuPatched,
    /// `nextid restore`, which restores the skeleton alone.
    NextidRestore,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoId => "no id",
            Self::NextId => "next_id",
            Self::SetTid => "set_tid",
            Self::Sysctl => "sysctl, kept open",
            Self::SysctlAsCriu => "sysctl, as CRIU",
            Self::NextIdReserved => "next_id, reserved",
            Self::Getpid => "getpid()",
            Self::OomScoreAdj => "oom_score_adj",
            Self::TimerslackNs => "timerslack_ns",
            Self::MsgNextId => "msg_next_id",
            Self::NextIdOpened => "next_id, opened anew",
            Self::MsgNextIdOpened => "msg_next_id, opened anew",
            Self::Fork => PROCESS,
            Self::Thread => "thread",
            Self::Msgget => "msgget and remove",
            Self::Semget => "semget and remove",
            Self::Shmget => "shmget and remove",
            Self::StatCached => "stat of a cached entry of /proc/PID",
            Self::StatFirst => "first stat of the first entry of /proc/PID",
            Self::StatLast => "first stat of the last entry of /proc/PID",
            Self::StatNone => "stat of no entry of /proc/PID",
            Self::ListProc => "first list of /proc/PID",
            Self::ObjectSize => "object size",
            Self::Parser => "parser",
            Self::ParserAndList => "parser and list",
            Self::SimpleStrtol => "simple_strtol",
            Self::Dense => "dense",
            Self::Scattered => "scattered",
            Self::NothingElse => "nothing else runs",
            Self::OtherForks => "forks in it, every other number in use",
            Self::OtherForksInTurn => "the same, the others reserved",
            Self::Criu => "CRIU",
            Self::CriuPatched => "CRIU, patched",
            Self::NextidRestore => "nextid",
        })
    }
}

/// How long the children live of the processes beside which trees are restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lifetime {
    /// For a millisecond.
    Millisecond,
    /// They end at once.
    None,
}

impl Lifetime {
    /// All that is compared.
    pub const ALL: [Self; 2] = [Self::Millisecond, Self::None];
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Millisecond => "alive for 1 ms",
            Self::None => "end at once",
        })
    }
}
