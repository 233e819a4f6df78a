use serde::{Deserialize, Serialize};

use super::{peers::PeerId, topology::Topology};

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
    /// Eight TCP connections as fast as they go, clients on one CPU, servers on another.
    Streams,
    /// As [`Workload::Stream`], with a packet for every segment.
    StreamNoGso,
    /// As [`Workload::Streams`], with a packet for every segment.
    StreamsNoGso,
    /// Connect, request, answer, close; on one CPU.
    Connections,
    /// CPU time of UDP datagrams in one direction, at a fixed rate; on one CPU.
    CpuTime,
}

impl Workload {
    pub(super) const ALL: [Self; 10] = [
        Self::TcpSameCpu,
        Self::UdpSameCpu,
        Self::TcpOtherCpu,
        Self::UdpOtherCpu,
        Self::Stream,
        Self::Streams,
        Self::StreamNoGso,
        Self::StreamsNoGso,
        Self::Connections,
        Self::CpuTime,
    ];

    /// Whether client and server are on one CPU, so that a machine with one will do.
    pub(super) fn is_on_one_cpu(self) -> bool {
        matches!(self, Self::TcpSameCpu | Self::UdpSameCpu | Self::Connections | Self::CpuTime)
    }

    /// Whether no target is about it, although it takes long.
    pub(super) fn is_seldom(self) -> bool {
        matches!(self, Self::Streams | Self::StreamNoGso | Self::StreamsNoGso)
    }

    /// Where it is measured.
    pub(super) fn topologies(self) -> Vec<Topology> {
        let peers = PeerId::all().filter(|id| id.peer().workloads.contains(&self));
        self.own_topologies().iter().copied().chain(peers.map(Topology::Peer)).collect()
    }

    fn own_topologies(self) -> &'static [Topology] {
        match self {
            Self::TcpSameCpu | Self::UdpSameCpu => &Topology::OWN,
            Self::TcpOtherCpu | Self::UdpOtherCpu => &[
                Topology::Minicni,
                Topology::Routed,
                Topology::RoutedAgain,
                Topology::Plain,
                Topology::Bridge,
                Topology::Direct,
                Topology::Loopback,
                Topology::RedirectPeer,
                Topology::RemoteMinicni,
                Topology::RemoteRouted,
                Topology::RemoteHosts,
            ],
            Self::Stream | Self::Streams | Self::StreamNoGso | Self::StreamsNoGso => &[
                Topology::Minicni,
                Topology::Routed,
                Topology::RoutedAgain,
                Topology::Plain,
                Topology::Bridge,
                Topology::BridgeAlone,
                Topology::Direct,
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
                Topology::RoutedAgain,
                Topology::Plain,
                Topology::Empty,
                Topology::Bridge,
                Topology::Direct,
                Topology::Service,
                Topology::ServiceRouted,
                Topology::ServiceEmpty,
                Topology::Flowtable,
            ],
            Self::CpuTime => &[
                Topology::Minicni,
                Topology::Routed,
                Topology::RoutedAgain,
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
            Self::Streams => "8 TCP streams",
            Self::StreamNoGso => "TCP stream, no GSO",
            Self::StreamsNoGso => "8 TCP streams, no GSO",
            Self::Connections => "TCP connect, request, close",
            Self::CpuTime => "CPU per UDP datagram of 64 bytes",
        }
    }

    /// What is counted, and a factor to it from the unit of the report.
    pub(super) fn unit(self) -> (&'static str, f64) {
        match self {
            Self::Stream | Self::Streams | Self::StreamNoGso | Self::StreamsNoGso => ("Gbit/s", 1e-9),
            Self::CpuTime => ("ns", 1.0),
            _ => ("k/s", 1e-3),
        }
    }

    /// Whether a packet is far more than a segment, so that only whether any was redirected is counted.
    pub(super) fn is_stream(self) -> bool {
        matches!(self, Self::Stream | Self::Streams | Self::StreamNoGso | Self::StreamsNoGso)
    }

    /// Whether more is better.
    pub(super) fn more_is_better(self) -> bool {
        self != Self::CpuTime
    }
}
