// SPDX-License-Identifier: GPL-2.0

//! What measurements are found by: the kernel, the group and the case.

use std::fmt;

use clap::ValueEnum;
use nextid::IpcKind;
use serde::{Deserialize, Serialize};

/// To create a process that ends at once, and to wait for it.
const PROCESS: &str = "fork, exit and wait";

/// The kernels that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    /// Without the series.
    Pristine,
    /// With the series, without the option.
    Off,
    /// With the option.
    On,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pristine => "pristine",
            Self::Off => "off",
            Self::On => "on",
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
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoId => "no id",
            Self::NextId => "next_id",
            Self::SetTid => "set_tid",
            Self::Sysctl => "sysctl, kept open",
            Self::SysctlAsCriu => "sysctl, as CRIU",
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
        })
    }
}
