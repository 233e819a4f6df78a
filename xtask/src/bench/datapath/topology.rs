use serde::{Deserialize, Serialize};

use super::peers::PeerId;

/// What lies between client and server.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Topology {
    /// Two pods of minicni on a node with kube-proxy's rules.
    Minicni,
    /// As [`Topology::Minicni`], on a node with many pods and routes.
    Crowded,
    /// The same wiring without our programs, and the same rules.
    Routed,
    /// The same wiring without our programs, on a node without netfilter.
    Plain,
    /// As [`Topology::Routed`], with an empty program at each hook where one of ours stands: what any program costs.
    Empty,
    /// The bridge plugin's, with `br_netfilter` and the same rules.
    Bridge,
    /// The bridge plugin's without `br_netfilter`: no rule sees the pods' packets.
    BridgeAlone,
    /// As [`Topology::Routed`], with an nftables flowtable.
    Flowtable,
    /// A program that redirects every packet to the other pod, whatever it is.
    RedirectPeer,
    /// A veth pair from the one to the other: no node in between.
    Direct,
    /// One namespace.
    Loopback,
    /// As [`Topology::Minicni`], through an address that the node translates.
    Service,
    /// As [`Topology::Routed`], through an address that the node translates.
    ServiceRouted,
    /// As [`Topology::Empty`], through an address that the node translates.
    ServiceEmpty,
    /// Pods of minicni on two nodes with kube-proxy's rules.
    RemoteMinicni,
    /// The same without our programs.
    RemoteRouted,
    /// The two nodes themselves.
    RemoteHosts,
    /// As [`Topology::RemoteRouted`], through a VXLAN tunnel as flannel makes it.
    RemoteVxlan,
    /// [`Topology::Routed`] once more, the same pods: what one thing differs from itself in a run.
    RoutedAgain,
    /// A peer that is a file of [`super::peers`].
    Peer(PeerId),
}

impl Topology {
    /// All but the peers.
    pub(super) const OWN: [Self; 19] = [
        Self::Minicni,
        Self::Crowded,
        Self::Routed,
        Self::Plain,
        Self::Empty,
        Self::Bridge,
        Self::BridgeAlone,
        Self::Flowtable,
        Self::RedirectPeer,
        Self::Direct,
        Self::Loopback,
        Self::Service,
        Self::ServiceRouted,
        Self::ServiceEmpty,
        Self::RemoteMinicni,
        Self::RemoteRouted,
        Self::RemoteHosts,
        Self::RemoteVxlan,
        Self::RoutedAgain,
    ];

    /// All, in the order in which they are shown.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        Self::OWN.into_iter().chain(PeerId::all().map(Self::Peer))
    }

    /// Where the nodes and pods are.
    pub(super) fn place(self) -> Self {
        if self == Self::RoutedAgain { Self::Routed } else { self }
    }

    /// Those of one number are compared with one another, and therefore measured one after another.
    pub(super) fn neighbourhood(self) -> usize {
        match self {
            Self::Minicni
            | Self::Crowded
            | Self::Routed
            | Self::RoutedAgain
            | Self::Plain
            | Self::Empty
            | Self::Direct
            | Self::Bridge
            | Self::BridgeAlone => 0,
            Self::Service | Self::ServiceRouted | Self::ServiceEmpty => 1,
            Self::RemoteMinicni | Self::RemoteRouted | Self::RemoteHosts | Self::RemoteVxlan => 2,
            Self::Flowtable | Self::RedirectPeer | Self::Loopback | Self::Peer(_) => 3,
        }
    }

    /// What none of its kind can exceed.
    pub(super) fn ceiling(self) -> Self {
        match self.neighbourhood() {
            2 => Self::RemoteHosts,
            _ => Self::Direct,
        }
    }

    /// What others of its kind are compared with.
    pub(super) fn baseline(self) -> Self {
        match self {
            Self::RemoteMinicni | Self::RemoteRouted | Self::RemoteHosts | Self::RemoteVxlan => Self::RemoteRouted,
            Self::Service | Self::ServiceRouted | Self::ServiceEmpty => Self::ServiceRouted,
            _ => Self::Routed,
        }
    }

    /// In words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Minicni => "minicni",
            Self::Crowded => "minicni, many pods and routes",
            Self::Routed => "routed, conntrack",
            Self::Plain => "routed, no netfilter",
            Self::Empty => "routed, conntrack, empty programs",
            Self::Bridge => "bridge, conntrack",
            Self::BridgeAlone => "bridge, no netfilter",
            Self::Flowtable => "routed, nftables flowtable",
            Self::RedirectPeer => "redirect_peer of everything",
            Self::Direct => "direct veth pair",
            Self::Loopback => "loopback",
            Self::Service => "ClusterIP, minicni",
            Self::ServiceRouted => "ClusterIP, routed",
            Self::ServiceEmpty => "ClusterIP, routed, empty programs",
            Self::RemoteMinicni => "two nodes: minicni",
            Self::RemoteRouted => "two nodes: routed, conntrack",
            Self::RemoteHosts => "two nodes: host to host",
            Self::RemoteVxlan => "two nodes: VXLAN",
            Self::RoutedAgain => "routed, conntrack, once more",
            Self::Peer(id) => id.peer().name,
        }
    }
}
