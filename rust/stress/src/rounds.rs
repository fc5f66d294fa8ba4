// SPDX-License-Identifier: GPL-2.0

//! Rounds of all scenarios, and what must be as before after them.

use std::fs;

use anyhow::{Context, Result};
use clap::Args;
use nix::libc;

use crate::cgroup::Cgroup;
use crate::ktap::Ktap;
use crate::slab;
use crate::sys;
use crate::tally::{Count, Tally};
use crate::{ids, runner};

/// How many objects more there may be in a slab cache at the end. Leaks are of another size: a
/// round makes thousands of tasks and lists. Other processes of the guest, and the kernel's own
/// threads, come and go meanwhile.
const OBJECTS_MORE: i64 = 64;

/// What may still be charged to a memory cgroup when all of its processes are gone: each CPU
/// settles charges a batch of 64 pages at a time. Leaks are of another size here too.
const BYTES_LEFT: u64 = 512 << 10;

const PID_MAX: &str = "/proc/sys/kernel/pid_max";

#[derive(Args)]
pub struct Plan {
    /// How many rounds; the first shows what the others must leave behind
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(2..))]
    rounds: u64,
    /// How many lists to arm in each of them, at least
    #[arg(long, default_value_t = 5000)]
    arms: u64,
    /// The seed of the first round; that of each other is one more
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Plan {
    /// Returns whether all is well.
    pub fn run(&self) -> Result<bool> {
        // The kernel, which counts up, is not to come to the ids that are asked for.
        fs::write(PID_MAX, ids::PID_MAX.to_string())
            .with_context(|| format!("cannot write {PID_MAX}"))?;
        let program =
            sys::open(c"/proc/self/exe", libc::O_RDONLY).context("cannot open /proc/self/exe")?;
        let all = Cgroup::new("stress")?;
        let mut ktap = Ktap::new(usize::try_from(self.rounds)? + 3);
        let (mut arms, mut bytes_left) = (0, 0);
        let mut objects = None;
        for round in 1..=self.rounds {
            let seed = self.seed + round - 1;
            let tally = Tally::new()?;
            let group = all.child(&round.to_string(), &[])?;
            runner::run_all(tally, seed, self.arms, program, &group)?;
            println!("# round {round} of {}: seed {seed}: {tally}", self.rounds);
            let failures = tally.failures();
            let more = failures.checked_sub(tally.messages().count()).filter(|&more| more > 0);
            let more = more.map(|more| format!("and {more} more"));
            ktap.report(format_args!("round {round}"), tally.messages().chain(more));
            arms += tally.get(Count::Arms);
            bytes_left = bytes_left.max(group.slab_bytes()?);
            if slab::is_available() && objects.is_none() {
                objects = Some(slab::objects()?);
            }
        }
        println!("# {arms} arms");
        let wanted = self.rounds * self.arms;
        ktap.report("arms", (arms < wanted).then(|| format!("{arms}, not {wanted}")));
        println!("# at most {bytes_left} bytes charged after a round");
        ktap.report(
            "memory cgroup",
            (bytes_left > BYTES_LEFT).then(|| format!("not {BYTES_LEFT} at most")),
        );
        match objects {
            Some(before) => {
                let after = slab::objects()?;
                for (cache, more) in slab::grown(&before, &after, 0) {
                    println!("# {cache}: {more} more");
                }
                let grown = slab::grown(&before, &after, OBJECTS_MORE).into_iter();
                ktap.report(
                    "slab",
                    grown.map(|(cache, more)| {
                        format!("{cache}: {more} more, not {OBJECTS_MORE} at most")
                    }),
                );
            }
            None => ktap.skip("slab", "needs CONFIG_SLUB_DEBUG"),
        }
        Ok(ktap.passed())
    }
}
