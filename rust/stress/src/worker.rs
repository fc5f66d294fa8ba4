// SPDX-License-Identifier: GPL-2.0

//! A thread that arms ids, uses them, and knows what must come of it.

use std::fmt;
use std::io::Cursor;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::Builder;

use anyhow::Result;
use fastrand::Rng;
use nextid::IpcKind;
use nix::errno::Errno;
use nix::libc;

use crate::child::{self, status};
use crate::environment::Environment;
use crate::file::{Ids, NextId, State, Word, read_other};
use crate::ids::{self, MAX_IDS, OWN, PID_MAX, SHARED};
use crate::scenario::SLOTS;
use crate::sys::{self, Creation};
use crate::tally::Count;

/// The text of the longest list.
const TEXT: usize = 640 << 10;

/// Commands that are refused, each with its error.
const MALFORMED: [(&[u8], Errno); 9] = [
    (b"", Errno::EINVAL),
    (b"LONG", Errno::EINVAL),
    (b"LONG 08", Errno::EINVAL),
    (b"LONG0 1", Errno::EINVAL),
    (b"LONG3 1 2", Errno::EINVAL),
    (b"SHORT 1", Errno::EINVAL),
    (b"LONG65537 1", Errno::E2BIG),
    (b"LONG 9223372036854775808", Errno::ERANGE),
    (b"LONG2 1 -9223372036854775809", Errno::ERANGE),
];

pub struct Worker {
    env: Environment,
    slot: usize,
    random: Rng,
    file: NextId,
    buffer: Vec<u8>,
    /// What must be armed.
    armed: State,
    arms: u64,
}

impl Worker {
    pub fn new(env: Environment, slot: usize, seed: u64) -> Result<Self> {
        let outer = std::fs::read_link("/proc/thread-self")?;
        let mut ids = outer.iter().filter_map(|id| id.to_str()?.parse().ok());
        env.tally.register(slot, ids.next().unwrap_or(0), ids.next().unwrap_or(0));
        Ok(Self {
            env,
            slot,
            random: Rng::with_seed(seed),
            file: NextId::open()?,
            buffer: vec![0; TEXT],
            armed: None,
            arms: 0,
        })
    }

    /// Arms so many lists, and does something with each. The last may still be armed when the
    /// thread ends.
    pub fn run(mut self, arms: u64) -> Result<()> {
        while self.arms < arms {
            match self.random.u8(0..100) {
                0..30 => self.rearm(),
                30..34 => self.arm_many(),
                34..38 => self.malformed(),
                38..42 => self.read_others(),
                42..46 => self.other_kind(),
                46..49 => self.reserve_pids(),
                49..51 => self.reserve_objects(),
                51 => self.reserve_often(),
                52..64 => self.object(),
                64..70 => self.shared_object(),
                70..80 => self.process(),
                80..86 => self.shared_process(),
                86..89 => self.process_with_set_tid(),
                89..94 => self.thread(),
                94..98 => self.refused(),
                // It waits for a process while it is one: a limit could make all of them wait.
                98 if !self.env.scenario.limited => self.program()?,
                _ => self.victim(),
            }
        }
        self.env.tally.register(self.slot, 0, 0);
        Ok(())
    }

    fn fail(&self, what: fmt::Arguments<'_>) {
        self.env.tally.fail(format_args!("thread {}: {what}", self.slot));
    }

    fn count(&self, what: Count) {
        self.env.tally.count(what);
    }

    fn arm(&mut self, ids: Ids) {
        match self.file.arm(ids, &mut self.buffer) {
            Ok(()) => self.armed = Some(ids),
            Err(errno) => self.fail(format_args!("cannot arm {ids:?}: {errno}")),
        }
        self.arms += 1;
        self.count(Count::Arms);
    }

    fn reset(&mut self) {
        match self.file.reset() {
            Ok(()) => self.armed = None,
            Err(errno) => self.fail(format_args!("cannot reset: {errno}")),
        }
    }

    /// Wants what is armed to be what must be.
    fn check(&mut self, after: &str) {
        self.count(Count::Reads);
        match self.file.state(&mut self.buffer) {
            Ok(state) if state == self.armed => {}
            got => {
                self.fail(format_args!("after {after}: {:?} is armed, not {:?}", got, self.armed));
            }
        }
    }

    /// As many ids as the scenario allows, or fewer, which no other thread asks for.
    fn own_ids(&mut self) -> Ids {
        self.any_of(ids::of_processes(self.slot))
    }

    fn any_of(&mut self, mut lists: impl Iterator<Item = i64>) -> Ids {
        let first = lists.nth(self.random.usize(..OWN)).unwrap_or_default();
        let word = if self.random.bool() { Word::Long } else { Word::Pid };
        Ids::list(first, self.random.usize(1..=self.env.askable())).with(word)
    }

    fn rearm(&mut self) {
        let ids = self.own_ids();
        self.arm(ids);
        self.check("arming");
        if self.random.bool() {
            self.reset();
            self.check("RESET");
        }
    }

    /// Lists around the sizes at which their storage changes.
    fn arm_many(&mut self) {
        let count = match self.random.u16(0..400) {
            0 => MAX_IDS,
            _ => *self
                .random
                .choice(&[32, 33, 64, 511, 512, 513, 544, 545, 1056, 1057])
                .unwrap_or(&32),
        };
        let ids = Ids::list(self.random.i64(-1000..1_000_000), count);
        self.arm(ids);
        self.check("arming many");
        if self.random.bool() {
            self.want_refusal("too many ids", Errno::EINVAL);
        }
    }

    fn malformed(&mut self) {
        let (text, errno) = MALFORMED[self.random.usize(..MALFORMED.len())];
        if self.file.command(text) != Err(errno) {
            self.fail(format_args!(
                "{:?} is not refused with {errno}",
                String::from_utf8_lossy(text)
            ));
        }
        self.count(Count::Refusals);
        self.check("a malformed command");
    }

    fn read_others(&mut self) {
        let (process, thread) = self.env.tally.peer(self.random.usize(..SLOTS));
        if process == 0 {
            return;
        }
        let mut path = Cursor::new([0; 64]);
        let _ = if self.random.bool() {
            std::io::Write::write_fmt(
                &mut path,
                format_args!("/proc/{process}/task/{thread}/next_id"),
            )
        } else {
            std::io::Write::write_fmt(&mut path, format_args!("/proc/{process}/next_id"))
        };
        let Ok(path) = std::ffi::CStr::from_bytes_until_nul(path.get_ref()) else {
            return;
        };
        match read_other(path, &mut self.buffer) {
            Ok(_) => self.count(Count::OthersRead),
            Err(Errno::ENOENT | Errno::ESRCH) => {}
            Err(Errno::EACCES) if self.env.scenario.unprivileged => self.count(Count::Refusals),
            Err(errno) => self.fail(format_args!("{path:?}: {errno}")),
        }
    }

    /// Creates an object with an id that no other thread asks for.
    fn object(&mut self) {
        let kind = IpcKind::ALL[self.random.usize(..3)];
        let index = 512 + (self.slot * OWN + self.random.usize(..OWN)) as i32;
        let id = ids::of_object(self.random.u16(..), index);
        let word = if self.random.bool() { Word::Long } else { Word::Ipc(kind) };
        self.arm(Ids::one(id).with(word));
        match sys::create_object(kind) {
            Ok(got) => self.created(kind, id, got),
            Err(errno) => self.fail(format_args!("{kind:?} {id}: {errno}")),
        }
    }

    /// Arms for one kind, and creates an object of another, which neither uses it nor fails.
    fn other_kind(&mut self) {
        let kind = IpcKind::ALL[self.random.usize(..3)];
        let other = IpcKind::ALL[self.random.usize(..3)];
        let ids = if kind == other {
            self.own_ids().with(Word::Pid)
        } else {
            Ids::one(ids::of_object(self.random.u16(..), 511)).with(Word::Ipc(other))
        };
        self.arm(ids);
        match sys::create_object(kind) {
            Ok(got) => {
                self.count(Count::Objects);
                self.check("creating an object of another kind");
                if let Err(errno) = sys::remove_object(kind, got) {
                    self.fail(format_args!("cannot remove {kind:?} {got}: {errno}"));
                }
            }
            Err(errno) => self.fail(format_args!("{kind:?}, with {ids:?} armed: {errno}")),
        }
        self.reset();
    }

    /// Reserves pids, which no process gets then that does not ask for one by name.
    fn reserve_pids(&mut self) {
        self.reset();
        // Those just ahead of the kernel may be in use, or reserved by others.
        let ahead = self.random.bool();
        let ids = if ahead {
            let Some(pid) = self.unnamed_process() else { return };
            let count = self.random.usize(1..=32);
            Ids::list(i64::from(pid) + self.random.i64(1..16), count).with(Word::Pid)
        } else {
            let count = self.random.usize(1..=ids::MOST_RESERVED);
            Ids::list(ids::to_reserve(self.slot), count).with(Word::Pid)
        };
        let Some(file) = self.reserve(ids, ahead) else { return };
        if file.reserve(ids, &mut self.buffer) != Err(Errno::EBUSY) {
            self.fail(format_args!("{ids:?} are reserved a second time"));
        }
        for _ in 0..self.random.usize(1..4) {
            let Some(pid) = self.unnamed_process() else { break };
            if (ids.first..ids.id(ids.count)).contains(&pid.into()) {
                self.fail(format_args!("process {pid} was not to be one of {ids:?}"));
            }
        }
        let named = ids.id(self.random.usize(..ids.count));
        let named = Ids::list(named, 1).with(Word::Pid);
        self.arm(named);
        match self.create(Creation::Fork, &|| child::check(named, false)) {
            Ok(pid) => {
                self.armed = None;
                self.check_process(pid, named);
            }
            Err(errno) => self.fail(format_args!("a process with the reserved {named:?}: {errno}")),
        }
        self.check("creating a process with a reserved id");
        file.close();
    }

    /// Reserves ids of IPC objects.
    fn reserve_objects(&mut self) {
        self.reset();
        let kind = IpcKind::ALL[self.random.usize(..3)];
        let first = 2048 + (self.slot * OWN) as i64;
        let ids = Ids::list(first, self.random.usize(1..=OWN)).with(Word::Ipc(kind));
        let Some(file) = self.reserve(ids, false) else { return };
        match sys::create_object(kind) {
            Ok(got) => {
                if (ids.first..ids.id(ids.count)).contains(&i64::from(got & 0x7fff)) {
                    self.fail(format_args!("{kind:?} {got} was not to be one of {ids:?}"));
                }
                if let Err(errno) = sys::remove_object(kind, got) {
                    self.fail(format_args!("cannot remove {kind:?} {got}: {errno}"));
                }
            }
            Err(errno) => self.fail(format_args!("{kind:?}: {errno}")),
        }
        let id = ids::of_object(self.random.u16(..), first as i32);
        self.arm(Ids::one(id).with(Word::Ipc(kind)));
        match sys::create_object(kind) {
            Ok(got) => self.created(kind, id, got),
            Err(errno) => self.fail(format_args!("the reserved {kind:?} {id}: {errno}")),
        }
        file.close();
    }

    /// Reserves pids and gives them back, again and again, while others look for free ones.
    fn reserve_often(&mut self) {
        for _ in 0..self.random.usize(..32) {
            let count = self.random.usize(1..=ids::MOST_RESERVED);
            let ids = Ids::list(ids::to_reserve(self.slot), count).with(Word::Pid);
            let Some(file) = self.reserve(ids, false) else { return };
            file.close();
        }
    }

    /// Reserves `ids` by a file of its own. Others may be in the way where `contended`; else only
    /// a child that was forked meanwhile, and has a copy of the file that held them before.
    fn reserve(&mut self, ids: Ids, contended: bool) -> Option<NextId> {
        let file = match NextId::open() {
            Ok(file) => file,
            Err(errno) => {
                self.fail(format_args!("cannot open next_id: {errno}"));
                return None;
            }
        };
        let mut tries = 0..20_000;
        loop {
            match file.reserve(ids, &mut self.buffer) {
                Ok(()) => {
                    self.count(Count::Reservations);
                    return Some(file);
                }
                Err(Errno::EBUSY) if contended => {
                    self.count(Count::Taken);
                    break;
                }
                Err(Errno::EBUSY) if tries.next().is_some() => sys::sleep(1000),
                // The namespace is being killed, and this thread too.
                Err(Errno::ENOMEM) if self.env.scenario.killed => break,
                Err(errno) => {
                    self.fail(format_args!("cannot reserve {ids:?}: {errno}"));
                    break;
                }
            }
        }
        file.close();
        None
    }

    /// Creates a process whose id the kernel chooses, waits for it, and returns the id.
    fn unnamed_process(&mut self) -> Option<i32> {
        match self.create(Creation::Fork, &|| status::OK) {
            Ok(pid) => {
                if let Err(errno) = sys::wait(pid) {
                    self.fail(format_args!("cannot wait for {pid}: {errno}"));
                }
                Some(pid)
            }
            Err(errno) => {
                self.fail(format_args!("fork: {errno}"));
                None
            }
        }
    }

    fn created(&mut self, kind: IpcKind, id: i32, got: i32) {
        self.armed = None;
        self.count(Count::Objects);
        if got != id {
            self.fail(format_args!("{kind:?} {id} came out as {got}"));
        }
        self.check("creating an object");
        if let Err(errno) = sys::remove_object(kind, got) {
            self.fail(format_args!("cannot remove {kind:?} {got}: {errno}"));
        }
    }

    /// Creates an object with an index that others want at the same time.
    fn shared_object(&mut self) {
        let kind = IpcKind::ALL[self.random.usize(..3)];
        let id = ids::of_object(self.random.u16(..), self.random.i32(0..SHARED as i32));
        self.arm(Ids::one(id));
        match sys::create_object(kind) {
            Ok(got) => {
                sys::sleep(self.random.u32(..200));
                self.created(kind, id, got);
            }
            Err(Errno::EBUSY) => {
                self.count(Count::Taken);
                self.check("EBUSY from an object");
            }
            Err(errno) => self.fail(format_args!("{kind:?} {id}: {errno}")),
        }
    }

    fn any_creation(&mut self) -> Creation {
        *self
            .random
            .choice(&[Creation::Fork, Creation::Vfork, Creation::Clone3])
            .unwrap_or(&Creation::Fork)
    }

    /// Creates a process, again and again where a limit is in the way: what is armed stays so until
    /// that succeeds.
    fn create(&mut self, how: Creation, child: &dyn Fn() -> i32) -> sys::Result<i32> {
        loop {
            match sys::create(how, child) {
                Err(Errno::EAGAIN) if self.env.scenario.limited => {
                    self.count(Count::Retries);
                    self.check("EAGAIN");
                    sys::sleep(100);
                }
                // The namespace is being killed, and this thread too.
                Err(Errno::ENOMEM) if self.env.scenario.killed => sys::sleep(1000),
                result => return result,
            }
        }
    }

    /// Wants process `pid` to have `ids`, and to end well.
    fn check_process(&mut self, pid: i32, ids: Ids) {
        self.count(Count::Processes);
        if let Err((level, got)) = check_task(&self.env, pid, ids) {
            self.fail(format_args!("of {ids:?}, level {level} came out as {got:?}"));
        }
        match sys::wait(pid) {
            Ok((_, status::OK)) => {}
            status => self.fail(format_args!("process {pid} with {ids:?} ended with {status:?}")),
        }
    }

    fn process(&mut self) {
        let how = self.any_creation();
        let ids = self.own_ids();
        let look = self.random.u8(..4) == 0;
        self.arm(ids);
        match self.create(how, &|| child::check(ids, look)) {
            Ok(pid) => {
                self.armed = None;
                self.check_process(pid, ids);
            }
            Err(errno) => self.fail(format_args!("{how:?} with {ids:?}: {errno}")),
        }
        self.check("creating a process");
    }

    /// Creates a process with ids that others want at the same time.
    fn shared_process(&mut self) {
        let number = self.random.usize(..SHARED);
        let first = ids::shared().nth(number).unwrap_or_default();
        let ids = Ids::list(first, 1);
        let time = self.random.u32(..500);
        self.arm(ids);
        match self.create(Creation::Fork, &|| {
            sys::sleep(time);
            child::check(ids, false)
        }) {
            Ok(pid) => {
                self.armed = None;
                self.check_process(pid, ids);
            }
            Err(Errno::EBUSY) => self.count(Count::Taken),
            Err(errno) => self.fail(format_args!("a process with {ids:?}: {errno}")),
        }
        self.check("creating a process with an id that others want");
    }

    /// An id in `set_tid` goes before what is armed, which is for the next process then.
    fn process_with_set_tid(&mut self) {
        let ids = self.own_ids();
        let other = Ids { count: 1, ..self.own_ids() };
        self.arm(ids);
        match self.create(Creation::SetTid(other.first as i32), &|| child::check(other, false)) {
            Ok(pid) => self.check_process(pid, other),
            Err(errno) => self.fail(format_args!("set_tid {}: {errno}", other.first)),
        }
        self.check("set_tid");
        match self.create(Creation::Fork, &|| child::check(ids, false)) {
            Ok(pid) => {
                self.armed = None;
                self.check_process(pid, ids);
            }
            Err(errno) => self.fail(format_args!("fork after set_tid, with {ids:?}: {errno}")),
        }
    }

    fn thread(&mut self) {
        let ids = self.any_of(ids::of_threads(self.slot));
        self.arm(ids);
        let env = self.env;
        let thread = loop {
            let builder = Builder::new().stack_size(64 << 10);
            match builder.spawn(move || check_task(&env, sys::gettid(), ids)) {
                Ok(thread) => break thread,
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    // A thread that was joined may have its id for a moment still.
                    Some(Errno::EBUSY) => sys::sleep(100),
                    Some(Errno::EAGAIN) if self.env.scenario.limited => sys::sleep(100),
                    Some(Errno::ENOMEM | Errno::EAGAIN) if self.env.scenario.killed => {
                        sys::sleep(1000);
                    }
                    _ => return self.fail(format_args!("a thread with {ids:?}: {error}")),
                },
            }
            self.count(Count::Retries);
            self.check("a thread that was refused");
        };
        self.armed = None;
        self.count(Count::Threads);
        match thread.join() {
            Ok(Ok(())) => {}
            got => self.fail(format_args!("a thread with {ids:?} came out as {got:?}")),
        }
        self.check("creating a thread");
    }

    fn want_refusal(&mut self, what: &str, errno: Errno) {
        match sys::create(Creation::Fork, &|| status::NOT_REFUSED) {
            Err(got) if got == errno => {}
            Ok(pid) => {
                self.fail(format_args!("{what}: became process {pid}"));
                let _ = sys::wait(pid);
            }
            Err(got) => self.fail(format_args!("{what}: {got}, not {errno}")),
        }
        self.count(Count::Refusals);
        self.check(what);
    }

    /// Ids that cannot be had. They stay armed.
    fn refused(&mut self) {
        let own = self.own_ids();
        let levels = self.env.namespaces().len();
        let askable = self.env.askable();
        let beyond = [i64::MIN, -1, 0, PID_MAX, i32::MAX.into(), (1 << 32) + own.first, i64::MAX];
        match self.random.u8(..5) {
            0 => {
                self.arm(Ids { count: levels + 1, ..own });
                self.want_refusal("an id more than levels", Errno::EINVAL);
            }
            1 if askable < levels => {
                self.arm(Ids { count: levels, ..own });
                self.want_refusal("an id in the namespace of another user", Errno::EPERM);
            }
            1 | 2 => {
                let first = beyond[self.random.usize(..beyond.len())];
                self.arm(Ids::list(first, 1));
                self.want_refusal("an id out of range", Errno::EINVAL);
            }
            3 => {
                self.arm(Ids::one(sys::gettid()));
                self.want_refusal("the id of this thread", Errno::EBUSY);
            }
            _ => self.refused_object(),
        }
    }

    fn refused_object(&mut self) {
        let kind = IpcKind::ALL[self.random.usize(..3)];
        let first =
            *self.random.choice(&[i64::MIN, -1, 1 << 31, (1 << 32) + 7, i64::MAX]).unwrap_or(&-1);
        let ids = if self.random.bool() { Ids::list(first, 1) } else { Ids::list(7, 2) };
        self.arm(ids);
        match sys::create_object(kind) {
            Err(Errno::EINVAL) => self.count(Count::Refusals),
            got => self.fail(format_args!("{kind:?} with {ids:?} is not refused: {got:?}")),
        }
        self.check("an object that was refused");
    }

    /// Arms in a child, which executes a program, for which nothing is armed.
    fn program(&mut self) -> Result<()> {
        let ids = self.own_ids();
        let argv = [c"stress".as_ptr(), c"after-exec".as_ptr(), std::ptr::null()];
        let program = self.env.program;
        self.reset();
        let child = || {
            let Ok(file) = NextId::open() else {
                return status::SYSTEM;
            };
            if file.arm_few(ids).is_err() {
                return status::SYSTEM;
            }
            sys::exec(program, &argv);
            status::SYSTEM
        };
        match self.create(Creation::Fork, &child) {
            Ok(pid) => match sys::wait(pid)? {
                (_, status::OK) => self.count(Count::Execs),
                (_, status) => {
                    self.fail(format_args!("a program with {ids:?} ended with {status}"));
                }
            },
            Err(errno) => self.fail(format_args!("fork: {errno}")),
        }
        self.arms += 1;
        self.count(Count::Arms);
        Ok(())
    }

    /// Kills a process that is busy with all this.
    fn victim(&mut self) {
        let number = self.env.tally.victims.fetch_add(1, Relaxed) as usize;
        self.reset();
        let tally = self.env.tally;
        match self.create(Creation::Fork, &|| child::be_victim(number, || tally.count(Count::Arms)))
        {
            Ok(pid) => {
                sys::sleep(self.random.u32(..5000));
                sys::kill(pid);
                match sys::wait(pid) {
                    Ok((_, status)) if status == 128 + libc::SIGKILL => self.count(Count::Kills),
                    got => self.fail(format_args!("victim {number} ended by itself: {got:?}")),
                }
            }
            Err(errno) => self.fail(format_args!("fork: {errno}")),
        }
    }
}

/// Wants a task to have `ids`. Returns the first level at which it has another one, and that.
fn check_task(
    env: &Environment,
    tid: i32,
    ids: Ids,
) -> std::result::Result<(), (usize, sys::Result<i32>)> {
    for (level, &namespace) in env.namespaces().iter().enumerate().take(ids.count) {
        let got = sys::pid_in(namespace, tid);
        if got.map(i64::from) != Ok(ids.id(level)) {
            return Err((level, got));
        }
    }
    Ok(())
}
