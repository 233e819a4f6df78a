//! Makes every flow prove itself again when firewall rules, policy rules, routes, addresses or links change.
//!
//! Nothing depends on it: a promoted flow that the stack would no longer carry ends within 6 s in any case. This ends
//! it sooner.

pub(super) mod sources;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use minicni_common::names::GENERATIONS;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use prometheus_client::metrics::counter::Counter;
use tracing::debug;

use self::sources::{DeafError, Source};
use super::firewall::Doorbell;
use crate::datapath::{Generations, Pins};

/// How long after a change the flows are called: what else changes meanwhile is covered by the same call.
const GATHER: Duration = Duration::from_millis(20);
/// The least time from one call to the next. A call costs each flow eight packets per direction through the stack.
const APART: Duration = Duration::from_millis(200);
/// How long after it was opened a listener that is deaf in some way is opened anew.
const RETRY: Duration = Duration::from_secs(30);

/// The thread that listens. It is one of its own, so that a rule does not wait for a reconciliation.
pub(super) struct Rules {
    problems: Arc<Mutex<Vec<String>>>,
}

impl Rules {
    /// Starts to listen in the network namespace of this thread, until the process ends. What happens from now on is not
    /// missed. Counts in `calls` how often the flows were called, and rings for the firewall each time.
    pub(super) fn listen(pins: Pins, calls: Counter, firewall: Doorbell) -> io::Result<Self> {
        let mut listener = Listener::open();
        let problems = Arc::new(Mutex::new(listener.problems()));
        let rules = Self { problems: Arc::clone(&problems) };
        thread::Builder::new().name("rules".to_owned()).spawn(move || {
            loop {
                // The first time, and after it was opened anew, for whatever happened while nobody listened.
                let bumped = bump(&pins);
                firewall.ring();
                calls.inc();
                *locked(&problems) = listener.problems().into_iter().chain(bumped.err()).collect();
                if !listener.changed() {
                    listener = Listener::open();
                }
            }
        })?;
        Ok(rules)
    }

    /// What is wrong at the moment, for people.
    pub(super) fn problems(&self) -> Vec<String> {
        locked(&self.problems).clone()
    }
}

/// Nothing that panics is done under the lock.
fn locked(problems: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    problems.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bump(pins: &Pins) -> Result<(), String> {
    // Where nothing was ever loaded, no flow was promoted.
    if !pins.map(GENERATIONS).exists() {
        return Ok(());
    }
    debug!("all flows prove themselves again");
    Generations::open(pins).and_then(|mut generations| generations.bump_all()).map_err(|error| error.to_string())
}

/// Hears what may void what flows proved.
pub(super) struct Listener {
    sources: Vec<Source>,
    deaf: Vec<DeafError>,
    opened: Instant,
    called: Option<Instant>,
}

impl Listener {
    /// Opens whatever can be opened, in the network namespace of this thread.
    pub(super) fn open() -> Self {
        let (mut sources, mut deaf) = (Vec::new(), Vec::new());
        for source in Source::open_each() {
            match source {
                Ok(source) => sources.push(source),
                Err(error) => deaf.push(error),
            }
        }
        Self { sources, deaf, opened: Instant::now(), called: None }
    }

    /// What is not heard, for people.
    pub(super) fn problems(&self) -> Vec<String> {
        self.deaf.iter().map(ToString::to_string).collect()
    }

    /// Waits until something changed, and then for the moment to call the flows. What changes after that is told by
    /// another call. False if something is not heard and it is time to try again.
    pub(super) fn changed(&mut self) -> bool {
        loop {
            let limit = (!self.deaf.is_empty()).then(|| RETRY.saturating_sub(self.opened.elapsed()));
            if limit == Some(Duration::ZERO) {
                return false;
            }
            self.wait(limit);
            if self.drain() {
                break;
            }
        }
        let now = Instant::now();
        thread::sleep(turn(now, self.called) - now);
        // All that is known by now is covered.
        self.drain();
        self.called = Some(Instant::now());
        true
    }

    /// Waits until there is something to read.
    fn wait(&self, limit: Option<Duration>) {
        let mut fds: Vec<_> = self.sources.iter().map(|source| PollFd::new(source.fd(), PollFlags::POLLIN)).collect();
        let timeout = limit.map_or(PollTimeout::NONE, |limit| PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
        if poll(&mut fds, timeout).is_err() {
            // Interrupted, or out of memory: looked at all the same, but not in a spin.
            thread::sleep(GATHER);
        }
    }

    /// Reads what there is and says whether it concerns flows. A source that fails is closed; nobody knows what it had
    /// to say.
    fn drain(&mut self) -> bool {
        let mut concerns = false;
        for source in std::mem::take(&mut self.sources) {
            match source.drain() {
                Ok(found) => {
                    concerns |= found;
                    self.sources.push(source);
                }
                Err(error) => {
                    concerns = true;
                    self.deaf.push(error);
                }
            }
        }
        concerns
    }
}

/// When to call the flows because of what was heard at `heard`, with the last call at `called`.
fn turn(heard: Instant, called: Option<Instant>) -> Instant {
    let soon = heard + GATHER;
    called.map_or(soon, |called| soon.max(called + APART))
}

#[cfg(test)]
mod tests;
