use serde::{Deserialize, Serialize};

use super::topology::Topology;

/// What client and server do.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Workload {
    /// Requests of a byte, answered each, over one TCP connection; client and server on one CPU.
    TcpSameCpu,
    /// The same over UDP.
    UdpSameCpu,
    /// As [`Workload::TcpSameCpu`], client and server on different CPUs.
    TcpOtherCpu,
    /// The same over UDP.
    UdpOtherCpu,
    /// One TCP connection as fast as it goes, on different CPUs.
    Stream,
    /// Connect, request, answer, close; on one CPU.
    Connections,
    /// CPU time of UDP datagrams in one direction, at a fixed rate; on one CPU.
    CpuTime,
}

impl Workload {
    pub(super) const ALL: [Self; 7] = [
        Self::TcpSameCpu,
        Self::UdpSameCpu,
        Self::TcpOtherCpu,
        Self::UdpOtherCpu,
        Self::Stream,
        Self::Connections,
        Self::CpuTime,
    ];

    /// Where it is measured.
    pub(super) fn topologies(self) -> &'static [Topology] {
        match self {
            Self::TcpSameCpu | Self::UdpSameCpu => &Topology::ALL,
            Self::TcpOtherCpu | Self::UdpOtherCpu => &[
                Topology::Minicni,
                Topology::Routed,
                Topology::Plain,
                Topology::Bridge,
                Topology::Direct,
                Topology::Loopback,
                Topology::RedirectPeer,
                Topology::RemoteMinicni,
                Topology::RemoteRouted,
                Topology::RemoteHosts,
            ],
            Self::Stream => &[
                Topology::Minicni,
                Topology::Routed,
                Topology::Plain,
                Topology::Bridge,
                Topology::BridgeAlone,
                Topology::Direct,
                Topology::Loopback,
                Topology::RedirectPeer,
                Topology::Flowtable,
                Topology::RemoteMinicni,
                Topology::RemoteRouted,
                Topology::RemoteHosts,
                Topology::RemoteVxlan,
            ],
            Self::Connections => &[
                Topology::Minicni,
                Topology::Routed,
                Topology::Plain,
                Topology::Bridge,
                Topology::Direct,
                Topology::Service,
                Topology::ServiceRouted,
                Topology::Flowtable,
            ],
            Self::CpuTime => &[
                Topology::Minicni,
                Topology::Routed,
                Topology::Plain,
                Topology::Bridge,
                Topology::Direct,
                Topology::RedirectPeer,
                Topology::Flowtable,
                Topology::RemoteMinicni,
                Topology::RemoteRouted,
            ],
        }
    }

    /// In words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TcpSameCpu => "TCP request/response, same CPU",
            Self::UdpSameCpu => "UDP request/response, same CPU",
            Self::TcpOtherCpu => "TCP request/response, different CPUs",
            Self::UdpOtherCpu => "UDP request/response, different CPUs",
            Self::Stream => "TCP stream",
            Self::Connections => "TCP connect, request, close",
            Self::CpuTime => "CPU per UDP datagram",
        }
    }

    /// What is counted, and a factor to it from the unit of the report.
    pub(super) fn unit(self) -> (&'static str, f64) {
        match self {
            Self::Stream => ("Gbit/s", 1e-9),
            Self::CpuTime => ("ns", 1.0),
            _ => ("k/s", 1e-3),
        }
    }

    /// Whether more is better.
    pub(super) fn more_is_better(self) -> bool {
        self != Self::CpuTime
    }
}
