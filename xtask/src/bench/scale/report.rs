use serde::{Deserialize, Serialize};

use crate::bench::{environment::Environment, statistics::Summary};

/// What a run does.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Plan {
    /// Node objects, with that of the daemon's own node.
    pub(super) nodes: u32,
    /// Cold starts.
    pub(super) starts: usize,
    /// Nodes that come and go, one after the other.
    pub(super) events: u32,
    /// Seconds for which the CPU time is taken.
    pub(super) idle: u64,
    /// Seconds for which the API server is away.
    pub(super) outage: u64,
    /// Heartbeats of all nodes in a minute.
    pub(super) heartbeats: u32,
}

impl Plan {
    pub(super) fn new(quick: bool, nodes: Option<u32>, outage: Option<u64>) -> Self {
        let nodes = nodes.unwrap_or(if quick { 500 } else { 5_000 });
        let (starts, events, idle, away) = if quick { (3, 30, 10, 10) } else { (7, 200, 60, 60) };
        // Each node once a minute.
        Self { nodes, starts, events, idle, outage: outage.unwrap_or(away), heartbeats: nodes }
    }
}

/// All that a run found.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(in crate::bench) struct Report {
    pub(in crate::bench) environment: Environment,
    pub(super) plan: Plan,
    /// Bytes of a Node object as the API server gives it.
    pub(super) object_bytes: usize,
    /// Heartbeats that the API server took while the CPU time was measured, in a minute.
    pub(super) heartbeats: f64,
    /// Seconds from exec until all routes are in the kernel.
    pub(super) cold_start: Summary,
    /// Milliseconds from a node's creation, as it is sent, to its route, and from its deletion to the route's end.
    pub(super) event: Summary,
    /// Resident memory with ten nodes, in MB.
    pub(super) memory_few: f64,
    /// Resident memory with all nodes, in MB, after all that was measured; and the most that it ever was.
    pub(super) memory: f64,
    pub(super) memory_peak: f64,
    /// CPU time with heartbeats and no other change, in percent of a core.
    pub(super) idle_percent: f64,
    /// Changes of routes while the API server was away and came back.
    pub(super) outage_changes: usize,
    /// Seconds from the API server's being ready again until the daemon follows the nodes again.
    pub(super) back: f64,
}
