//! Which problems become Events, and when. Pure.
//!
//! What lasts is written once. Problems of one kind share an Event, and the next of that kind has to wait, so that a cluster
//! full of trouble does not bury the API server under reports of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::daemon::problems::{Problem, Reason};

/// How long a problem must have lasted: a node that was just added is incomplete for a moment.
pub(super) const SETTLE: Duration = Duration::from_secs(10);
/// The least time between two Events of one kind.
pub(super) const APART: Duration = Duration::from_mins(10);
/// What fits into an Event's message: <https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/>.
const LONGEST: usize = 1000;

/// The problems there are, and what was told of them.
#[derive(Debug, Default)]
pub(super) struct Events {
    kinds: BTreeMap<Reason, Kind>,
}

#[derive(Debug, Default)]
struct Kind {
    /// When an Event of this kind was last written.
    written: Option<Instant>,
    /// Each problem that there is, by its message.
    problems: BTreeMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    since: Instant,
    told: bool,
}

impl Events {
    /// Takes note of the problems that there are at `now`.
    pub(super) fn note(&mut self, problems: &[Problem], now: Instant) {
        for (reason, kind) in &mut self.kinds {
            kind.problems.retain(|message, _| problems.iter().any(|p| p.reason == *reason && p.message == *message));
        }
        for problem in problems {
            let kind = self.kinds.entry(problem.reason).or_default();
            kind.problems.entry(problem.message.clone()).or_insert(Seen { since: now, told: false });
        }
    }

    /// An Event that should be written at `now`. It is asked for again until [`written`](Self::written).
    pub(super) fn due(&self, now: Instant) -> Option<Problem> {
        self.kinds.iter().find(|(_, kind)| kind.due().is_some_and(|due| due <= now)).map(|(reason, kind)| {
            let (first, _) = kind.untold().min_by_key(|(_, seen)| seen.since).unzip();
            let first = first.map_or("", String::as_str);
            let others = kind.problems.len() - 1;
            let more = if others == 0 {
                String::new()
            } else {
                format!(" (and {others} more of this kind: see minicnid status on the node)")
            };
            Problem { reason: *reason, message: format!("{}{more}", shortened(first, LONGEST - more.len())) }
        })
    }

    /// When there is something to write, as far as is known.
    pub(super) fn next(&self) -> Option<Instant> {
        self.kinds.values().filter_map(Kind::due).min()
    }

    /// An Event of this kind was written at `now`: it told of all problems that there are.
    pub(super) fn written(&mut self, reason: Reason, now: Instant) {
        if let Some(kind) = self.kinds.get_mut(&reason) {
            kind.written = Some(now);
            kind.problems.values_mut().for_each(|seen| seen.told = true);
        }
    }
}

impl Kind {
    fn untold(&self) -> impl Iterator<Item = (&String, &Seen)> {
        self.problems.iter().filter(|(_, seen)| !seen.told)
    }

    fn due(&self) -> Option<Instant> {
        let settled = self.untold().map(|(_, seen)| seen.since + SETTLE).min()?;
        Some(self.written.map_or(settled, |written| settled.max(written + APART)))
    }
}

/// The beginning of a text, of as many bytes at most.
fn shortened(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests;
