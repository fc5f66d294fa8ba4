// SPDX-License-Identifier: GPL-2.0

//! Random histories of a tree: what each of its processes does, in order. The same seed gives the
//! same history.

use std::fmt::Write;
use std::ops::RangeInclusive;

use fastrand::Rng;
use nix::libc;
use serde::{Deserialize, Serialize};

/// What a process does. Others are told by their place in the order of birth: the first is 0.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Action {
    /// It forks.
    Fork { child: usize },
    /// It makes a session, if it may.
    Setsid,
    /// It makes a group.
    LeadGroup,
    /// It joins the group of another, if it may.
    JoinGroup { of: usize },
    /// It adopts the orphans below it from now on, or does not any more.
    Subreaper { on: bool },
    /// It creates a thread.
    Thread,
    /// It lets the kernel choose ids above this one.
    LastPid { pid: i32 },
    /// It waits for a child that has ended, if there is one.
    Reap,
    /// It ends with a status.
    Exit { status: i32 },
    /// It ends by a signal, and writes a core if it may.
    Die { signal: i32, core: bool },
}

impl Action {
    /// Whether the process does not live on.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Exit { .. } | Self::Die { .. })
    }
}

/// The history of a tree.
pub struct History {
    /// Who does what.
    pub steps: Vec<(usize, Action)>,
    /// Who is there at the end.
    pub living: Vec<usize>,
    /// Who of them is stopped.
    pub stopped: Vec<usize>,
    /// Who there has been, and whether that process is in the session of whoever made the
    /// namespace.
    is_outside: Vec<bool>,
}

impl History {
    /// That of a seed, at the end of which there are so many processes, without zombies.
    pub fn new(seed: u64, sizes: RangeInclusive<usize>) -> Self {
        let mut random = Rng::with_seed(seed);
        let size = random.usize(sizes);
        let mut history = Self {
            steps: Vec::new(),
            living: vec![0],
            stopped: Vec::new(),
            is_outside: vec![true],
        };
        // Most trees begin with a session, as containers do.
        let setsid_at = if random.u8(..4) > 0 { 1 } else { random.usize(1..=size / 2) };
        while history.living.len() < size {
            if history.is_outside[0] && history.places() >= setsid_at {
                history.leave_outer_session();
            }
            let place = history.living[random.usize(..history.living.len())];
            let action = history.draw(&mut random, place);
            history.push(place, action);
        }
        history.stopped = history.living.iter().copied().filter(|_| random.u8(..20) == 0).collect();
        history.stopped.retain(|&place| place != 0);
        history
    }

    /// How many processes there have been.
    pub fn places(&self) -> usize {
        self.is_outside.len()
    }

    /// Makes all leave it: CRIU dumps no process there.
    fn leave_outer_session(&mut self) {
        for place in self.living.clone() {
            if self.is_outside[place] {
                self.push(place, Action::Setsid);
            }
        }
    }

    fn push(&mut self, place: usize, action: Action) {
        match action {
            Action::Fork { child } => {
                self.living.push(child);
                self.is_outside.push(self.is_outside[place]);
            }
            Action::Setsid => self.is_outside[place] = false,
            Action::Exit { .. } | Action::Die { .. } => self.living.retain(|&it| it != place),
            _ => {}
        }
        self.steps.push((place, action));
    }

    /// Draws what a process does next. Who is outside neither leads a group nor ends, so that it
    /// can make a session later.
    fn draw(&self, random: &mut Rng, place: usize) -> Action {
        let (is_first, is_inside) = (place == 0, !self.is_outside[place]);
        match random.u8(..100) {
            ..36 => Action::Fork { child: self.places() },
            // The first process does when all do who are outside.
            36..44 if !is_first => Action::Setsid,
            44..52 if is_inside && !is_first => Action::LeadGroup,
            52..66 if is_inside && !is_first => {
                Action::JoinGroup { of: self.living[random.usize(..self.living.len())] }
            }
            66..73 => Action::Subreaper { on: random.u8(..4) > 0 },
            73..78 => Action::Thread,
            78..82 => Action::LastPid { pid: random.i32(2..5000) },
            90..95 if is_inside && !is_first => Action::Exit { status: random.u8(..).into() },
            95.. if is_inside && !is_first => {
                let signals = [libc::SIGKILL, libc::SIGTERM, libc::SIGABRT, libc::SIGSEGV, 34, 64];
                let signal = signals[random.usize(..signals.len())];
                Action::Die { signal, core: random.bool() }
            }
            _ => Action::Reap,
        }
    }

    /// As a text, a line a step.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (place, action) in &self.steps {
            // A string takes all that is written.
            let _ = writeln!(text, "  {place}: {action:?}");
        }
        let _ = write!(text, "  stopped at the end: {:?}", self.stopped);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::History;

    #[test]
    fn a_seed_gives_one_history() {
        let text = |seed| History::new(seed, 10..=120).text();
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
    }

    #[test]
    fn it_has_as_many_processes_as_asked_for() {
        for seed in 0..100 {
            let history = History::new(seed, 10..=120);
            assert!((10..=120).contains(&history.living.len()));
            assert!(history.stopped.iter().all(|place| history.living.contains(place)));
        }
    }
}
