//! The rows: each a promise, and what looks whether it is kept.

mod addresses;
mod churn;
mod crashes;
mod deployment;
mod dns;
pub(super) mod end;
mod lifecycle;
mod manifests;
mod matrix;
mod services;

use std::time::Instant;

use anyhow::Result;

use super::{
    bed::Bed,
    report::{Outcome, rounded},
};

/// A promise of the network.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    look: fn(&mut Bed) -> Result<String>,
}

/// In their order: what takes something away comes last.
pub(super) const ROWS: [Row; 21] = [
    row("manifests", "what users apply is valid, to the last field", manifests::look),
    row("own-node", "a pod reaches its own node", |bed| matrix::look(bed, matrix::To::OwnNode)),
    row("other-node", "a pod reaches another node", |bed| matrix::look(bed, matrix::To::OtherNode)),
    row("same-node", "a pod reaches a pod of its node", |bed| matrix::look(bed, matrix::To::Neighbour)),
    row("cross-node", "a pod reaches a pod of another node", |bed| matrix::look(bed, matrix::To::Remote)),
    row("source", "a pod's address is seen by other pods, also through a Service", addresses::source),
    row("egress", "the outside sees a node's address, and answers", addresses::egress),
    row("dns", "names of Services are resolved through the cluster's DNS Service (a stand-in server)", dns::look),
    row("cluster-ip", "a ClusterIP leads to all of its pods, over IPv4 and IPv6", services::cluster_ip),
    row("hairpin", "a pod reaches itself through its Service", services::hairpin),
    row("node-port", "a NodePort of every node leads to all pods", services::node_port),
    row(
        "node-port-local",
        "a NodePort with externalTrafficPolicy Local keeps the client's address",
        services::node_port_local,
    ),
    row("host-port", "a hostPort leads to its pod from another node", services::host_port),
    row("deployment", "6 replicas on all nodes reach each other", deployment::look),
    row("restart", "the daemon restarts on every node, and no request fails", lifecycle::restart),
    row("kubelet", "kubelet is killed and restarted; no request fails, and a new pod works", crashes::kubelet),
    row(
        "containerd",
        "containerd is killed while pods come and go; nothing is left of those that went",
        crashes::containerd,
    ),
    row("churn", "100 pods come and go on one node, and nothing is left of them", churn::look),
    row("drain", "a node is drained; its pods work elsewhere", lifecycle::drain),
    row("deleted", "a node is deleted; its routes go", lifecycle::delete),
    row("added", "a node is added again; pods on it are reached", lifecycle::add),
];

const fn row(name: &'static str, title: &'static str, look: fn(&mut Bed) -> Result<String>) -> Row {
    Row { name, title, look }
}

impl Row {
    /// Looks whether the promise is kept.
    pub(super) fn run(&self, bed: &mut Bed) -> Outcome {
        let start = Instant::now();
        let before = bed.verdicts();
        let result = (self.look)(bed).map_err(|error| format!("{error:#}"));
        let after = bed.verdicts();
        // A node that was replaced counts from zero.
        let (fast, stack) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        let fast_percent = (fast + stack > 0).then(|| fast as f64 * 100.0 / (fast + stack) as f64);
        Outcome { name: self.name, title: self.title, result, seconds: rounded(start.elapsed()), fast_percent }
    }
}
