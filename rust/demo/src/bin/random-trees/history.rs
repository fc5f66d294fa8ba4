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

/// What is known of a process before the history is carried out.
#[derive(Clone, Copy)]
struct Known {
    /// It is in the session of whoever made the namespace.
    is_in_outer_session: bool,
    /// It has led a group, so that it may not be able to make a session.
    has_led: bool,
}

/// The history of a tree.
pub struct History {
    /// Who does what.
    pub steps: Vec<(usize, Action)>,
    /// Who is there at the end.
    pub living: Vec<usize>,
    /// Who of them is stopped.
    pub stopped: Vec<usize>,
    /// All processes that there have been.
    known: Vec<Known>,
}

impl History {
    /// That of a seed, at the end of which there are so many processes, without zombies.
    pub fn new(seed: u64, sizes: RangeInclusive<usize>) -> Self {
        let mut random = Rng::with_seed(seed);
        let size = random.usize(sizes);
        let first = Known { is_in_outer_session: true, has_led: false };
        let mut history =
            Self { steps: Vec::new(), living: vec![0], stopped: Vec::new(), known: vec![first] };
        // Most trees begin with a session, as containers do.
        let setsid_at = if random.u8(..4) > 0 { 1 } else { random.usize(1..=size / 2) };
        while history.living.len() < size {
            if history.known[0].is_in_outer_session && history.known.len() >= setsid_at {
                history.leave_outer_session(&mut random);
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
        self.known.len()
    }

    /// Makes all leave it, or end: CRIU dumps no process there, but for zombies.
    fn leave_outer_session(&mut self, random: &mut Rng) {
        self.push(0, Action::Setsid);
        for place in self.living.clone() {
            let Known { is_in_outer_session, has_led } = self.known[place];
            if is_in_outer_session && (has_led || random.u8(..3) == 0) {
                self.push(place, Action::Exit { status: 0 });
            } else if is_in_outer_session {
                self.push(place, Action::Setsid);
            }
        }
    }

    fn push(&mut self, place: usize, action: Action) {
        let known = &mut self.known[place];
        match action {
            Action::Fork { child } => {
                let child_known = Known { has_led: false, ..*known };
                self.living.push(child);
                self.known.push(child_known);
            }
            Action::LeadGroup => known.has_led = true,
            Action::Setsid if !known.has_led => known.is_in_outer_session = false,
            Action::Exit { .. } | Action::Die { .. } => self.living.retain(|&it| it != place),
            _ => {}
        }
        self.steps.push((place, action));
    }

    /// Draws what a process does next.
    fn draw(&self, random: &mut Rng, place: usize) -> Action {
        let is_first = place == 0;
        match random.u8(..100) {
            ..36 => Action::Fork { child: self.known.len() },
            // The first process has a session when the others may make one.
            36..44 if !is_first => Action::Setsid,
            44..52 if !is_first => Action::LeadGroup,
            52..66 if !is_first => {
                Action::JoinGroup { of: self.living[random.usize(..self.living.len())] }
            }
            66..73 => Action::Subreaper { on: random.u8(..4) > 0 },
            73..78 => Action::Thread,
            78..82 => Action::LastPid { pid: random.i32(2..5000) },
            90..95 if !is_first => Action::Exit { status: random.u8(..).into() },
            95.. if !is_first => {
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
