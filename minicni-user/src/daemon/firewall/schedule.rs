//! When the rules are looked at. Pure: it is told what the time is.
//!
//! A look executes several programs, and a route to a new node waits for the table behind it. What this process writes itself
//! also counts as a change of rules, so a look comes when the nodes have been quiet for a moment.

use std::time::{Duration, Instant};

/// How often the rules are looked at without a reason. With thousands of nodes a look takes a tenth of a second.
const RESYNC: Duration = Duration::from_mins(5);
/// The least time from one look, or from what was written, to the next look.
const APART: Duration = Duration::from_millis(500);
/// The most by which a look is put off because something is written again and again.
const PUT_OFF: Duration = Duration::from_secs(10);

/// How long after a look that failed the next one comes, at first; twice as long each time.
const RETRY: Duration = Duration::from_secs(1);
/// The most by which the next one is put off so.
const LATEST_RETRY: Duration = Duration::from_secs(30);

/// The time of the next look.
#[derive(Debug)]
pub(super) struct Schedule {
    looked: Instant,
    /// The last look, or the last time that something was written.
    busy: Instant,
    due: Instant,
    /// When somebody first changed rules since the last look.
    rung: Option<Instant>,
    /// How long after the last look not to look again, because it failed.
    retry: Option<Duration>,
}

impl Schedule {
    pub(super) fn new(now: Instant) -> Self {
        Self { looked: now, busy: now, due: now + RESYNC, rung: None, retry: None }
    }

    /// How long until the next look.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now)
    }

    /// Somebody, which may be this process, changed rules.
    pub(super) fn rung(&mut self, now: Instant) {
        let first = *self.rung.get_or_insert(now);
        // What fails may ring by itself, as one of iptables' programs that takes its lock and then gives up.
        if self.retry.is_none() {
            self.due = self.due.min((self.busy + APART).min(first + PUT_OFF));
        }
    }

    /// The table was written, and is as it should be. A look that is due already stays so.
    pub(super) fn wrote(&mut self, now: Instant) {
        self.busy = now;
        if self.due <= now {
            return;
        }
        let latest = self.rung.map_or(self.looked + RESYNC, |first| first + PUT_OFF);
        self.due = self.due.max(now + APART).min(latest);
    }

    /// Something is to be looked at before anything else.
    pub(super) fn urgent(&mut self, now: Instant) {
        self.due = now;
    }

    /// The rules were looked at, and are as they should be.
    pub(super) fn looked(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// The rules could not be looked at or not be mended.
    pub(super) fn failed(&mut self, now: Instant) {
        let retry = self.retry.map_or(RETRY, |last| (last * 2).min(LATEST_RETRY));
        *self = Self { due: now + retry, retry: Some(retry), ..Self::new(now) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_rules_is_looked_at_half_a_second_after_the_last_look() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.rung(start + APART / 4);
        assert_eq!(schedule.wait(start + APART / 4), APART * 3 / 4);
        let later = start + RESYNC / 2;
        schedule.looked(start + APART);
        schedule.rung(later);
        assert_eq!(schedule.wait(later), Duration::ZERO);
    }

    #[test]
    fn without_any_change_the_rules_are_looked_at_every_five_minutes() {
        let start = Instant::now();
        assert_eq!(Schedule::new(start).wait(start), RESYNC);
    }

    #[test]
    fn a_look_waits_while_the_table_is_written_again_and_again_but_not_for_long() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let mut now = start;
        while schedule.wait(now) > Duration::ZERO {
            now += APART / 10;
            schedule.wrote(now);
            schedule.rung(now);
        }
        let waited = now - start;
        assert!(waited >= PUT_OFF && waited <= PUT_OFF + APART, "{waited:?}");
    }

    #[test]
    fn what_failed_is_tried_again_soon_then_more_and_more_rarely_and_no_sooner_when_it_rings() {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(now);
        let mut waits = Vec::new();
        for _ in 0..7 {
            schedule.failed(now);
            schedule.rung(now);
            waits.push(schedule.wait(now).as_secs());
            now += schedule.wait(now);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        schedule.looked(now);
        assert_eq!(schedule.wait(now), RESYNC);
        schedule.failed(now);
        assert_eq!(schedule.wait(now), RETRY);
    }

    #[test]
    fn after_a_failure_what_the_nodes_ask_for_does_not_put_the_next_look_off() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.failed(start);
        schedule.wrote(start);
        assert_eq!(schedule.wait(start), RETRY);
    }

    #[test]
    fn what_is_urgent_waits_for_nothing() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.wrote(start);
        schedule.urgent(start);
        schedule.wrote(start);
        schedule.rung(start);
        assert_eq!(schedule.wait(start), Duration::ZERO);
    }
}
