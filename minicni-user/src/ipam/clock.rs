//! The clock of leases and cooldowns.

use nix::time::{ClockId, clock_gettime};

/// Where a store takes its seconds from.
pub(super) type Clock = fn() -> u64;

/// Seconds since boot, time asleep included (`CLOCK_BOOTTIME`): the clock of every `since` in this module. Nobody can
/// set it, so a jump of the wall clock neither ends nor prolongs a cooldown.
pub fn boottime() -> u64 {
    // Every kernel since 2.6.39 has this clock. Were it missing, 0 makes released addresses cool until they are the
    // only ones left, which is safe.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| u64::try_from(time.tv_sec()).unwrap_or(0))
}
