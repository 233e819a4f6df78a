//! Releases the leases of pods that are gone and that no DEL came for: not every runtime calls GC.
//!
//! Only what is provably dead: the device is missing, under any name, and with it the namespace; it was missing twice,
//! with some time between; the lease is older than an ADD takes; and all of this is looked at again under the attachment's
//! lock.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use crate::{
    cni::CniError,
    datapath::Pins,
    node::StateDir,
    plugin::reclaim::{self, Dead, UNFINISHED_ADD},
};

/// What makes a lease dead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How old it must be.
    pub(super) age: Duration,
    /// How long its device must have been missing, from one look to another.
    pub(super) grace: Duration,
}

impl Limits {
    /// Those of a daemon.
    pub(super) const DAEMON: Self = Self { age: UNFINISHED_ADD, grace: Duration::from_mins(1) };
}

/// Looks for dead leases again and again, and remembers what it saw.
#[derive(Debug)]
pub(super) struct Sweeper {
    state: StateDir,
    pins: Pins,
    limits: Limits,
    seen: Seen,
    problems: Vec<String>,
}

impl Sweeper {
    pub(super) fn new(state: StateDir, pins: Pins, limits: Limits) -> Self {
        Self { state, pins, limits, seen: Seen::default(), problems: Vec::new() }
    }

    /// What went wrong at the last look.
    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Looks at every network, and releases what has been dead for long enough.
    pub(super) fn look(&mut self, now: Instant) {
        self.problems.clear();
        let networks = self.keep("", reclaim::networks(&self.state)).unwrap_or_default();
        let mut dead = Vec::new();
        for network in &networks {
            let tidied = tidy(&self.state, network);
            self.keep(network, tidied);
            let found = reclaim::dead(&self.state, network, self.limits.age);
            dead.extend(self.keep(network, found).unwrap_or_default());
        }
        for dead in self.seen.note(dead, now, self.limits.grace) {
            let reclaimed = reclaim::reclaim(&self.state, &self.pins, &dead);
            let Dead { network, owner, .. } = &dead;
            for address in self.keep(network, reclaimed).unwrap_or_default() {
                info!(network, %owner, %address, "lease released: its pod is gone, and no DEL came");
            }
        }
    }

    fn keep<T>(&mut self, network: &str, step: Result<T, CniError>) -> Option<T> {
        let place = if network.is_empty() { String::new() } else { format!("network {network}: ") };
        step.map_err(|error| self.problems.push(format!("leases not swept: {place}{error}"))).ok()
    }
}

/// Removes what has cooled and repairs what is damaged.
fn tidy(state: &StateDir, network: &str) -> Result<(), CniError> {
    let Some(store) = reclaim::leases(state, network)? else { return Ok(()) };
    let swept = store.sweep()?;
    for address in swept.reclaimed {
        warn!(network, %address, "unreadable lease released: nobody claims it");
    }
    for owner in swept.reindexed {
        warn!(network, %owner, "lease found that its owner's entry did not name; it does now");
    }
    Ok(())
}

/// Who was seen dead at every look, and when first.
#[derive(Debug, Default)]
struct Seen(HashMap<Dead, Instant>);

impl Seen {
    /// Takes note of who is dead now, and says who was already before, for at least the grace period. Who is not among
    /// the dead is forgotten.
    fn note(&mut self, dead: Vec<Dead>, now: Instant, grace: Duration) -> Vec<Dead> {
        let before = std::mem::take(&mut self.0);
        let mut due = Vec::new();
        for dead in dead {
            let first = before.get(&dead).copied();
            if first.is_some_and(|first| now.duration_since(first) >= grace) {
                due.push(dead.clone());
            }
            self.0.insert(dead, first.unwrap_or(now));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ipam::Owner;

    const GRACE: Duration = Duration::from_mins(1);

    fn dead(name: &str, since: u64) -> Dead {
        Dead { network: "pods".to_owned(), owner: Owner::new(name, "eth0").unwrap(), since }
    }

    #[test]
    fn who_is_dead_twice_with_the_grace_between_is_due_and_stays_so_until_it_is_gone() {
        let (start, mut seen) = (Instant::now(), Seen::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        let a = || vec![dead("a", 7)];
        assert_eq!(seen.note(a(), at(0), GRACE), []);
        assert_eq!(seen.note(a(), at(30), GRACE), []);
        assert_eq!(seen.note(a(), at(60), GRACE), a());
        assert_eq!(seen.note(a(), at(90), GRACE), a(), "it could not be released");
        assert_eq!(seen.note(vec![], at(120), GRACE), []);
        assert_eq!(seen.0, HashMap::new());
    }

    #[test]
    fn who_came_alive_or_was_leased_anew_has_the_whole_grace_again() {
        let (start, mut seen) = (Instant::now(), Seen::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        seen.note(vec![dead("a", 7), dead("b", 7)], at(0), GRACE);
        seen.note(vec![dead("b", 8)], at(30), GRACE);
        assert_eq!(seen.note(vec![dead("a", 7), dead("b", 8)], at(80), GRACE), []);
        assert_eq!(seen.note(vec![dead("a", 7), dead("b", 8)], at(100), GRACE), [dead("b", 8)]);
    }

    proptest! {
        #[test]
        fn nobody_is_due_who_was_seen_once_or_alive_within_the_grace(
            looks in proptest::collection::vec((0..90u64, proptest::collection::btree_set(0..4u8, 0..4)), 1..20),
        ) {
            let (mut now, mut seen) = (Instant::now(), Seen::default());
            // Since when each is dead without a break.
            let mut model: [Option<Instant>; 4] = [None; 4];
            for (seconds, names) in looks {
                now += Duration::from_secs(seconds);
                let before = model;
                for name in 0..4u8 {
                    let since = &mut model[usize::from(name)];
                    *since = if names.contains(&name) { since.or(Some(now)) } else { None };
                }
                let due = seen.note(names.iter().map(|name| dead(&name.to_string(), 7)).collect(), now, GRACE);
                let expected: Vec<Dead> = names
                    .iter()
                    .filter(|name| before[usize::from(**name)].is_some_and(|since| now - since >= GRACE))
                    .map(|name| dead(&name.to_string(), 7))
                    .collect();
                prop_assert_eq!(due, expected);
            }
        }
    }
}
