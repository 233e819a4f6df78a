//! Where the nodes of the cluster are known from: the Kubernetes API, or a file.
//!
//! The API server is talked to by a `thread` of its own: `api` asks, with the credentials of `access`, `decode` (`frames`,
//! `protobuf`) understands, `follow` keeps what is known, and `report` tells the server of this node.
//!
//! A file is taken whole or not at all, because one person wrote it. Objects of the API come from many, so one that is wrong is
//! left out alone.

mod accept;
mod access;
mod api;
mod backoff;
mod decode;
mod events;
mod failure;
mod follow;
mod frames;
mod object;
mod protobuf;
mod report;
mod thread;

use std::fmt;
use std::future;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch::{Receiver, channel};
use tracing::{info, warn};

pub use self::access::{ApiError, ApiOptions};
pub(super) use self::report::Availability;
use self::{
    api::Api,
    follow::{Cluster, follow},
    report::{Reporter, report},
};
use super::{
    file::{self, NodesFile},
    metrics::NodeSource,
    nodes::Node,
    problems::{Problem, Problems, Reason},
};

/// Where the nodes shall be known from.
#[derive(Clone, Debug)]
pub enum SourceOptions {
    /// A file of Node objects.
    File(PathBuf),
    /// The Kubernetes API.
    Api(ApiOptions),
}

/// Where the nodes are known from.
pub(super) enum Source {
    File(FileSource),
    Api(ApiSource),
}

pub(super) struct FileSource {
    path: PathBuf,
    watch: NodesFile,
    /// The last good ones.
    nodes: Option<Vec<Node>>,
    error: Option<String>,
    metrics: NodeSource,
}

pub(super) struct ApiSource {
    api: Api,
    changes: Receiver<Cluster>,
    /// What was last seen of them.
    cluster: Cluster,
    reporter: Reporter,
}

impl Source {
    /// Begins to follow the nodes, for the node `me`. Needs a tokio runtime.
    pub(super) async fn open(
        options: &SourceOptions,
        me: &str,
        metrics: NodeSource,
    ) -> Result<Self, super::run::RunError> {
        match options {
            SourceOptions::File(path) => {
                let watch = NodesFile::watch(path)?;
                Ok(Self::File(FileSource { path: path.clone(), watch, nodes: None, error: None, metrics }))
            }
            SourceOptions::Api(options) => {
                let (sender, changes) = channel(Cluster::default());
                let (reporter, wanted) = Reporter::new();
                let (me, cluster) = (me.to_owned(), changes.clone());
                let work = async move |api: Api, rest| {
                    tokio::spawn(report(api.clone(), me.clone(), wanted, cluster));
                    // A task like the others: it must not come before the one that reads for it.
                    let _ = tokio::spawn(follow(api, me, sender, metrics, rest)).await;
                };
                let api = thread::start(options.clone(), work).await?;
                Ok(Self::Api(ApiSource { api, changes, cluster: Cluster::default(), reporter }))
            }
        }
    }

    /// Waits until the nodes, or what is wrong with them, changed, and takes that over. Dropping the future loses nothing.
    pub(super) async fn changed(&mut self) {
        match self {
            Self::File(source) => {
                if let Err(error) = source.watch.next_change().await {
                    warn!(%error, "the file of nodes is read by timer only");
                    source.metrics.restarted();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                source.read();
            }
            Self::Api(source) => {
                // The thread that follows the API never ends.
                if source.changes.changed().await.is_err() {
                    future::pending::<()>().await;
                }
                source.take();
            }
        }
    }

    /// Looks again, whether or not something changed.
    pub(super) fn look(&mut self) {
        if let Self::File(source) = self {
            source.read();
        }
    }

    /// The nodes as far as they can be used; `None` as long as they are not known.
    pub(super) fn nodes(&self) -> Option<&[Node]> {
        match self {
            Self::File(source) => source.nodes.as_deref(),
            Self::Api(source) => source.cluster.accepted.as_ref().map(|accepted| accepted.nodes.as_slice()),
        }
    }

    /// What is wrong with the nodes.
    pub(super) fn problems(&self, problems: &mut Problems) {
        match self {
            Self::File(source) => problems.extend(Reason::NodesUnreadable, &source.error),
            Self::Api(source) => {
                let kept = source
                    .cluster
                    .accepted
                    .as_ref()
                    .map_or("no nodes are known yet", |_| "the nodes known so far stay");
                if let Some(trouble) = &source.cluster.trouble {
                    let server = source.api.server();
                    problems.add(
                        Reason::NodesUnreadable,
                        format_args!("the nodes cannot be followed at {server}, {kept}: {trouble}"),
                    );
                }
                for problem in source.cluster.accepted.iter().flat_map(|accepted| &accepted.problems) {
                    problems.add(problem.reason, problem);
                }
            }
        }
    }

    /// Why this node's own object cannot be used, though there is one.
    pub(super) fn own_refused(&self) -> Option<&Problem> {
        match self {
            Self::File(_) => None,
            Self::Api(source) => source.cluster.accepted.as_ref()?.own_refused.as_ref(),
        }
    }

    /// Tells the cluster how this node is, once the nodes are known.
    pub(super) fn tell(&self, availability: Option<Availability>, problems: &Problems) {
        if let Self::Api(source) = self {
            // The API server need not be told by every node that it was away.
            let told = problems.all().iter().filter(|problem| problem.reason != Reason::NodesUnreadable);
            source.reporter.tell(availability, told.cloned().collect());
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(source) => write!(f, "{}", source.path.display()),
            Self::Api(source) => f.write_str(&source.api.server()),
        }
    }
}

impl FileSource {
    fn read(&mut self) {
        match file::read(&self.path) {
            Ok(nodes) => {
                if self.error.take().is_some() || self.nodes.is_none() {
                    info!(nodes = nodes.len(), file = %self.path.display(), "nodes read");
                }
                self.metrics.answered(nodes.len());
                self.nodes = Some(nodes);
            }
            Err(error) => {
                self.metrics.failed();
                self.error = Some(error.to_string());
            }
        }
    }
}

impl ApiSource {
    fn take(&mut self) {
        let first = self.cluster.accepted.is_none();
        self.cluster = self.changes.borrow_and_update().clone();
        if let Some(accepted) = self.cluster.accepted.as_ref().filter(|_| first) {
            info!(nodes = accepted.nodes.len(), server = self.api.server(), "nodes listed");
        }
    }
}

#[cfg(test)]
mod tests;
