// SPDX-License-Identifier: GPL-2.0

//! Who has to descend from whom, so that each process can come to its session and its parent.
//!
//! Three rules of the kernel decide it. A process is born into the session that its maker is in. It
//! leaves that at most once, for one that it leads. And when its parent ends, its new parent is the
//! nearest ancestor that is a subreaper, or else the first process. So
//!
//! - the parent that a process has at the end is one of those that it descends from;
//! - so is the leader of the session that it was born into;
//! - and whoever is in line between the two was born into that session as well.
//!
//! Each rule is a link: one process is above another. Where a parent can neither have been in the
//! session that its child was born into, nor be above the leader of that, the tree cannot be. What
//! the rules leave open is chosen. Then each process has the lowest of those that have to be above
//! it as its maker.

use std::collections::{BTreeSet, HashMap, HashSet};

/// A session, by the place of its leader: none for the one that the first process is born into.
pub type Session = Option<usize>;

/// A process of the tree.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The place of its parent; none for the first process.
    pub parent: Option<usize>,
    /// Its session.
    pub session: Session,
}

/// Who descends from whom: the processes of the tree, and then the leaders that have ended.
#[derive(Debug)]
pub struct Lineage {
    /// From whom each descends: from a child of that, where its parent is another.
    pub maker: Vec<Option<usize>>,
    /// The session that each is born into.
    pub birth: Vec<Session>,
    /// All of them, each after those that it descends from.
    pub order: Vec<usize>,
}

/// A process that no history can have led to.
#[derive(Debug)]
pub struct Impossible {
    pub place: usize,
}

type Result<T> = std::result::Result<T, Impossible>;

/// Finds a lineage of `members`, the first of which all descend from, and of the leaders of their
/// sessions, of which there are `leaders` in all, with those that have ended.
pub fn find(members: &[Member], leaders: usize) -> Result<Lineage> {
    let mut search = Search::new(members, leaders);
    search.link_members();
    search.propagate()?;
    loop {
        if let Some(lineage) = search.arrange()? {
            return Ok(lineage);
        }
    }
}

/// Links that follow from the rules.
struct Search<'a> {
    members: &'a [Member],
    /// The session that each is born into, as far as it is known.
    birth: Vec<Option<Session>>,
    /// Who is above each, and for the sake of which process.
    above: Vec<Vec<(usize, usize)>>,
    below: Vec<Vec<usize>>,
    links: HashSet<(usize, usize)>,
    /// Links that are not looked at yet.
    new: Vec<(usize, usize)>,
    /// Those of them that leave open whether the upper one was in the session that the lower one
    /// was born into, or is above its leader: both are good, where nothing forces it.
    open: BTreeSet<(usize, usize)>,
}

impl<'a> Search<'a> {
    fn new(members: &'a [Member], leaders: usize) -> Self {
        let count = members.len().max(leaders);
        Self {
            members,
            birth: vec![None; count],
            above: vec![Vec::new(); count],
            below: vec![Vec::new(); count],
            links: HashSet::new(),
            new: Vec::new(),
            open: BTreeSet::new(),
        }
    }

    /// Links each process to its parent, and to the leader of its session.
    fn link_members(&mut self) {
        for (place, member) in self.members.iter().enumerate() {
            if let Some(parent) = member.parent {
                self.link(parent, place, place);
                if member.session != Some(place) {
                    self.set_birth(place, member.session);
                }
            } else {
                self.set_birth(place, None);
            }
        }
        for ended in self.members.len()..self.birth.len() {
            self.link(0, ended, ended);
        }
    }

    /// Notes that `upper` is above `lower`, for the sake of `cause`.
    fn link(&mut self, upper: usize, lower: usize, cause: usize) -> bool {
        let is_new = self.links.insert((upper, lower));
        if is_new {
            self.above[lower].push((upper, cause));
            self.below[upper].push(lower);
            self.new.push((upper, lower));
        }
        is_new
    }

    /// Notes which session the process at `place` is born into.
    fn set_birth(&mut self, place: usize, session: Session) {
        self.birth[place] = Some(session);
        if let Some(leader) = session {
            self.link(leader, place, place);
        }
        // What it is linked to may follow now.
        self.new.extend(self.above[place].iter().map(|&(upper, _)| (upper, place)));
        self.new.extend(self.below[place].iter().map(|&lower| (place, lower)));
    }

    /// Follows all links to what they force, and chooses where they leave it open.
    fn propagate(&mut self) -> Result<()> {
        loop {
            while let Some((upper, lower)) = self.new.pop() {
                self.follow(upper, lower)?;
            }
            let forced = self.open.iter().copied().find(|&(upper, lower)| {
                self.birth[upper].is_some() || self.is_below_leader(upper, self.birth[lower])
            });
            if let Some((upper, lower)) = forced {
                self.open.remove(&(upper, lower));
                if self.birth[upper].is_none()
                    && let Some(session) = self.birth[lower]
                {
                    self.set_birth(upper, session);
                } else {
                    self.new.push((upper, lower));
                }
                continue;
            }
            let Some((upper, lower)) = self.open.pop_first() else { return Ok(()) };
            if let Some(Some(leader)) = self.birth[lower] {
                let cause = self.cause(upper, lower);
                self.link(upper, leader, cause);
            }
        }
    }

    fn cause(&self, upper: usize, lower: usize) -> usize {
        let cause = self.above[lower].iter().find(|(it, _)| *it == upper);
        cause.map_or(lower, |&(_, cause)| cause)
    }

    /// Applies the third rule to a link.
    fn follow(&mut self, upper: usize, lower: usize) -> Result<()> {
        let Some(session) = self.birth[lower] else { return Ok(()) };
        if session == Some(upper) || self.birth[upper] == Some(session) {
            return Ok(());
        }
        let cause = self.cause(upper, lower);
        match (self.birth[upper], session) {
            (Some(_), None) => Err(Impossible { place: cause }),
            (Some(_), Some(leader)) => {
                self.link(upper, leader, cause);
                Ok(())
            }
            (None, _) => {
                let is_above = session.is_some_and(|leader| self.is_above(upper, leader));
                if !is_above {
                    self.open.insert((upper, lower));
                }
                Ok(())
            }
        }
    }

    /// Whether the leader of `session` is above `place` for certain.
    fn is_below_leader(&self, place: usize, session: Option<Session>) -> bool {
        match session {
            Some(Some(leader)) => self.is_above(leader, place),
            Some(None) => true,
            None => false,
        }
    }

    /// Whether links lead from `upper` down to `lower`.
    fn is_above(&self, upper: usize, lower: usize) -> bool {
        let mut seen = HashSet::from([lower]);
        let mut stack = vec![lower];
        while let Some(place) = stack.pop() {
            if place == upper {
                return true;
            }
            stack.extend(self.above[place].iter().map(|&(it, _)| it).filter(|&it| seen.insert(it)));
        }
        false
    }

    /// Chooses where each is born whose session at birth is still open, and then its maker. Where
    /// links are missing for that, adds them, and returns nothing.
    fn arrange(&mut self) -> Result<Option<Lineage>> {
        let order = self.order()?;
        let rank: HashMap<usize, usize> =
            order.iter().enumerate().map(|(rank, &place)| (place, rank)).collect();
        let mut birth: Vec<Session> = vec![None; self.birth.len()];
        let mut maker: Vec<Option<usize>> = vec![None; self.birth.len()];
        let mut depth: Vec<usize> = vec![0; self.birth.len()];
        for &place in &order {
            let above: Vec<(usize, usize)> = self.above[place].clone();
            let tree = Sessions { birth: &birth, depth: &depth };
            let deepest = || {
                let births = above.iter().map(|&(upper, _)| birth[upper]);
                births.max_by_key(|&it| tree.depth(it)).flatten()
            };
            let session = self.birth[place].unwrap_or_else(deepest);
            let mut line = Vec::new();
            for &(upper, cause) in &above {
                if session == Some(upper) || birth[upper] == session {
                    line.push(upper);
                    continue;
                }
                if tree.is_above(birth[upper], session) {
                    // It was in the session as well, or it is above that.
                    if self.place_above(upper, session, cause)? {
                        self.propagate()?;
                        return Ok(None);
                    }
                    continue;
                }
                let Some(leader) = session else { return Err(Impossible { place: cause }) };
                // Two sessions side by side: one has to be below whoever is in the other.
                let other = birth[upper];
                let inner = above.iter().map(|&(it, _)| it).find(|&it| birth[it] == session);
                let is_linked = self.nest_session(upper, leader, cause)
                    || inner
                        .zip(other)
                        .is_some_and(|(it, other)| self.nest_session(it, other, cause));
                if !is_linked {
                    return Err(Impossible { place: cause });
                }
                self.propagate()?;
                return Ok(None);
            }
            birth[place] = session;
            depth[place] = session.map_or(0, |leader| depth[leader] + 1);
            line.sort_unstable_by_key(|upper| rank[upper]);
            maker[place] = line.last().copied();
            if self.link_line(&line, &maker, &rank, place) {
                self.propagate()?;
                return Ok(None);
            }
        }
        Ok(Some(Lineage { maker, birth, order }))
    }

    /// Sees to it that `upper` was born into `session`, where its leader is above it, or else is
    /// above its leader. Returns whether that is new.
    fn place_above(&mut self, upper: usize, session: Session, cause: usize) -> Result<bool> {
        let leader = session.filter(|&leader| !self.is_above(leader, upper));
        match (leader, self.birth[upper]) {
            (Some(leader), _) => Ok(self.link(upper, leader, cause)),
            (None, None) => {
                self.set_birth(upper, session);
                Ok(true)
            }
            (None, Some(_)) => Err(Impossible { place: cause }),
        }
    }

    /// Links those in `line`, so that each descends from the one before. Returns whether it is to
    /// be arranged anew.
    fn link_line(
        &mut self,
        line: &[usize],
        maker: &[Option<usize>],
        rank: &HashMap<usize, usize>,
        cause: usize,
    ) -> bool {
        let mut is_new = false;
        for pair in line.windows(2) {
            let (upper, lower) = (pair[0], pair[1]);
            let mut place = Some(lower);
            while place.is_some_and(|it| rank[&it] > rank[&upper]) {
                place = maker[place.expect("it is one")];
            }
            if place != Some(upper) {
                is_new |= self.link(upper, lower, cause);
            }
        }
        is_new
    }

    /// Puts the session of `leader` below `upper`, if nothing that is known is against it.
    fn nest_session(&mut self, upper: usize, leader: usize, cause: usize) -> bool {
        let mut session = Some(leader);
        while let Some(leader) = session {
            if self.is_above(leader, upper) {
                return false;
            }
            match self.birth[leader] {
                Some(birth) if self.birth[upper] == Some(birth) || birth == Some(upper) => break,
                Some(None) => return false,
                Some(birth) => session = birth,
                None => break,
            }
        }
        self.link(upper, leader, cause)
    }

    /// All of them, each after those above it.
    fn order(&self) -> Result<Vec<usize>> {
        let mut missing: Vec<usize> = self.above.iter().map(Vec::len).collect();
        let mut ready: BTreeSet<usize> =
            (0..missing.len()).filter(|&place| missing[place] == 0).collect();
        let mut order = Vec::new();
        while let Some(place) = ready.pop_first() {
            order.push(place);
            for &lower in &self.below[place] {
                missing[lower] -= 1;
                if missing[lower] == 0 {
                    ready.insert(lower);
                }
            }
        }
        match (0..missing.len()).find(|&place| missing[place] > 0) {
            Some(place) => {
                // One that is above itself, and not only below such.
                let culprit = (place..missing.len())
                    .find(|&it| self.below[it].iter().any(|&lower| self.is_above(lower, it)));
                let culprit = culprit.unwrap_or(place);
                let cause = self.above[culprit].iter().find(|&&(it, _)| self.is_above(culprit, it));
                Err(Impossible { place: cause.map_or(culprit, |&(_, cause)| cause) })
            }
            None => Ok(order),
        }
    }
}

/// The sessions that are known while they are arranged.
struct Sessions<'a> {
    birth: &'a [Session],
    depth: &'a [usize],
}

impl Sessions<'_> {
    /// How many sessions are above one.
    fn depth(&self, session: Session) -> usize {
        session.map_or(0, |leader| self.depth[leader] + 1)
    }

    /// Whether `lower` is `upper`, or was made by one that was in it, and so on.
    fn is_above(&self, upper: Session, lower: Session) -> bool {
        let mut session = lower;
        while self.depth(session) > self.depth(upper) {
            session = session.and_then(|leader| self.birth[leader]);
        }
        session == upper
    }
}
