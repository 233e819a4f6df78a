use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bench::environment::Environment;

/// All that a run found, round by round.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Report {
    pub(super) environment: Environment,
    /// The network's name.
    pub(super) network: String,
    /// What the cluster is, in words.
    pub(super) cluster: String,
    /// The version of Kubernetes.
    pub(super) kubernetes: String,
    pub(super) rounds: usize,
    /// How long everything is measured in a round.
    pub(super) milliseconds: u64,
    pub(super) series: Vec<Series>,
}

/// One workload over one path.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Series {
    pub(super) workload: Workload,
    pub(super) path: Path,
    /// Bits, exchanges or connections in a second, by round.
    pub(super) rates: Vec<f64>,
    /// Packets that minicni's programs redirected, of all that they were asked about, in percent; none of another network.
    pub(super) fast_percent: Option<f64>,
}

/// What client and server do over TCP.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Workload {
    Stream,
    Request,
    Connect,
}

impl Workload {
    pub(super) const ALL: [Self; 3] = [Self::Stream, Self::Request, Self::Connect];

    /// As the pods' program calls it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Request => "request",
            Self::Connect => "connect",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stream => "one stream",
            Self::Request => "request/response",
            Self::Connect => "connect, request, close",
        }
    }

    /// A rate in words.
    pub(super) fn rate(self, rate: f64) -> String {
        match self {
            Self::Stream => format!("{:.2} Gbit/s", rate / 1e9),
            Self::Request | Self::Connect => format!("{:.2} k/s", rate / 1e3),
        }
    }
}

/// Where the server is, and how the client reaches it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Path {
    pub(super) cross_node: bool,
    pub(super) by_service: bool,
}

impl Path {
    pub(super) const ALL: [Self; 4] =
        [Self::new(false, false), Self::new(false, true), Self::new(true, false), Self::new(true, true)];
    /// What the others are compared with.
    pub(super) const FIRST: Self = Self::ALL[0];

    pub(super) const fn new(cross_node: bool, by_service: bool) -> Self {
        Self { cross_node, by_service }
    }

    /// As deploy/bench/bench.yaml calls the server and its Service.
    pub(super) fn server(self) -> &'static str {
        if self.cross_node { "cross-node" } else { "same-node" }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {}",
            if self.cross_node { "two nodes" } else { "one node" },
            if self.by_service { "by Service" } else { "direct" }
        )
    }
}

impl Report {
    pub(super) fn series(&self, workload: Workload, path: Path) -> Option<&Series> {
        self.series.iter().find(|series| series.workload == workload && series.path == path)
    }
}
