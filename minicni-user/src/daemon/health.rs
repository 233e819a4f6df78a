//! Whether the daemon lives, and whether ADD can be served.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use prometheus_client::metrics::gauge::Gauge;

/// How long the main loop may be silent: it comes round every 30 s without a reason.
const SILENCE: Duration = Duration::from_secs(90);

/// What the main loop tells of itself. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Health {
    started: Instant,
    /// When the main loop last came round, in milliseconds since the start.
    beat: Arc<AtomicU64>,
    ready: Gauge<i64, AtomicI64>,
}

impl Health {
    /// Of a daemon that starts now, and is not ready.
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), beat: Arc::default(), ready: Gauge::default() }
    }

    /// The main loop came round.
    pub(super) fn beat(&self) {
        self.beat.store(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// ADD can be served, from now on, also when nothing can be found out any more.
    pub(super) fn ready(&self) {
        self.ready.set(1);
    }

    /// 1 or 0.
    pub(super) fn ready_gauge(&self) -> Gauge<i64, AtomicI64> {
        self.ready.clone()
    }

    /// Why `/healthz` fails, if it does.
    pub(super) fn ailment(&self, now: Instant) -> Option<String> {
        let silent = now.duration_since(self.started + Duration::from_millis(self.beat.load(Relaxed)));
        (silent > SILENCE).then(|| format!("the main loop did not come round for {} s", silent.as_secs()))
    }

    /// Why `/readyz` fails, if it does.
    pub(super) fn unreadiness(&self) -> Option<String> {
        (self.ready.get() == 0).then(|| "node.json is not written: `minicnid status` and the log say why".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_main_loop_that_is_silent_for_longer_than_90_s_is_ill_until_it_comes_round() {
        let health = Health::new();
        let at = |seconds| health.started + Duration::from_secs(seconds);
        assert_eq!(health.ailment(at(89)), None, "it may still be starting");
        assert_eq!(health.ailment(at(91)).unwrap(), "the main loop did not come round for 91 s");
        health.beat.store(60_000, Relaxed);
        assert_eq!(health.ailment(at(149)), None);
        assert!(health.ailment(at(151)).is_some());
        health.beat();
        assert_eq!(health.ailment(Instant::now()), None);
    }

    #[test]
    fn who_is_ready_stays_so() {
        let health = Health::new();
        assert!(health.unreadiness().unwrap().contains("node.json"));
        health.clone().ready();
        assert_eq!(health.unreadiness(), None);
    }
}
