//! What the API server is told of this node: its condition `NetworkUnavailable`, and Events about what is wrong.
//!
//! Nothing waits for it, and nothing depends on it.

use std::time::Duration;

use tokio::sync::watch::{Receiver, Sender, channel};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::api::Api;
use super::backoff::{Backoff, up_to};
use super::events::Events;
use super::failure::Failure;
use super::follow::Cluster;
use super::object::Condition;
use crate::daemon::problems::Problem;

/// How long a request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);
/// The least time from one change of the condition to the next, should somebody else insist on another one.
const CONDITION_APART: Duration = Duration::from_secs(10);
/// Events of many nodes about the same are not written at once.
const SPREAD: Duration = Duration::from_secs(5);

/// Whether pods can be started on this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::daemon) struct Availability {
    available: bool,
    /// One word.
    pub(super) reason: String,
    /// A sentence for people.
    pub(super) message: String,
}

impl Availability {
    /// Pods can be started.
    pub(in crate::daemon) fn up() -> Self {
        let message = "the node is described to the plugin, and its routes are in place";
        Self { available: true, reason: "MinicniIsUp".to_owned(), message: message.to_owned() }
    }

    /// Pods cannot be started, because of this.
    pub(in crate::daemon) fn down(problem: &Problem) -> Self {
        Self { available: false, reason: problem.reason.to_string(), message: problem.message.clone() }
    }

    /// The status of `NetworkUnavailable`.
    pub(super) fn status(&self) -> &'static str {
        if self.available { "False" } else { "True" }
    }

    fn is_told_by(&self, condition: &Condition) -> bool {
        condition.status == self.status() && condition.reason == self.reason && condition.message == self.message
    }
}

/// What there is to be told.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// `None` as long as the nodes are not known.
    availability: Option<Availability>,
    problems: Vec<Problem>,
}

/// The one end of what tells the API server in the background.
#[derive(Debug)]
pub(super) struct Reporter {
    wanted: Sender<Wanted>,
}

impl Reporter {
    /// There is nothing to be told yet; [`report`] tells what there will be.
    pub(super) fn new() -> (Self, Receiver<Wanted>) {
        let (sender, wanted) = channel(Wanted::default());
        (Self { wanted: sender }, wanted)
    }

    /// What there is to be told from now on.
    pub(super) fn tell(&self, availability: Option<Availability>, problems: Vec<Problem>) {
        self.wanted.send_if_modified(|wanted| {
            let modified = wanted.availability != availability || wanted.problems != problems;
            if modified {
                *wanted = Wanted { availability, problems };
            }
            modified
        });
    }
}

/// Tells of the node `me` until nobody has anything to tell any more. `cluster` says what the API server has.
pub(super) async fn report(api: Api, me: String, mut wanted: Receiver<Wanted>, mut cluster: Receiver<Cluster>) {
    let mut events = Events::default();
    let mut backoff = Backoff::new();
    // Neither is done before.
    let (mut condition_from, mut events_from) = (Instant::now(), Instant::now());
    let mut failed = None;
    loop {
        let now = Instant::now();
        let Wanted { availability, problems } = wanted.borrow_and_update().clone();
        let own = cluster.borrow_and_update().own.clone();
        events.note(&problems, now.into_std());

        // Without an object there is nothing to be told about.
        let availability = match &own {
            Some(own) => availability
                .filter(|availability| !own.condition.as_ref().is_some_and(|told| availability.is_told_by(told))),
            None => None,
        };
        let event_at = events.next().map(|next| events_from.max(Instant::from_std(next)));
        let wake = match (availability.as_ref().map(|_| condition_from), event_at.filter(|_| own.is_some())) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            changed = cluster.changed() => if changed.is_err() { return },
            () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {
                let told = if let Some(availability) = availability.filter(|_| condition_from <= Instant::now()) {
                    let turns = own.and_then(|own| own.condition).is_none_or(|condition| condition.status != availability.status());
                    let told = within_limit(api.set_condition(&me, &availability, turns)).await;
                    condition_from = Instant::now() + CONDITION_APART;
                    if told.is_ok() {
                        info!(status = availability.status(), reason = availability.reason, "condition NetworkUnavailable set");
                    }
                    told
                } else if let Some(event) = events.due(Instant::now().into_std()) {
                    let told = within_limit(api.warn(&me, &event)).await;
                    if told.is_ok() {
                        events.written(event.reason, Instant::now().into_std());
                    }
                    events_from = Instant::now() + up_to(SPREAD);
                    told
                } else {
                    Ok(())
                };
                match told {
                    Ok(()) => {
                        backoff.reset();
                        failed = None;
                    }
                    Err(failure) => {
                        api.renew(&failure).await;
                        if !failed.as_ref().is_some_and(|before: &Failure| before.is_like(&failure)) {
                            warn!("the API server is not told of this node: {failure}");
                        }
                        failed = Some(failure);
                        let later = Instant::now() + backoff.next();
                        condition_from = condition_from.max(later);
                        events_from = events_from.max(later);
                    }
                }
            }
        }
    }
}

async fn within_limit(request: impl Future<Output = kube::Result<()>>) -> Result<(), Failure> {
    match timeout(REQUEST_LIMIT, request).await {
        Ok(told) => Ok(told?),
        Err(_) => Err(Failure::Slow(REQUEST_LIMIT)),
    }
}
