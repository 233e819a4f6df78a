//! How long to wait for an API server that does not answer.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// Waiting times that double, each cut by chance to between half and all of it, so that the nodes of a cluster do not come back
/// all at once.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: FIRST }
    }

    /// After a success.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }

    /// How long to wait now.
    pub(super) fn next(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(LONGEST);
        delay / 2 + up_to(delay / 2)
    }
}

/// Anything from nothing to `limit`, by chance.
pub(super) fn up_to(limit: Duration) -> Duration {
    limit.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new();
        for exponent in 0..20 {
            let full = (FIRST * 2u32.pow(exponent.min(10))).min(LONGEST);
            let delay = backoff.next();
            assert!(delay >= full / 2 && delay <= full, "{delay:?} of {full:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
