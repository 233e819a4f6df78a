//! What is shown as bars.

use anyhow::Result;

use super::{peers::PeerId, report::Report, topology::Topology, workload::Workload};
use crate::bench::{
    plot::{Bars, Row},
    statistics::Summary,
};

/// From top to bottom.
const SHOWN: [Topology; 12] = [
    Topology::Loopback,
    Topology::Direct,
    Topology::RedirectPeer,
    Topology::Minicni,
    Topology::Flowtable,
    Topology::Plain,
    Topology::Routed,
    Topology::Bridge,
    Topology::RemoteHosts,
    Topology::RemoteMinicni,
    Topology::RemoteRouted,
    Topology::RemoteVxlan,
];

/// Request/response: ratios to routing with conntrack, on one node and on two, with intervals; TCP above UDP.
pub(in crate::bench) fn svg(report: &Report) -> Result<String> {
    Bars {
        title: "Request/response on one CPU, routing with conntrack = 1 (TCP above, UDP below)",
        rows: rows(report, &[Workload::TcpSameCpu, Workload::UdpSameCpu]),
    }
    .svg()
}

/// The plots of all workloads but those of [`svg`].
pub(in crate::bench) fn others(report: &Report) -> Result<Vec<String>> {
    [
        (
            "Request/response on two CPUs, routing with conntrack = 1 (TCP above, UDP below)",
            &[Workload::TcpOtherCpu, Workload::UdpOtherCpu][..],
        ),
        ("TCP streams, routing with conntrack = 1 (one above, eight below)", &[Workload::Stream, Workload::Streams]),
        (
            "TCP streams without GSO, routing with conntrack = 1 (one above, eight below)",
            &[Workload::StreamNoGso, Workload::StreamsNoGso],
        ),
        ("TCP connect, request, close, routing with conntrack = 1", &[Workload::Connections]),
        ("CPU time for a UDP datagram, routing with conntrack = 1, less is better", &[Workload::CpuTime]),
    ]
    .into_iter()
    .filter(|(_, workloads)| !rows(report, workloads).is_empty())
    .map(|(title, workloads)| Bars { title, rows: rows(report, workloads) }.svg())
    .collect()
}

fn rows(report: &Report, workloads: &[Workload]) -> Vec<Row> {
    let row = |topology: &Topology| {
        let ratio = |workload: &Workload| Some(report.compared(*workload, *topology, topology.baseline())?.ratio);
        let bars: Vec<Summary> = workloads.iter().filter_map(ratio).collect();
        let ours = matches!(topology, Topology::Minicni | Topology::RemoteMinicni);
        (!bars.is_empty()).then(|| Row { name: topology.name().to_owned(), ours, bars })
    };
    let peers: Vec<_> = PeerId::all().map(Topology::Peer).collect();
    SHOWN.iter().chain(&peers).filter_map(row).collect()
}
