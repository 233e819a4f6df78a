//! The axes of the matrix, and which of their combinations exist.

use std::fmt;

use serde::Serialize;

/// How the client addresses the server, and from where.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    DirectLocal,
    DirectRemote,
    ClusterIpLocal,
    ClusterIpItself,
    ClusterIpRemote,
    NodePortCluster,
    NodePortLocal,
    HostPortOutside,
    HostPortPod,
    ExternalIpOutside,
    ExternalIpPod,
    Egress,
}

impl Kind {
    pub(super) const ALL: [Self; 12] = [
        Self::DirectLocal,
        Self::DirectRemote,
        Self::ClusterIpLocal,
        Self::ClusterIpItself,
        Self::ClusterIpRemote,
        Self::NodePortCluster,
        Self::NodePortLocal,
        Self::HostPortOutside,
        Self::HostPortPod,
        Self::ExternalIpOutside,
        Self::ExternalIpPod,
        Self::Egress,
    ];

    /// For people.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::DirectLocal => "direct to a local pod",
            Self::DirectRemote => "direct to a remote pod",
            Self::ClusterIpLocal => "ClusterIP to a local pod",
            Self::ClusterIpItself => "ClusterIP to itself",
            Self::ClusterIpRemote => "ClusterIP to a remote pod",
            Self::NodePortCluster => "NodePort from outside, Cluster",
            Self::NodePortLocal => "NodePort from outside, Local",
            Self::HostPortOutside => "hostPort from outside",
            Self::HostPortPod => "hostPort from a local pod",
            Self::ExternalIpOutside => "externalIP from outside",
            Self::ExternalIpPod => "externalIP from a pod",
            Self::Egress => "masqueraded to outside",
        }
    }

    /// Whether nothing on the way changes an address or a port.
    pub(super) const fn is_direct(self) -> bool {
        matches!(self, Self::DirectLocal | Self::DirectRemote)
    }

    /// Whether packets may be on the fast path of some node: of one that sees them untranslated.
    pub(super) const fn may_be_fast(self) -> bool {
        self.is_direct() || matches!(self, Self::ClusterIpRemote | Self::NodePortCluster)
    }

    /// Whether the client is the host outside, not a pod.
    pub(super) const fn is_from_outside(self) -> bool {
        matches!(self, Self::NodePortCluster | Self::NodePortLocal | Self::HostPortOutside | Self::ExternalIpOutside)
    }

    /// Whether kube-proxy chooses among endpoints, which can be exchanged.
    const fn is_service(self) -> bool {
        matches!(
            self,
            Self::ClusterIpLocal
                | Self::ClusterIpRemote
                | Self::NodePortCluster
                | Self::NodePortLocal
                | Self::ExternalIpOutside
                | Self::ExternalIpPod
        )
    }

    /// Whether the client can reach the same pod directly, with the same ports on the way.
    const fn has_twin(self) -> bool {
        matches!(self, Self::ClusterIpLocal | Self::ClusterIpRemote | Self::HostPortPod | Self::ExternalIpPod)
    }
}

/// What is sent.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Traffic {
    Tcp,
    Udp,
    /// One UDP socket that talks to the pods and to the translated address.
    Twin,
    /// UDP, every fourth message larger than the MTU.
    Fragments,
    /// UDP to a port that nobody listens at.
    Unreachable,
    /// More than a narrow route behind the node lets through, over TCP, and over UDP that must not be fragmented.
    PathMtu,
}

impl Traffic {
    pub(super) const ALL: [Self; 6] =
        [Self::Tcp, Self::Udp, Self::Twin, Self::Fragments, Self::Unreachable, Self::PathMtu];

    /// For people.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Twin => "UDP twins",
            Self::Fragments => "fragments",
            Self::Unreachable => "port unreachable",
            Self::PathMtu => "path MTU",
        }
    }

    /// Whether it is a conversation that lasts over the phases, not a probe that each of them makes anew.
    pub(super) const fn lasts(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::Twin | Self::Fragments)
    }
}

/// When it is looked at, in the order of a run.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Phase {
    /// With fewer packets than a promotion needs.
    Before,
    /// With more.
    Promoted,
    /// After longer silence than conntrack remembers UDP.
    Idle,
    /// After other pods took the place of the service's endpoints.
    Backend,
    /// After the daemons were restarted.
    Restart,
    /// After every entry was deleted from the flow caches, with and without the shortcuts that are left of them.
    Flush,
    /// While connections end.
    Close,
    /// After a policy was inserted that drops everything.
    Policy,
}

impl Phase {
    pub(super) const ALL: [Self; 8] = [
        Self::Before,
        Self::Promoted,
        Self::Idle,
        Self::Backend,
        Self::Restart,
        Self::Flush,
        Self::Close,
        Self::Policy,
    ];

    /// Whether `--quick` has it.
    const fn is_quick(self) -> bool {
        matches!(self, Self::Before | Self::Promoted | Self::Close | Self::Policy)
    }
}

/// Who translates.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Rules {
    IptablesLegacy,
    IptablesNft,
    Nftables,
    Ipvs,
}

impl Rules {
    pub(super) const ALL: [Self; 4] = [Self::IptablesLegacy, Self::IptablesNft, Self::Nftables, Self::Ipvs];
}

/// Whether the node may set `nf_conntrack_tcp_be_liberal`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Conntrack {
    /// The daemon sets it to 1.
    Liberal,
    /// It is 0, and the daemon finds it read-only: TCP stays in the stack.
    Strict,
}

/// What one lab is made for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(super) struct Setting {
    pub(super) rules: Rules,
    pub(super) ipv6: bool,
    pub(super) conntrack: Conntrack,
}

impl Setting {
    /// Every lab of a run.
    pub(super) fn all(quick: bool) -> Vec<Self> {
        let conntracks = if quick { &[Conntrack::Liberal][..] } else { &[Conntrack::Liberal, Conntrack::Strict] };
        let mut all = Vec::new();
        for rules in Rules::ALL {
            for ipv6 in [false, true] {
                all.extend(conntracks.iter().map(|&conntrack| Self { rules, ipv6, conntrack }));
            }
        }
        all
    }

    /// Its cells, in the order in which they are looked at.
    pub(super) fn cells(self, quick: bool) -> Vec<Cell> {
        let mut cells = Vec::new();
        for phase in Phase::ALL.into_iter().filter(|phase| !quick || phase.is_quick()) {
            for kind in Kind::ALL {
                cells.extend(Traffic::ALL.map(|traffic| Cell { setting: self, kind, traffic, phase }));
            }
        }
        cells.retain(|cell| cell.exists());
        cells
    }
}

/// One square of the matrix.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(super) struct Cell {
    #[serde(flatten)]
    pub(super) setting: Setting,
    pub(super) kind: Kind,
    pub(super) traffic: Traffic,
    pub(super) phase: Phase,
}

impl Cell {
    fn exists(self) -> bool {
        let Self { setting, kind, traffic, phase } = self;
        // Conntrack is strict with TCP alone.
        if setting.conntrack == Conntrack::Strict && traffic != Traffic::Tcp {
            return false;
        }
        let traffic_exists = match traffic {
            // IPVS does not keep such flows apart, with or without minicni: it changes no port, and takes the answers to the
            // one for answers to the other.
            Traffic::Twin => kind.has_twin() && (setting.rules != Rules::Ipvs || kind == Kind::HostPortPod),
            // The pod's own interface is as wide as the pod thinks.
            Traffic::PathMtu => kind != Kind::ClusterIpItself,
            _ => true,
        };
        let phase_exists = match phase {
            Phase::Before | Phase::Promoted | Phase::Restart | Phase::Flush => true,
            // A probe has nothing that could expire.
            Phase::Idle => traffic.lasts(),
            Phase::Backend => kind.is_service(),
            Phase::Close => traffic == Traffic::Tcp,
            Phase::Policy => matches!(traffic, Traffic::Tcp | Traffic::Udp),
        };
        traffic_exists && phase_exists
    }
}

/// `iptables-nft/ipv4/liberal/cluster-ip-local/tcp/promoted`
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, kind, traffic, phase } = self;
        write!(f, "{setting}/{}/{}/{}", word(kind), word(traffic), word(phase))
    }
}

/// `iptables-nft/ipv4/liberal`
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.ipv6 { "ipv6" } else { "ipv4" };
        write!(f, "{}/{family}/{}", word(self.rules), word(self.conntrack))
    }
}

/// A value as it stands in JSON.
pub(super) fn word(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(conntrack: Conntrack, quick: bool) -> Vec<Cell> {
        Setting { rules: Rules::Nftables, ipv6: true, conntrack }.cells(quick)
    }

    #[test]
    fn the_short_run_has_every_kind_and_every_set_of_rules() {
        let settings = Setting::all(true);
        assert_eq!(settings.len(), 2 * Rules::ALL.len());
        for kind in Kind::ALL {
            assert!(cells(Conntrack::Liberal, true).iter().any(|cell| cell.kind == kind), "{kind:?}");
        }
    }

    #[test]
    fn every_phase_and_every_traffic_is_in_the_long_run() {
        let cells = cells(Conntrack::Liberal, false);
        assert!(Phase::ALL.iter().all(|phase| cells.iter().any(|cell| cell.phase == *phase)));
        assert!(Traffic::ALL.iter().all(|traffic| cells.iter().any(|cell| cell.traffic == *traffic)));
    }

    #[test]
    fn strict_conntrack_is_about_tcp() {
        assert!(cells(Conntrack::Strict, false).iter().all(|cell| cell.traffic == Traffic::Tcp));
    }

    #[test]
    fn a_cell_has_a_name_that_can_be_asked_for() {
        let setting = Setting { rules: Rules::IptablesNft, ipv6: false, conntrack: Conntrack::Liberal };
        let cell = Cell { setting, kind: Kind::ClusterIpLocal, traffic: Traffic::Tcp, phase: Phase::Promoted };
        assert_eq!(cell.to_string(), "iptables-nft/ipv4/liberal/cluster-ip-local/tcp/promoted");
    }
}
