//! What is dialled for each kind of cell, who answers, and the rules that make it so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use ipnet::IpNet;

use super::{bed::Bed, matrix::Kind};
use crate::lab::{
    Node,
    rules::{
        host_port::{self, HostPort},
        kube_proxy::{Endpoint, KubeProxy, Service},
        masquerade,
    },
    traffic::Protocol,
};

/// Where every pod answers.
pub(super) const PORT: u16 = 8080;
/// Where none does, but for a while.
pub(super) const CLOSED_PORT: u16 = 8081;
/// What is behind the externalIP, seen from outside.
pub(super) const EXTERNAL_PREFIX4: &str = "203.0.113.0/24";
/// As [`EXTERNAL_PREFIX4`].
pub(super) const EXTERNAL_PREFIX6: &str = "2001:db8:113::/64";

const PODS4: &str = "10.244.0.0/16";
const PODS6: &str = "fd44::/48";
const VIRTUAL4: &str = "10.96.0.0/16";
const VIRTUAL6: &str = "fd96::/112";
const HOST_PORT: u16 = 18_080;

/// The doors of a server: each kind of cell has its own address or port for each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Door {
    /// Somebody answers.
    Open,
    /// Nobody does.
    Closed,
    /// Somebody does, behind a narrow route.
    Narrow,
}

impl Door {
    const ALL: [Self; 3] = [Self::Open, Self::Closed, Self::Narrow];

    const fn number(self) -> u16 {
        self as u16
    }

    const fn pod_port(self) -> u16 {
        if matches!(self, Self::Closed) { CLOSED_PORT } else { PORT }
    }
}

/// Addresses by name, and what follows from them.
pub(super) struct Targets {
    ipv6: bool,
    node: IpAddr,
    pods: Vec<(&'static str, IpAddr, u8)>,
    /// The host outside.
    pub(super) outside: IpAddr,
    /// Its second address, to which the node has a narrow route.
    pub(super) narrow_outside: IpAddr,
}

/// The services: their kind, the last byte of their `ClusterIP`, and their endpoints before and after the switch.
const SERVICES: [(Kind, u8, &[&str], &[&str]); 6] = [
    (Kind::ClusterIpLocal, 10, &["b", "c"], &["d"]),
    (Kind::ClusterIpItself, 11, &["a"], &["a"]),
    (Kind::ClusterIpRemote, 12, &["r", "s"], &["t"]),
    (Kind::NodePortCluster, 13, &["b", "r"], &["d", "s"]),
    (Kind::NodePortLocal, 14, &["b", "c", "r"], &["d", "s"]),
    (Kind::ExternalIpOutside, 15, &["b", "c"], &["d"]),
];

impl Targets {
    pub(super) fn new(ipv6: bool, node: &Node, address: impl Fn(&str) -> Result<IpAddr>) -> Result<Self> {
        let names = [("a", 1), ("b", 1), ("c", 1), ("d", 1), ("n", 1), ("r", 2), ("s", 2), ("t", 2), ("m", 2)];
        let pods = names.into_iter().map(|(name, node)| Ok((name, address(name)?, node))).collect::<Result<_>>()?;
        let outside = |last: u8| -> IpAddr {
            if ipv6 {
                Ipv6Addr::new(0xfd77, 0x77, 0, 0, 0, 0, 0, last.into()).into()
            } else {
                Ipv4Addr::new(192, 168, 77, last).into()
            }
        };
        let node = if ipv6 { node.address6.into() } else { node.address.into() };
        Ok(Self { ipv6, node, pods, outside: outside(9), narrow_outside: outside(10) })
    }

    /// The address of a pod.
    pub(super) fn pod(&self, name: &str) -> IpAddr {
        let found = self.pods.iter().find(|(pod, ..)| *pod == name);
        found.map_or(self.outside, |(_, address, _)| *address)
    }

    /// What the client of a cell dials.
    pub(super) fn dialled(&self, kind: Kind, door: Door) -> SocketAddr {
        let narrow = door == Door::Narrow;
        let pod = |usual, last| SocketAddr::new(self.pod(if narrow { last } else { usual }), door.pod_port());
        match kind {
            Kind::DirectLocal => pod("b", "n"),
            Kind::DirectRemote => pod("r", "m"),
            Kind::NodePortCluster => SocketAddr::new(self.node, 30_080 + door.number()),
            Kind::NodePortLocal => SocketAddr::new(self.node, 31_080 + door.number()),
            Kind::HostPortOutside | Kind::HostPortPod => SocketAddr::new(self.node, HOST_PORT + door.number()),
            Kind::ExternalIpOutside | Kind::ExternalIpPod => SocketAddr::new(self.external(), 80 + door.number()),
            Kind::Egress => SocketAddr::new(if narrow { self.narrow_outside } else { self.outside }, door.pod_port()),
            Kind::ClusterIpLocal | Kind::ClusterIpItself | Kind::ClusterIpRemote => {
                let last = SERVICES.iter().find(|(service, ..)| *service == kind).map_or(0, |(_, last, ..)| *last);
                SocketAddr::new(self.virtual_ip(last), 80 + door.number())
            }
        }
    }

    /// Who may answer, before or after the switch of endpoints.
    pub(super) fn answering(&self, kind: Kind, door: Door, switched: bool) -> Vec<&'static str> {
        if door == Door::Narrow {
            return vec![match kind {
                Kind::Egress => "outside",
                Kind::DirectRemote | Kind::ClusterIpRemote => "m",
                _ => "n",
            }];
        }
        let of = if kind == Kind::ExternalIpPod { Kind::ExternalIpOutside } else { kind };
        if let Some((_, _, before, after)) = SERVICES.iter().find(|(service, ..)| *service == of) {
            let mut names = if switched { after.to_vec() } else { before.to_vec() };
            // No endpoint of another node.
            names.retain(|name| kind != Kind::NodePortLocal || self.node_of(name) == 1);
            return names;
        }
        match kind {
            Kind::DirectRemote => vec!["r"],
            Kind::Egress => vec!["outside"],
            _ => vec!["b"],
        }
    }

    /// Whom the server is to see.
    pub(super) fn seen(&self, kind: Kind) -> IpAddr {
        match kind {
            Kind::NodePortLocal | Kind::HostPortOutside => self.outside,
            Kind::ClusterIpItself
            | Kind::NodePortCluster
            | Kind::ExternalIpOutside
            | Kind::ExternalIpPod
            | Kind::Egress => self.node,
            _ => self.pod("a"),
        }
    }

    /// Where the pods behind a translated address can be reached directly, before and after the switch.
    pub(super) fn twins(&self, kind: Kind) -> Vec<(&'static str, SocketAddr)> {
        let names = [false, true].map(|switched| self.answering(kind, Door::Open, switched)).concat();
        let mut twins: Vec<_> = names.into_iter().map(|name| (name, SocketAddr::new(self.pod(name), PORT))).collect();
        twins.dedup();
        twins
    }

    /// All services with their first endpoints.
    pub(super) fn services(&self) -> Vec<Service> {
        let mut services = self.background();
        for (kind, last, before, _) in SERVICES {
            for door in Door::ALL {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    services.push(self.service(kind, last, before, door, protocol));
                }
            }
        }
        services
    }

    /// Gives the services their second endpoints.
    pub(super) fn switch(&self, services: &mut [Service]) {
        for (_, last, _, after) in SERVICES {
            let ip = self.virtual_ip(last);
            for service in services.iter_mut().filter(|service| service.cluster.ip() == ip) {
                let narrow = service.cluster.port() == 80 + Door::Narrow.number();
                if !narrow {
                    let port = service.endpoints.first().map_or(PORT, |endpoint| endpoint.address.port());
                    service.endpoints = after.iter().map(|name| self.endpoint(name, port)).collect();
                }
            }
        }
    }

    fn service(&self, kind: Kind, last: u8, endpoints: &[&str], door: Door, protocol: Protocol) -> Service {
        let narrow = if kind == Kind::ClusterIpRemote { "m" } else { "n" };
        let endpoints = if door == Door::Narrow { &[narrow][..] } else { endpoints };
        let node_port = match kind {
            Kind::NodePortCluster | Kind::NodePortLocal => Some(self.dialled(kind, door).port()),
            _ => None,
        };
        Service {
            name: format!("traps/service{last}:p{}", door.number()),
            protocol,
            cluster: SocketAddr::new(self.virtual_ip(last), 80 + door.number()),
            node_port,
            external_ips: if kind == Kind::ExternalIpOutside { vec![self.external()] } else { Vec::new() },
            local_only: kind == Kind::NodePortLocal,
            endpoints: endpoints.iter().map(|name| self.endpoint(name, door.pod_port())).collect(),
        }
    }

    /// Services that nobody dials, so that lookups are as on a node in use.
    fn background(&self) -> Vec<Service> {
        let service = |last: u8| Service {
            name: format!("kube-system/other{last}:dns"),
            protocol: if last.is_multiple_of(2) { Protocol::Tcp } else { Protocol::Udp },
            cluster: SocketAddr::new(self.virtual_ip(last), 53),
            node_port: None,
            external_ips: Vec::new(),
            local_only: false,
            endpoints: ["b", "c", "r"].map(|name| self.endpoint(name, 53)).to_vec(),
        };
        (100..120).map(service).collect()
    }

    fn endpoint(&self, name: &str, port: u16) -> Endpoint {
        Endpoint { address: SocketAddr::new(self.pod(name), port), node: self.node_of(name) }
    }

    fn node_of(&self, name: &str) -> u8 {
        self.pods.iter().find(|(pod, ..)| *pod == name).map_or(0, |(.., node)| *node)
    }

    fn virtual_ip(&self, last: u8) -> IpAddr {
        if self.ipv6 {
            Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, last.into()).into()
        } else {
            Ipv4Addr::new(10, 96, 0, last).into()
        }
    }

    fn external(&self) -> IpAddr {
        if self.ipv6 {
            Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 10).into()
        } else {
            Ipv4Addr::new(203, 0, 113, 10).into()
        }
    }
}

/// Puts the rules of kube-proxy, of portmap and of ip-masq-agent on the nodes.
pub(super) fn install(bed: &Bed) -> Result<()> {
    let targets = &bed.targets;
    let [pods, virtual_ips] = prefixes(targets.ipv6)?;
    for node in &bed.lab.nodes {
        proxy(bed, node)?.start(node, bed.backend)?;
        masquerade::leaving(node, bed.backend, pods, &[virtual_ips])?;
    }
    let host_port = |door: Door, name: &str| HostPort {
        port: HOST_PORT + door.number(),
        pod: SocketAddr::new(targets.pod(name), door.pod_port()),
    };
    let ports = [host_port(Door::Open, "b"), host_port(Door::Closed, "b"), host_port(Door::Narrow, "n")];
    host_port::map(bed.node(), bed.backend, &ports)
}

/// Gives every service its second endpoints, and makes conntrack forget the UDP flows to the first, as kube-proxy does.
pub(super) fn switch(bed: &mut Bed) -> Result<()> {
    let mut services = bed.services.clone();
    bed.targets.switch(&mut services);
    let before = std::mem::replace(&mut bed.services, services);
    for node in &bed.lab.nodes {
        proxy(bed, node)?.sync(node, bed.backend)?;
    }
    let family = if bed.setting.ipv6 { "ipv6" } else { "ipv4" };
    for (old, new) in before.iter().zip(&bed.services).filter(|(old, _)| old.protocol == Protocol::Udp) {
        for gone in old.endpoints.iter().filter(|endpoint| !new.endpoints.contains(endpoint)) {
            let pod = gone.address.ip().to_string();
            for port in [Some(old.cluster.port()), old.node_port].into_iter().flatten() {
                let port = port.to_string();
                let delete = ["-D", "-f", family, "-p", "udp", "--dport", &port, "--dst-nat", &pod];
                // It fails where there is none.
                let _ = bed.node().netns.run(|| std::process::Command::new("conntrack").args(delete).output())?;
            }
        }
    }
    Ok(())
}

fn proxy<'a>(bed: &'a Bed, node: &Node) -> Result<KubeProxy<'a>> {
    let [pods, virtual_ips] = prefixes(bed.setting.ipv6)?;
    let node_ip = if bed.setting.ipv6 { node.address6.into() } else { node.address.into() };
    Ok(KubeProxy { pods, virtual_ips, node_ip, node: node.number, services: &bed.services })
}

/// Those of the pods and of the virtual addresses.
fn prefixes(ipv6: bool) -> Result<[IpNet; 2]> {
    let [pods, virtual_ips] = if ipv6 { [PODS6, VIRTUAL6] } else { [PODS4, VIRTUAL4] };
    Ok([pods.parse()?, virtual_ips.parse()?])
}
