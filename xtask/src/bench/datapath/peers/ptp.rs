//! The ptp plugin with host-local: a routed veth pair for each pod, on a node with kube-proxy's rules.

use anyhow::Result;
use serde_json::json;

use super::{Peer, attached, new_netns};
use crate::bench::datapath::{path::Path, rules, workload::Workload as W};

pub(super) const PEER: Peer = Peer {
    id: "ptp",
    name: "ptp plugin, conntrack",
    workloads: &[W::TcpSameCpu, W::UdpSameCpu, W::Stream, W::Connections, W::CpuTime],
    make,
};

fn make() -> Result<Path> {
    let (node, _) = new_netns("ptp")?;
    rules::forward(&node)?;
    attached(&node, "ptp", &json!({ "type": "ptp", "ipam": { "routes": [{ "dst": "0.0.0.0/0" }] } }))
}
