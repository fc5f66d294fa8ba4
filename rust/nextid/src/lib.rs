// SPDX-License-Identifier: GPL-2.0

#![doc = include_str!("../README.md")]

mod error;
mod fallback;
mod file;
mod holder;
mod ids;
mod ipc;
mod kind;
mod namespace;
mod next_id;
mod pty;
mod reservation;
mod status;
mod task;

pub use error::{Action, Error, Feature, Result};
pub use file::{Pending, armed_by};
pub use holder::{Holder, Role, holders};
pub use ids::Ids;
pub use ipc::{IPC_PRIVATE, MessageQueue, SemaphoreSet, SharedMemory, ipc_id};
pub use kind::{IpcKind, Kind};
pub use next_id::{Armed, MAX_LEVELS, Method, NextId, Request};
pub use pty::Pty;
pub use reservation::{MAX_IDS, Reservation};
pub use status::Status;
pub use task::{Child, Pids};
