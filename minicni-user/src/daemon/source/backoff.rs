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

    const DAEMONS: usize = 5_000;

    /// How many of some times are in the fullest second.
    fn fullest_second(mut times: Vec<Duration>) -> usize {
        times.sort_unstable();
        let until = |end| times.partition_point(|time| *time < end);
        let counts = times.iter().enumerate().map(|(index, time)| until(*time + Duration::from_secs(1)) - index);
        counts.max().unwrap_or_default()
    }

    #[test]
    fn of_all_daemons_that_come_back_after_a_minute_no_second_has_more_than_a_tenth() {
        let away = Duration::from_mins(1);
        let back = |_| {
            let (mut backoff, mut now) = (Backoff::new(), Duration::ZERO);
            while now < away {
                now += backoff.next();
            }
            now
        };
        let times: Vec<_> = (0..DAEMONS).map(back).collect();
        assert!(times.iter().all(|time| *time < away + LONGEST));
        let fullest = fullest_second(times);
        assert!(fullest < DAEMONS / 10, "{fullest}");
    }

    #[test]
    fn of_all_daemons_that_list_anew_within_ten_seconds_no_second_has_more_than_an_eighth() {
        let fullest = fullest_second((0..DAEMONS).map(|_| up_to(Duration::from_secs(10))).collect());
        assert!(fullest < DAEMONS / 8, "{fullest}");
    }
}
