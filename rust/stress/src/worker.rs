// SPDX-License-Identifier: GPL-2.0

//! A thread that arms ids, uses them, and knows what must come of it.

use std::ffi::CString;
use std::fmt;
use std::io::Cursor;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::Builder;

use anyhow::Result;
use fastrand::Rng;
use nix::errno::Errno;
use nix::libc;

use crate::file::{Ids, NextId, State, read_other};
use crate::scene::{MAX_LEVELS, PLACES, Stage};
use crate::sys::{self, Creation, Ipc};
use crate::tally::Count;

/// The text of the longest list.
const TEXT: usize = 640 << 10;

/// The most ids that can be armed.
const MAX_IDS: usize = 65536;

/// One above the greatest pid that there can be: `PID_MAX_LIMIT`.
pub const PID_MAX: i64 = 1 << 22;

/// How many ids, or lists of ids, a thread has for itself.
const OWN: usize = 16;

/// Ids that several threads of a scene compete for.
const SHARED: usize = 2;

/// The exit statuses of the children that this program makes.
pub mod status {
    pub const OK: i32 = 0;
    pub const WRONG_ID: i32 = 1;
    pub const INHERITED: i32 = 2;
    pub const LOST: i32 = 3;
    pub const NOT_REFUSED: i32 = 4;
    pub const SYSTEM: i32 = 5;
}

/// The first ids of the lists that the thread at a place has for its processes. The kernel, which counts up from 1, does not
/// come there.
pub fn process_ids_at(place: usize) -> impl Iterator<Item = i64> {
    let first = 1_000_000 + (place * OWN * MAX_LEVELS) as i64;
    (first..).step_by(MAX_LEVELS).take(OWN)
}

/// As [`process_ids_at`], for its threads. A thread that was joined has its ids for a moment still: only a thread, which
/// waits for that, may ask for them again.
pub fn thread_ids_at(place: usize) -> impl Iterator<Item = i64> {
    process_ids_at(PLACES + place)
}

/// As [`process_ids_at`], for all threads of a scene.
pub fn shared_process_ids() -> impl Iterator<Item = i64> {
    (900_000..).step_by(MAX_LEVELS).take(SHARED)
}

/// Places beyond those of the threads, of which each victim has one.
const VICTIMS: Range<usize> = 2 * PLACES..2 * PLACES + 40_000;

const OBJECTS_OF_VICTIMS: Range<i32> = 16384..32768;

/// The id of an IPC object: the sequence number above, the index below.
fn object_id(sequence: u16, index: i32) -> i32 {
    i32::from(sequence) << 15 | index
}

pub fn is_object_of_victim(id: i32) -> bool {
    OBJECTS_OF_VICTIMS.contains(&(id & 0x7fff))
}

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
    stage: Stage,
    place: usize,
    random: Rng,
    file: NextId,
    buffer: Vec<u8>,
    /// What must be armed.
    armed: State,
    arms: u64,
}

impl Worker {
    pub fn new(stage: Stage, place: usize, seed: u64) -> Result<Self> {
        let outer = std::fs::read_link("/proc/thread-self")?;
        let mut ids = outer.iter().filter_map(|id| id.to_str()?.parse().ok());
        stage.tally.register(place, ids.next().unwrap_or(0), ids.next().unwrap_or(0));
        Ok(Self {
            stage,
            place,
            random: Rng::with_seed(seed),
            file: NextId::open()?,
            buffer: vec![0; TEXT],
            armed: None,
            arms: 0,
        })
    }

    /// Arms so many lists, and does with them what comes to mind. The last may still be armed when the thread ends.
    pub fn run(mut self, arms: u64) -> Result<()> {
        while self.arms < arms {
            match self.random.u8(0..100) {
                0..30 => self.rearm(),
                30..34 => self.arm_many(),
                34..40 => self.malformed(),
                40..46 => self.read_others(),
                46..62 => self.object(),
                62..70 => self.shared_object(),
                70..80 => self.process(),
                80..86 => self.shared_process(),
                86..89 => self.process_with_set_tid(),
                89..94 => self.thread(),
                94..98 => self.refused(),
                // It waits for a process while it is one: a limit could make all of them wait.
                98 if !self.stage.scene.limited => self.program()?,
                _ => self.victim(),
            }
        }
        self.stage.tally.register(self.place, 0, 0);
        Ok(())
    }

    fn fail(&self, what: fmt::Arguments<'_>) {
        self.stage.tally.fail(format_args!("thread {}: {what}", self.place));
    }

    fn count(&self, what: Count) {
        self.stage.tally.count(what);
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

    /// As many ids as the scene allows, or fewer, which no other thread asks for.
    fn own_ids(&mut self) -> Ids {
        self.any_of(process_ids_at(self.place))
    }

    fn any_of(&mut self, mut lists: impl Iterator<Item = i64>) -> Ids {
        let first = lists.nth(self.random.usize(..OWN)).unwrap_or_default();
        Ids { first, count: self.random.usize(1..=self.stage.askable()) }
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
        let ids = Ids { first: self.random.i64(-1000..1_000_000), count };
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
        let (process, thread) = self.stage.tally.peer(self.random.usize(..PLACES));
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
            Err(Errno::EACCES) if self.stage.scene.unprivileged => self.count(Count::Refusals),
            Err(errno) => self.fail(format_args!("{path:?}: {errno}")),
        }
    }

    /// Creates an object with an id that no other thread asks for.
    fn object(&mut self) {
        let kind = Ipc::ALL[self.random.usize(..3)];
        let index = 512 + (self.place * OWN + self.random.usize(..OWN)) as i32;
        let id = object_id(self.random.u16(..), index);
        self.arm(Ids::one(id));
        match kind.create() {
            Ok(got) => self.created(kind, id, got),
            Err(errno) => self.fail(format_args!("{kind:?} {id}: {errno}")),
        }
    }

    fn created(&mut self, kind: Ipc, id: i32, got: i32) {
        self.armed = None;
        self.count(Count::Objects);
        if got != id {
            self.fail(format_args!("{kind:?} {id} came out as {got}"));
        }
        self.check("creating an object");
        if let Err(errno) = kind.remove(got) {
            self.fail(format_args!("cannot remove {kind:?} {got}: {errno}"));
        }
    }

    /// Creates an object with an index that others want at the same time.
    fn shared_object(&mut self) {
        let kind = Ipc::ALL[self.random.usize(..3)];
        let id = object_id(self.random.u16(..), self.random.i32(0..SHARED as i32));
        self.arm(Ids::one(id));
        match kind.create() {
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

    /// Creates a process, again and again where a limit is in the way: what is armed stays so until that succeeds.
    fn create(&mut self, how: Creation, child: &dyn Fn() -> i32) -> sys::Result<i32> {
        loop {
            match sys::create(how, child) {
                Err(Errno::EAGAIN) if self.stage.scene.limited => {
                    self.count(Count::Retries);
                    self.check("EAGAIN");
                    sys::sleep(100);
                }
                // The namespace is being killed, and this thread with it.
                Err(Errno::ENOMEM) if self.stage.scene.doomed => sys::sleep(1000),
                result => return result,
            }
        }
    }

    /// Wants process `pid` to have `ids`, and to end well.
    fn check_process(&mut self, pid: i32, ids: Ids) {
        self.count(Count::Processes);
        if let Err((level, got)) = check_task(&self.stage, pid, ids) {
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
        match self.create(how, &|| child_with(ids, look)) {
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
        let first = shared_process_ids().nth(number).unwrap_or_default();
        let ids = Ids { first, count: 1 };
        let time = self.random.u32(..500);
        self.arm(ids);
        match self.create(Creation::Fork, &|| {
            sys::sleep(time);
            child_with(ids, false)
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
        match self.create(Creation::SetTid(other.first as i32), &|| child_with(other, false)) {
            Ok(pid) => self.check_process(pid, other),
            Err(errno) => self.fail(format_args!("set_tid {}: {errno}", other.first)),
        }
        self.check("set_tid");
        match self.create(Creation::Fork, &|| child_with(ids, false)) {
            Ok(pid) => {
                self.armed = None;
                self.check_process(pid, ids);
            }
            Err(errno) => self.fail(format_args!("fork after set_tid, with {ids:?}: {errno}")),
        }
    }

    fn thread(&mut self) {
        let ids = self.any_of(thread_ids_at(self.place));
        self.arm(ids);
        let stage = self.stage;
        let thread = loop {
            let builder = Builder::new().stack_size(64 << 10);
            match builder.spawn(move || check_task(&stage, sys::gettid(), ids)) {
                Ok(thread) => break thread,
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    // A thread that was joined may have its id for a moment still.
                    Some(Errno::EBUSY) => sys::sleep(100),
                    Some(Errno::EAGAIN) if self.stage.scene.limited => sys::sleep(100),
                    Some(Errno::ENOMEM | Errno::EAGAIN) if self.stage.scene.doomed => {
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
        let levels = self.stage.namespaces().len();
        let askable = self.stage.askable();
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
                self.arm(Ids { first, count: 1 });
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
        let kind = Ipc::ALL[self.random.usize(..3)];
        let first =
            *self.random.choice(&[i64::MIN, -1, 1 << 31, (1 << 32) + 7, i64::MAX]).unwrap_or(&-1);
        let ids =
            if self.random.bool() { Ids { first, count: 1 } } else { Ids { first: 7, count: 2 } };
        self.arm(ids);
        match kind.create() {
            Err(Errno::EINVAL) => self.count(Count::Refusals),
            got => self.fail(format_args!("{kind:?} with {ids:?} is not refused: {got:?}")),
        }
        self.check("an object that was refused");
    }

    /// Arms in a child, which executes a program, which uses it.
    fn program(&mut self) -> Result<()> {
        let ids = self.own_ids();
        let arguments =
            ["stress".into(), "after-exec".into(), ids.first.to_string(), ids.count.to_string()];
        let arguments =
            arguments.map(CString::new).into_iter().collect::<std::result::Result<Vec<_>, _>>()?;
        let mut argv = arguments.iter().map(|argument| argument.as_ptr()).collect::<Vec<_>>();
        argv.push(std::ptr::null());
        let program = self.stage.program;
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
        let number = self.stage.tally.victims.fetch_add(1, Relaxed) as usize % VICTIMS.len();
        self.reset();
        let tally = self.stage.tally;
        match self.create(Creation::Fork, &|| be_victim(number, || tally.count(Count::Arms))) {
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
    stage: &Stage,
    tid: i32,
    ids: Ids,
) -> std::result::Result<(), (usize, sys::Result<i32>)> {
    for (level, &namespace) in stage.namespaces().iter().enumerate().take(ids.count) {
        let got = sys::pid_in(namespace, tid);
        if got.map(i64::from) != Ok(ids.id(level)) {
            return Err((level, got));
        }
    }
    Ok(())
}

/// What a child does that is to have `ids`, and, where it is to `look`, nothing armed: until it arms something, to exit with.
fn child_with(ids: Ids, look: bool) -> i32 {
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

/// Arms, forks and creates objects until it is killed, and ends by itself only where something is not as it must be.
fn be_victim(number: usize, armed: impl Fn()) -> i32 {
    let Ok(file) = NextId::open() else {
        return status::SYSTEM;
    };
    let first = process_ids_at(VICTIMS.start + number).next().unwrap_or_default();
    let index = OBJECTS_OF_VICTIMS.start + (number % OBJECTS_OF_VICTIMS.len()) as i32;
    for turn in 0_u16.. {
        let ids = Ids { first: first + i64::from(turn % 64), count: 1 };
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
            let kind = Ipc::ALL[usize::from(turn / 3 % 3)];
            let id = object_id(turn, index);
            match file.arm_few(Ids::one(id)).and_then(|()| kind.create()) {
                Ok(got) if got != id => return status::WRONG_ID,
                Ok(got) => drop(kind.remove(got)),
                Err(_) => {}
            }
        }
        if !matches!(file.state_of_few(), Ok(state) if state.is_none_or(|ids| ids.count == 1)) {
            return status::LOST;
        }
    }
    status::OK
}

/// What the program does that [`Worker::program`] executes. Returns its exit status.
pub fn after_exec(ids: Ids) -> i32 {
    let Ok(file) = NextId::open() else {
        return status::SYSTEM;
    };
    if file.state_of_few() != Ok(Some(ids)) {
        return status::LOST;
    }
    let pid = loop {
        match sys::create(Creation::Fork, &|| child_with(ids, true)) {
            Ok(pid) => break pid,
            // In the scene that is limited, or that is being killed.
            Err(Errno::EAGAIN | Errno::ENOMEM) if file.state_of_few() == Ok(Some(ids)) => {
                sys::sleep(100);
            }
            Err(_) => return status::SYSTEM,
        }
    };
    let status = sys::wait(pid).map_or(status::SYSTEM, |(_, status)| status);
    if i64::from(pid) != ids.first {
        return status::WRONG_ID;
    }
    if file.state_of_few() != Ok(None) {
        return status::LOST;
    }
    status
}
