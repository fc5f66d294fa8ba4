// SPDX-License-Identifier: GPL-2.0

//! Runs cases side by side.

use std::io::{IsTerminal, Write, stderr};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::clock::Clock;
use crate::data::{Contention, Measurement, Restores, Unit};
use crate::keys::{Case, Group};

/// How many operations make a batch. Every other task costs a thousand instructions more than the
/// one before, and a median of single ones would be of either. Not more objects exist at once.
const BATCHES: RangeInclusive<usize> = 4..=1024;

/// The same for objects that all exist at once: every so many of them, memory for more is set up.
const CREATIONS: RangeInclusive<usize> = 64..=1024;

/// The most rounds of operations on many ids: each of them is a mean already.
const ROUNDS_OF_MANY: usize = 25;

/// How much is to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How many rounds.
    pub rounds: usize,
    /// Up to how many objects and ids.
    pub objects: u64,
    /// Up to how many processes.
    pub processes: u64,
    /// How many restores of a tree.
    pub restores: usize,
    /// How many threads, processes and objects a dump has.
    pub dumped: u64,
    /// How many rounds of restores of a dump.
    pub dump_rounds: usize,
}

impl Effort {
    /// Enough to see that all of it works.
    pub const SHORT: Self =
        Self { rounds: 5, objects: 100, processes: 100, restores: 3, dumped: 10, dump_rounds: 1 };
    /// What the report is made of.
    pub const LONG: Self = Self {
        rounds: 201,
        objects: 100_000,
        processes: 20_000,
        restores: 200,
        dumped: 1_000,
        dump_rounds: 3,
    };
}

/// One competitor: something that can be done and timed.
pub struct Competitor<'a> {
    case: Case,
    /// How many operations a batch may have.
    batches: RangeInclusive<usize>,
    /// Whether it was done before.
    is_warm: bool,
    /// Does it so many times, and returns how long that took.
    batch: Box<dyn FnMut(Clock, usize) -> Result<u64> + 'a>,
}

impl<'a> Competitor<'a> {
    /// Something that leaves nothing behind. All of it is timed.
    pub fn new(case: Case, mut operation: impl FnMut() -> Result<()> + 'a) -> Self {
        let batch = move |clock: Clock, count| {
            let start = clock.now();
            for _ in 0..count {
                operation()?;
            }
            Ok(clock.now() - start)
        };
        Self { case, batches: BATCHES, is_warm: false, batch: Box::new(batch) }
    }

    /// Something that creates an object; it is told how many of the batch there are already. To
    /// `remove` the objects is not timed.
    pub fn creation<T>(
        case: Case,
        mut create: impl FnMut(usize) -> Result<T> + 'a,
        mut remove: impl FnMut(T) -> Result<()> + 'a,
    ) -> Self {
        let batch = move |clock: Clock, count| {
            let mut objects = Vec::with_capacity(count);
            let start = clock.now();
            for i in 0..count {
                objects.push(create(i)?);
            }
            let taken = clock.now() - start;
            objects.into_iter().try_for_each(&mut remove)?;
            Ok(taken)
        };
        Self { case, batches: CREATIONS, is_warm: false, batch: Box::new(batch) }
    }

    /// Something that is done to an object, which to `prepare` and to `remove` is not timed.
    pub fn on<T>(
        case: Case,
        mut prepare: impl FnMut() -> Result<T> + 'a,
        mut operation: impl FnMut(&T) -> Result<()> + 'a,
        mut remove: impl FnMut(T) -> Result<()> + 'a,
    ) -> Self {
        let batch = move |clock: Clock, count| {
            let mut taken = 0;
            for _ in 0..count {
                let object = prepare()?;
                let start = clock.now();
                operation(&object)?;
                taken += clock.now() - start;
                remove(object)?;
            }
            Ok(taken)
        };
        Self { case, batches: BATCHES, is_warm: false, batch: Box::new(batch) }
    }

    /// The same, one operation a batch.
    pub fn singly(self) -> Self {
        Self { batches: 1..=1, ..self }
    }

    /// The same, where one operation takes long, and has been done before.
    pub fn singly_when_warm(self) -> Self {
        Self { is_warm: true, ..self.singly() }
    }

    fn run(&mut self, clock: Clock, count: usize) -> Result<u64> {
        (self.batch)(clock, count).context(self.case)
    }

    /// How many operations make a batch. It warms the caches up as well.
    fn calibrate(&mut self, clock: Clock) -> Result<usize> {
        let mut count = 1;
        if self.is_warm {
            return Ok(count);
        }
        loop {
            let taken = self.run(clock, count)?;
            let long_enough = taken >= clock.batch() && self.batches.contains(&count);
            if long_enough || count == *self.batches.end() {
                return Ok(count);
            }
            count *= 2;
        }
    }
}

/// All that is measured in one boot.
pub struct Session {
    /// The clock.
    pub clock: Clock,
    /// How much is to be measured.
    pub effort: Effort,
    /// What was measured so far.
    pub measurements: Vec<Measurement>,
    /// What was counted so far.
    pub contention: Vec<Contention>,
    /// How restores went so far.
    pub restores: Vec<Restores>,
    shown: Instant,
}

impl Session {
    /// Begins to measure.
    pub fn new(clock: Clock, effort: Effort) -> Self {
        Self {
            clock,
            effort,
            measurements: Vec::new(),
            contention: Vec::new(),
            restores: Vec::new(),
            shown: Instant::now(),
        }
    }

    /// Measures `competitors` in turn, round by round, so that other work of the machine slows all
    /// of them down. Each round begins with another one, so that work which the machine does at
    /// regular intervals does not always fall on the same.
    pub fn compare(
        &mut self,
        group: Group,
        size: Option<u64>,
        competitors: Vec<Competitor<'_>>,
    ) -> Result<()> {
        self.compare_in(self.effort.rounds, group, size, competitors)
    }

    /// The same, in so many rounds.
    pub fn compare_in(
        &mut self,
        rounds: usize,
        group: Group,
        size: Option<u64>,
        mut competitors: Vec<Competitor<'_>>,
    ) -> Result<()> {
        let clock = self.clock;
        let counts =
            competitors.iter_mut().map(|it| it.calibrate(clock)).collect::<Result<Vec<_>>>();
        let counts = counts.context(group)?;
        let mut values = vec![Vec::with_capacity(rounds); competitors.len()];
        for round in 0..rounds {
            self.progress(&group.to_string(), round, rounds);
            for turn in 0..competitors.len() {
                let place = (round + turn) % competitors.len();
                let taken = competitors[place].run(clock, counts[place]).context(group)?;
                values[place].push(per_operation(taken, counts[place]));
            }
        }
        for (competitor, values) in competitors.iter().zip(values) {
            self.record(group, competitor.case, size, values);
        }
        Ok(())
    }

    /// The same where one operation is on `size` ids. What is kept is the share of one of them.
    pub fn compare_each(
        &mut self,
        group: Group,
        size: usize,
        competitors: Vec<Competitor<'_>>,
    ) -> Result<()> {
        let measured = self.measurements.len();
        let rounds = self.effort.rounds.min(ROUNDS_OF_MANY);
        self.compare_in(rounds, group, Some(size as u64), competitors)?;
        for measurement in &mut self.measurements[measured..] {
            measurement.rounds.iter_mut().for_each(|round| *round /= per_operation(size as u64, 1));
        }
        Ok(())
    }

    /// Keeps what was measured.
    pub fn record(&mut self, group: Group, case: Case, size: Option<u64>, rounds: Vec<f64>) {
        self.record_in(self.clock.unit(), group, case, size, rounds);
    }

    /// Keeps what was measured in another unit than the clock's.
    ///
    /// # Panics
    ///
    /// Where the group does not have this case: the report would not find it.
    pub fn record_in(
        &mut self,
        unit: Unit,
        group: Group,
        case: Case,
        size: Option<u64>,
        rounds: Vec<f64>,
    ) {
        assert!(group.cases().contains(&case), "keys.rs says that {group} has no case {case}");
        self.measurements.push(Measurement { group, case, size, unit, rounds });
    }

    /// Shows how far it is: on a terminal in place, elsewhere a line now and then.
    pub fn progress(&mut self, what: &str, done: usize, of: usize) {
        let (every, start, end) = if stderr().is_terminal() {
            (Duration::from_millis(100), "\r\x1b[K", "")
        } else {
            (Duration::from_secs(10), "", "\n")
        };
        if self.shown.elapsed() >= every {
            self.shown = Instant::now();
            let percent = 100 * done / of;
            // Nobody may be listening.
            let _ = write!(stderr(), "{start}  {what}: {percent} %{end}");
        }
    }
}

/// What one of `count` operations took that took `ticks` together.
#[expect(clippy::cast_precision_loss, reason = "a batch takes less than 2^52 ticks")]
pub fn per_operation(ticks: u64, count: usize) -> f64 {
    ticks as f64 / count as f64
}
