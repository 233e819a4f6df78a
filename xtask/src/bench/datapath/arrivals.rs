//! What arrives in parts of the time, by a clock that all receivers share.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::bench::statistics::Summary;

/// Parts of the time, of which the middle one counts: what holds single ones up is not what is measured.
pub(super) const PARTS: u32 = 9;

/// Bytes that arrived in each part of the time.
pub(super) struct Arrivals {
    start: Instant,
    part: Duration,
    bytes: [AtomicU64; PARTS as usize],
}

impl Arrivals {
    /// Nothing yet, of a time that begins at `start`.
    pub(super) fn new(start: Instant, time: Duration) -> Self {
        Self { start, part: time / PARTS, bytes: [const { AtomicU64::new(0) }; PARTS as usize] }
    }

    /// Whether the time is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.start + self.part * PARTS
    }

    /// Counts bytes that arrive now, unless the time has not begun or is over.
    pub(super) fn add(&self, now: Instant, bytes: usize) {
        let Some(elapsed) = now.checked_duration_since(self.start) else { return };
        let part = elapsed.as_nanos() / self.part.as_nanos().max(1);
        if let Some(sum) = usize::try_from(part).ok().and_then(|part| self.bytes.get(part)) {
            sum.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Bits in a second, in the middle one of the parts.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 bytes")]
    pub(super) fn rate(&self) -> f64 {
        let seconds = self.part.as_secs_f64();
        let rates: Vec<_> = self.bytes.iter().map(|sum| 8.0 * sum.load(Ordering::Relaxed) as f64 / seconds).collect();
        Summary::of(&rates).median
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_most_of_the_time_whoever_is_held_up_in_the_rest() {
        let early = Instant::now();
        let start = early + Duration::from_secs(1);
        let arrivals = Arrivals::new(start, Duration::from_millis(90));
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        arrivals.add(early, 1_000_000);
        for part in 0..9 {
            // Nothing in two of them, all that was kept back in the third.
            let packets = [1, 1, 0, 0, 3, 1, 1, 1, 1][part];
            for _ in 0..packets {
                arrivals.add(at(part as u64 * 10 + 5), 1000);
            }
        }
        arrivals.add(at(90), 1_000_000);
        assert!((arrivals.rate() - 8_000.0 / 0.010).abs() < 1.0, "{}", arrivals.rate());
        assert!(!arrivals.is_over(at(89)) && arrivals.is_over(at(90)));
    }
}
