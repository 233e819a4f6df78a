//! Follows the nodes of the cluster: one list, then what happens to them, for as long as the daemon runs.
//!
//! Whatever goes wrong, what is known stays. A connection that ends is made anew from the version that was seen last; only
//! where the server does not remember that version is there another list, which no longer has the nodes that went meanwhile.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch::Sender;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info};

use super::accept::{Accepted, accept};
use super::api::Api;
use super::backoff::{Backoff, up_to};
use super::decode::Event;
use super::failure::Failure;
use super::object::{Condition, Known, NodeObject};
use super::thread::Rest;
use crate::daemon::metrics::NodeSource;

/// How long a page of a list may take.
const PAGE_LIMIT: Duration = Duration::from_secs(30);
/// How long one watch lasts; by chance, so that not all nodes begin theirs anew at the same time.
const WATCH_SECONDS: Range<u32> = 240..300;
/// The server sends a bookmark each minute. Where nothing at all comes for this long, the connection is dead, or the server was
/// set back to before the version that it is asked for.
const SILENCE: Duration = Duration::from_secs(90);
/// A watch that lasted this long was a success, whatever ended it.
const LASTING: Duration = Duration::from_secs(5);
/// Every node lists anew when the server was restarted, and the list of a large cluster is large.
const RELIST_SPREAD: Duration = Duration::from_secs(10);

/// Nodes come and go in groups: until so long after the last one, the next is not kept waiting.
const CALM: Duration = Duration::from_secs(1);

/// What is known of the cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    /// The nodes, once a list was complete. Never none at all.
    pub(super) accepted: Option<Arc<Accepted>>,
    /// This node's own object, if there is one.
    pub(super) own: Option<Own>,
    /// What is wrong between us and the API server.
    pub(super) trouble: Option<Failure>,
}

/// What the API server says of this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Own {
    /// The condition `NetworkUnavailable`, if it has one.
    pub(super) condition: Option<Condition>,
}

/// Follows until the process ends, and tells `cluster` of what matters.
pub(super) async fn follow(api: Api, me: String, cluster: Sender<Cluster>, metrics: NodeSource, rest: Rest) {
    let mut follower = Follower { api, me, cluster, known: BTreeMap::new(), api_server: Vec::new(), metrics, rest };
    let mut backoff = Backoff::new();
    loop {
        let mut version = loop {
            match follower.list().await {
                Ok(version) => break version,
                Err(failure) => follower.failed(failure).await,
            }
            sleep(backoff.next()).await;
        };
        backoff.reset();
        loop {
            let started = Instant::now();
            match follower.watch(&mut version).await {
                End::Closed => {}
                End::Failed(failure) => follower.failed(failure).await,
                End::Forgotten => break,
            }
            follower.metrics.restarted();
            if started.elapsed() > LASTING {
                backoff.reset();
            }
            sleep(backoff.next()).await;
        }
        info!(version, "the API server does not remember what came after this version; listing the nodes anew");
        sleep(up_to(RELIST_SPREAD)).await;
    }
}

/// Why a watch ended.
enum End {
    /// The server or the network closed the connection.
    Closed,
    /// The server does not remember the version.
    Forgotten,
    Failed(Failure),
}

struct Follower {
    api: Api,
    me: String,
    cluster: Sender<Cluster>,
    known: BTreeMap<String, Known>,
    /// Addresses that no pod CIDR may cover.
    api_server: Vec<IpAddr>,
    metrics: NodeSource,
    rest: Rest,
}

impl Follower {
    /// Lists all nodes and replaces those that were known. Returns the version of the list.
    async fn list(&mut self) -> Result<String, Failure> {
        let mut known = BTreeMap::new();
        let mut buffer = Vec::new();
        let mut more = None;
        let version = loop {
            let page =
                timeout(PAGE_LIMIT, self.api.list(more, &mut buffer)).await.map_err(|_| Failure::Slow(PAGE_LIMIT))?;
            let page = page?;
            known.extend(page.items.into_iter().map(|object| self.entry(object)));
            more = page.metadata.more.filter(|token| !token.is_empty());
            if more.is_none() {
                break page.metadata.resource_version;
            }
        };
        drop(buffer);
        self.api_server = self.api.addresses().await;
        let changed = self.known != known || self.cluster.borrow().accepted.is_none();
        self.known = known;
        self.metrics.answered(self.known.len());
        self.succeeded();
        if changed {
            self.publish();
        }
        Ok(version)
    }

    /// Takes note of what happens after `version`, which moves along.
    async fn watch(&mut self, version: &mut String) -> End {
        let mut watch = match timeout(PAGE_LIMIT, self.api.watch(version, fastrand::u32(WATCH_SECONDS))).await {
            Ok(Ok(watch)) => watch,
            Ok(Err(failure)) => return end(failure),
            Err(_) => return End::Failed(Failure::Slow(PAGE_LIMIT)),
        };
        self.succeeded();
        self.rest.allow(true);
        let (mut changed, mut last_change) = (false, None::<Instant>);
        let end = loop {
            let event = tokio::select! {
                biased;
                event = timeout(SILENCE, watch.next()) => event,
                // What is there already belongs together.
                () = yield_now(), if changed => {
                    self.publish();
                    changed = false;
                    last_change = Some(Instant::now());
                    continue;
                }
            };
            changed |= match event {
                Ok(Ok(Some(Event::Set(object)))) => {
                    version.clone_from(&object.metadata.resource_version);
                    self.note(object)
                }
                Ok(Ok(Some(Event::Deleted(object)))) => {
                    version.clone_from(&object.metadata.resource_version);
                    self.known.remove(&object.metadata.name).is_some()
                }
                Ok(Ok(Some(Event::Bookmark(bookmark)))) => {
                    *version = bookmark;
                    false
                }
                Ok(Ok(Some(Event::Refused(refusal)))) => break end(refusal.into()),
                Ok(Ok(None)) => break End::Closed,
                Ok(Err(error)) => break End::Failed(error.into()),
                Err(_) => break End::Forgotten,
            };
            self.metrics.answered(self.known.len());
            self.rest.allow(!changed && last_change.is_none_or(|last| last.elapsed() > CALM));
        };
        self.rest.allow(false);
        if changed {
            self.publish();
        }
        end
    }

    fn entry(&self, object: NodeObject) -> (String, Known) {
        (object.metadata.name.clone(), Known::new(object, &self.me))
    }

    /// Says whether the object means anything else than before. A heartbeat does not.
    fn note(&mut self, object: NodeObject) -> bool {
        let (name, known) = self.entry(object);
        match self.known.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(known);
                true
            }
            Entry::Occupied(entry) if *entry.get() == known => false,
            Entry::Occupied(mut entry) => {
                entry.insert(known);
                true
            }
        }
    }

    /// Tells of the nodes, if they mean anything else than what was told.
    fn publish(&self) {
        if self.known.is_empty() {
            let failure = Failure::Empty(self.api.server());
            self.cluster.send_if_modified(|cluster| cluster.trouble.replace(failure.clone()) != Some(failure));
            return;
        }
        let accepted = accept(&self.known, &self.me, &self.api_server);
        let own = self.known.get(&self.me).map(|known| Own { condition: known.condition.clone() });
        self.cluster.send_if_modified(|cluster| {
            let mut modified = cluster.own != own;
            cluster.own = own;
            if cluster.accepted.as_deref() != Some(&accepted) {
                cluster.accepted = Some(Arc::new(accepted));
                modified = true;
            }
            modified | cluster.trouble.take_if(|trouble| matches!(trouble, Failure::Empty(_))).is_some()
        });
    }

    /// The server answers as it should.
    fn succeeded(&self) {
        self.cluster.send_if_modified(|cluster| {
            cluster.trouble.take_if(|trouble| !matches!(trouble, Failure::Empty(_))).is_some()
        });
    }

    /// What is said stays the same while the server is away, whatever the network makes of each attempt.
    async fn failed(&mut self, failure: Failure) {
        debug!("{failure}");
        self.api.renew(&failure).await;
        self.metrics.failed();
        self.cluster.send_if_modified(|cluster| {
            let same = cluster.trouble.as_ref().is_some_and(|trouble| trouble.is_like(&failure));
            if !same {
                cluster.trouble = Some(failure);
            }
            !same
        });
    }
}

fn end(failure: Failure) -> End {
    if failure.is_gone() { End::Forgotten } else { End::Failed(failure) }
}
