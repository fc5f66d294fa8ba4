// SPDX-License-Identifier: GPL-2.0

//! Time, in nanoseconds or in instructions.

use std::arch::asm;
use std::arch::x86_64::_rdtsc;

use anyhow::{Result, ensure};
use nix::time::{ClockId, clock_gettime};

use crate::data::Unit;

/// A clock of the guest.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// `CLOCK_MONOTONIC_RAW`.
    Raw,
    /// The time stamp counter, where it counts instructions: in an emulator with `-icount shift=0`.
    Instructions,
}

impl Clock {
    /// The instruction counter, if this machine has one.
    pub fn instructions() -> Result<Self> {
        const TURNS: u64 = 10_000;

        let ticks = || {
            let start = Self::Instructions.now();
            // SAFETY: It counts a register down to zero.
            unsafe {
                asm!("2:", "dec {0}", "jnz 2b", inout(reg) TURNS => _, options(nomem, nostack));
            }
            Self::Instructions.now() - start
        };
        // Five together are short beside the time between two timer interrupts: one of them is hit
        // at most.
        let counted = (0..5).map(|_| ticks()).min().unwrap_or_default();
        ensure!(
            (2 * TURNS..2 * TURNS + 100).contains(&counted),
            "a loop of {} instructions took {counted} ticks of the time stamp counter: boot with \
             `qemu/guest --icount`",
            2 * TURNS
        );
        Ok(Self::Instructions)
    }

    /// What it counts.
    pub fn unit(self) -> Unit {
        match self {
            Self::Raw => Unit::Nanoseconds,
            Self::Instructions => Unit::Instructions,
        }
    }

    /// The time now.
    pub fn now(self) -> u64 {
        match self {
            Self::Raw => {
                let now = clock_gettime(ClockId::CLOCK_MONOTONIC_RAW)
                    .expect("Linux has CLOCK_MONOTONIC_RAW since 2.6.28");
                now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs()
            }
            // SAFETY: Every x86-64 processor has a time stamp counter.
            Self::Instructions => unsafe { _rdtsc() },
        }
    }

    /// How long a batch should take: long beside reading the clock, short beside the time between
    /// two timer interrupts, so that the median is of batches that none of them hit.
    pub fn batch(self) -> u64 {
        match self {
            Self::Raw => 200_000,
            Self::Instructions => 20_000,
        }
    }
}
