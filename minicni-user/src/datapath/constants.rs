use std::time::Duration;

/// How often, at most, a promoted direction sends a packet through the stack.
const REFRESH: Duration = Duration::from_secs(5);
/// How long, at most, a direction may stay away from the stack before it starts anew.
const IDLE: Duration = Duration::from_secs(20);
/// How long the stack may hold a packet (an nfqueue policy agent decides in user space).
const GRACE: Duration = Duration::from_secs(1);
/// Proofs that each direction of a flow needs before it is promoted.
const PROOFS: u64 = 8;
/// Packets of a tuple, both directions together, before a flow begins with it: more than a TCP connection of one request and
/// one answer has beside SYN and FIN, because to make room for a flow costs as much as ten packets that are not noted.
const SKIPPED: u32 = 8;

/// The load-time constants of the programs. Times are in jiffies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Constants {
    /// Proofs that each direction needs before its flow is promoted.
    pub proofs: u64,
    /// Packets of a tuple that are only counted, before a flow begins with the next one. At most 15.
    pub skipped: u32,
    /// A promoted direction sends one packet through the stack this often.
    pub refresh: u64,
    /// A direction that did not cross the stack for so long starts from nothing. At most [`MAX_IDLE`](minicni_common::names::constants::MAX_IDLE).
    pub idle: u64,
    /// How long the stack may hold a packet before it counts as gone.
    pub grace: u64,
    /// Whether TCP may be promoted: only where conntrack accepts a FIN after data that it did not see.
    pub tcp: bool,
}

impl Constants {
    /// The constants for a host whose clock ticks every `tick` and whose conntrack forgets an unanswered UDP flow
    /// after `udp_timeout`, the shortest of its timeouts that a promoted flow may have.
    ///
    /// A direction refreshes its conntrack entry every quarter of the idle limit, which stays below the timeout, so
    /// the entry of a promoted flow never expires, and with it never the uniqueness of the tuple that it guards.
    pub fn new(tick: Duration, udp_timeout: Duration, tcp: bool) -> Self {
        let idle = IDLE.min(udp_timeout.mul_f32(2.0 / 3.0));
        let refresh = REFRESH.min(idle / 4);
        let jiffies =
            |time: Duration| u64::try_from(time.as_nanos() / tick.as_nanos().max(1)).unwrap_or(u64::MAX).max(1);
        Self {
            proofs: PROOFS,
            skipped: SKIPPED,
            refresh: jiffies(refresh),
            idle: jiffies(idle),
            grace: jiffies(GRACE.min(refresh)),
            tcp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(4);

    #[test]
    fn with_the_kernels_default_a_direction_refreshes_every_five_seconds() {
        let constants = Constants::new(TICK, Duration::from_secs(30), true);
        assert_eq!((constants.refresh, constants.idle, constants.grace), (1_250, 5_000, 250));
    }

    #[test]
    fn a_shorter_conntrack_timeout_shortens_the_idle_limit_below_it() {
        let constants = Constants::new(TICK, Duration::from_secs(6), true);
        assert!(constants.idle < 6_000 / 4 && constants.refresh * 4 <= constants.idle);
        assert!(constants.grace <= constants.refresh);
    }

    #[test]
    fn no_constant_is_ever_zero() {
        let constants = Constants::new(Duration::from_millis(10), Duration::ZERO, false);
        assert!(constants.refresh > 0 && constants.idle > 0 && constants.grace > 0 && constants.proofs > 0);
    }
}
