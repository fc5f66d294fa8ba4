// SPDX-License-Identifier: GPL-2.0

//! What the children of the workers do. They have a copy of a process with several threads, so that
//! nothing here allocates or locks.

use nextid::IpcKind;
use nix::errno::Errno;

use crate::file::{Ids, NextId, SHORT_TEXT, Word};
use crate::ids;
use crate::sys::{self, Creation};

/// Their exit statuses.
pub mod status {
    pub const OK: i32 = 0;
    pub const WRONG_ID: i32 = 1;
    pub const INHERITED: i32 = 2;
    pub const LOST: i32 = 3;
    pub const NOT_REFUSED: i32 = 4;
    pub const SYSTEM: i32 = 5;
    pub const NOT_RESERVED: i32 = 6;
}

/// What a child does that must have `ids`: it checks that. Where it is to `look` it also checks
/// that nothing is armed, and arms a list, to exit with. Returns its exit status.
pub fn check(ids: Ids, look: bool) -> i32 {
    if i64::from(sys::getpid()) != ids.first {
        return status::WRONG_ID;
    }
    if look {
        let Ok(file) = NextId::open() else { return status::SYSTEM };
        if file.state_of_few() != Ok(None) {
            return status::INHERITED;
        }
        if file.arm_few(ids).is_err() {
            return status::SYSTEM;
        }
    }
    status::OK
}

/// Arms, forks and creates objects until it is killed. It ends by itself only where something is
/// wrong.
pub fn be_victim(number: usize, armed: impl Fn()) -> i32 {
    let Ok(file) = NextId::open() else {
        return status::SYSTEM;
    };
    let first = ids::of_victim(number);
    // It holds these, if no other victim does, until it is killed.
    let reserves = Ids::list(ids::RESERVED_BY_VICTIMS, 16).with(Word::Pid);
    if !matches!(file.reserve(reserves, &mut [0; SHORT_TEXT]), Ok(()) | Err(Errno::EBUSY)) {
        return status::NOT_RESERVED;
    }
    let index = ids::object_of_victim(number);
    for turn in 0_u16.. {
        let ids = Ids::list(first + i64::from(turn % 64), 1);
        if file.arm_few(ids).is_err() {
            return status::SYSTEM;
        }
        armed();
        if turn % 3 > 0 {
            match sys::create(Creation::Fork, &|| 0) {
                Ok(pid) if i64::from(pid) != ids.first => return status::WRONG_ID,
                Ok(pid) => drop(sys::wait(pid)),
                Err(_) => {}
            }
        } else {
            let kind = IpcKind::ALL[usize::from(turn / 3 % 3)];
            let id = ids::of_object(turn, index);
            match file.arm_few(Ids::one(id)).and_then(|()| sys::create_object(kind)) {
                Ok(got) if got != id => return status::WRONG_ID,
                Ok(got) => drop(sys::remove_object(kind, got)),
                Err(_) => {}
            }
        }
        if !matches!(file.state_of_few(), Ok(state) if state.is_none_or(|ids| ids.count == 1)) {
            return status::LOST;
        }
    }
    status::OK
}

/// What this program does when it was executed while ids were armed, which ended with that: it
/// forks. Returns its exit status.
pub fn after_exec() -> i32 {
    let Ok(file) = NextId::open() else {
        return status::SYSTEM;
    };
    if file.state_of_few() != Ok(None) {
        return status::INHERITED;
    }
    loop {
        match sys::create(Creation::Fork, &|| status::OK) {
            Ok(pid) => return sys::wait(pid).map_or(status::SYSTEM, |(_, status)| status),
            // In the scenario that is being killed.
            Err(Errno::ENOMEM) => sys::sleep(100),
            Err(_) => return status::SYSTEM,
        }
    }
}
