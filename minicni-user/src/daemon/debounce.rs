//! Many events in a row become one.

use std::future;
use std::time::Duration;

use tokio::time::{self, Instant};

/// Collects events until none has come for `quiet`, or the first one is `limit` old.
///
/// The state lives here and not in a future, so that dropping a future that waits for it loses no event.
#[derive(Debug)]
pub(super) struct Debounce {
    quiet: Duration,
    limit: Duration,
    first_and_last: Option<(Instant, Instant)>,
}

impl Debounce {
    /// No event yet.
    pub(super) fn new(quiet: Duration, limit: Duration) -> Self {
        Self { quiet, limit, first_and_last: None }
    }

    /// Notes an event that happened now.
    pub(super) fn mark(&mut self) {
        let now = Instant::now();
        let first = self.first_and_last.map_or(now, |(first, _)| first);
        self.first_and_last = Some((first, now));
    }

    /// True once per collection: when it is complete. It starts anew then.
    pub(super) fn fire(&mut self) -> bool {
        let complete = self.due().is_some_and(|due| due <= Instant::now());
        if complete {
            self.first_and_last = None;
        }
        complete
    }

    /// Sleeps until the collection is complete; forever if there was no event.
    pub(super) async fn wait(&self) {
        match self.due() {
            Some(due) => time::sleep_until(due).await,
            None => future::pending().await,
        }
    }

    fn due(&self) -> Option<Instant> {
        self.first_and_last.map(|(first, last)| (first + self.limit).min(last + self.quiet))
    }
}
