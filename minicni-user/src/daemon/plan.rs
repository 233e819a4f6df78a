//! What routes should be there, and what has to change. Pure: reads and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::next_hops::{NextHops, Tunnel, no_address};
use super::nodes::Node;
use super::problems::Reason;
use super::underlay::Underlay;

/// The number that marks a kernel route as minicni's (`rtm_protocol`); only such routes are ever changed or removed.
///
/// Neither `RTPROT_*` of the kernel's `linux/rtnetlink.h` nor `rt_protos` of iproute2 assigns it.
pub const ROUTE_PROTOCOL: u8 = 109;

/// The metric of our IPv6 routes: what the kernel makes of none at all. It is always named, so that a route reads back
/// as it was asked for: `IP6_RT_PRIO_USER`, <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/ipv6_route.h>
const IPV6_METRIC: u32 = 1024;

/// What a route wraps packets into.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encap {
    /// VXLAN. Over IPv6 the outer UDP checksum is there, as RFC 8200 asks for; it costs next to nothing, because it follows
    /// from the inner one: <https://docs.kernel.org/networking/checksum-offloads.html#lco-local-checksum-offload>
    Vxlan {
        /// The VXLAN network identifier.
        vni: u32,
        /// The address of the node at the other end.
        remote: IpAddr,
    },
    /// Anything that we do not make.
    Other,
}

impl fmt::Display for Encap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vxlan { vni, remote } => write!(f, "vxlan id {vni} to {remote}"),
            Self::Other => f.write_str("another encapsulation"),
        }
    }
}

/// One kernel route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteSpec {
    /// Destination, without host bits.
    pub dst: IpNet,
    /// Next hop; `None` if the route has none, or several.
    pub gateway: Option<IpAddr>,
    /// Index of the interface it leaves by; `None` if the route has none, or several.
    pub ifindex: Option<u32>,
    /// The address that this host itself uses by it (`RTA_PREFSRC`); `None` leaves the choice to the kernel.
    pub source: Option<IpAddr>,
    /// The tunnel's end; `None` for a route without.
    pub encap: Option<Encap>,
    /// Metric (`RTA_PRIORITY`); the kernel takes the lowest. Ours is [`metric()`].
    pub metric: u32,
    /// Who made it (`rtm_protocol`).
    pub protocol: u8,
}

impl RouteSpec {
    /// A route of ours by way of a node that is on-link.
    pub(super) fn direct(dst: IpNet, gateway: IpAddr, ifindex: u32) -> Self {
        Self {
            dst,
            gateway: Some(gateway),
            ifindex: Some(ifindex),
            source: None,
            encap: None,
            metric: metric(dst),
            protocol: ROUTE_PROTOCOL,
        }
    }

    /// A route of ours through the tunnel device.
    pub(super) fn encapsulated(dst: IpNet, encap: Encap, ifindex: u32, source: Option<IpAddr>) -> Self {
        Self {
            dst,
            gateway: None,
            ifindex: Some(ifindex),
            source,
            encap: Some(encap),
            metric: metric(dst),
            protocol: ROUTE_PROTOCOL,
        }
    }
}

impl fmt::Display for RouteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dst)?;
        if let Some(encap) = &self.encap {
            write!(f, " in {encap}")?;
        }
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(ifindex) = self.ifindex {
            write!(f, " dev #{ifindex}")?;
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        Ok(())
    }
}

/// The metric of our routes to a destination.
pub fn metric(dst: IpNet) -> u32 {
    match dst {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => IPV6_METRIC,
    }
}

/// An address of this host, on an interface that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalPrefix {
    /// Index of the interface.
    pub ifindex: u32,
    /// Name of the interface.
    pub ifname: String,
    /// The host's own address.
    pub address: IpAddr,
    /// What the address makes directly reachable, without host bits.
    pub on_link: IpNet,
    /// The interface's MTU in bytes.
    pub mtu: u32,
}

/// A node that gets no route, or not all: what a person has to know. The other nodes are not affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Of what kind it is.
    pub reason: Reason,
    /// Name of the node.
    pub node: String,
    /// The field of the Node object, as a path.
    pub field: &'static str,
    /// Its value, and what is wrong with it.
    pub why: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}: {} {}; {}", self.node, self.field, self.why, self.remedy)
    }
}

const POD_CIDR: &str = "spec.podCIDR";
pub(super) const INTERNAL_IP: &str = "status.addresses[InternalIP]";

/// One change of the kernel's routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Add, if no route has that destination and metric.
    Add(RouteSpec),
    /// Put `new` where `old` is, without a moment in which there is none. Both have the same destination and metric.
    Replace {
        /// What is there.
        old: RouteSpec,
        /// What shall be there.
        new: RouteSpec,
    },
    /// Remove exactly this one.
    Delete(RouteSpec),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(route) => write!(f, "add the route {route}"),
            Self::Replace { old, new } => write!(f, "replace the route {old} by {new}"),
            Self::Delete(route) => write!(f, "delete the route {route}"),
        }
    }
}

/// The routes that the node `own` needs to reach the pods of all others: one per pod CIDR, through the node's `InternalIP`
/// of the same family or through the tunnel, sorted by destination; no two overlap.
pub fn desired(
    nodes: &[Node],
    own: &Node,
    underlay: &Underlay,
    tunnel: Option<Tunnel>,
) -> (Vec<RouteSpec>, Vec<Problem>) {
    let mut problems = Vec::new();
    let next_hops = NextHops { underlay, tunnel, own_cidrs: &own.pod_cidrs };
    let mut routes = Vec::new();
    for (dst, node) in pod_cidrs(nodes, &own.name, &mut problems) {
        if node.name != own.name {
            match next_hops.route(node, dst) {
                Ok(route) => routes.push(route),
                Err(problem) => problems.push(problem),
            }
        } else if tunnel.is_none() && same_family(&node.internal_ips, dst).is_empty() {
            problems.push(no_address(node, dst));
        }
    }
    (routes, problems)
}

/// Nobody says what this node is.
pub(super) fn no_node(me: &str) -> Problem {
    Problem {
        reason: Reason::NodeMissing,
        node: me.to_owned(),
        field: "metadata.name",
        why: "is this node's name, but no Node has it; no route is changed meanwhile".to_owned(),
        remedy: "start the daemon with the name of this host's Node, or add the Node",
    }
}

/// A node has no pods, as far as anybody knows.
pub(super) fn no_pod_cidr(node: &Node) -> Problem {
    Problem {
        reason: Reason::PodCidrMissing,
        node: node.name.clone(),
        field: POD_CIDR,
        why: "is missing".to_owned(),
        remedy: "let the controller manager assign one (--allocate-node-cidrs), or write one into the nodes file",
    }
}

/// Those of the addresses that have the family of a prefix.
pub(super) fn same_family(ips: &[IpAddr], prefix: IpNet) -> Vec<IpAddr> {
    ips.iter().copied().filter(|ip| ip.is_ipv4() == prefix.addr().is_ipv4()).collect()
}

pub(super) fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The pod CIDRs that may be routed, each with its node, sorted and disjoint.
fn pod_cidrs<'a>(nodes: &'a [Node], me: &str, problems: &mut Vec<Problem>) -> Vec<(IpNet, &'a Node)> {
    let mut cidrs = Vec::new();
    for node in nodes {
        cidrs.extend(node.pod_cidrs.iter().map(|cidr| (cidr.trunc(), node)));
        if node.pod_cidrs.is_empty() {
            problems.push(no_pod_cidr(node));
        }
    }
    // Outer before inner; of equals this node's own, which must not be routed away, then the first by name.
    cidrs.sort_by_key(|(cidr, node)| (cidr.network(), cidr.prefix_len(), node.name != me, &node.name));
    let node_ips: BTreeMap<IpAddr, &str> =
        nodes.iter().flat_map(|node| node.internal_ips.iter().map(|ip| (*ip, node.name.as_str()))).collect();

    let mut accepted: Vec<(IpNet, &Node)> = Vec::new();
    for (cidr, node) in cidrs {
        let why = if let Some((ip, other)) = node_ips.range(cidr.network()..=cidr.broadcast()).next() {
            format!("{cidr} covers the InternalIP {ip} of node {other}, which could not be reached any more")
        } else if let Some((outer, other)) = accepted.last().filter(|(outer, _)| outer.contains(&cidr)) {
            format!("{cidr} overlaps {outer} of node {}", other.name)
        } else {
            accepted.push((cidr, node));
            continue;
        };
        let remedy = "give every node a pod CIDR of its own, apart from all other networks";
        let reason = Reason::PodCidrConflict;
        problems.push(Problem { reason, node: node.name.clone(), field: POD_CIDR, why, remedy });
    }
    accepted
}

/// The changes that turn our routes in `actual` into `desired`: mark what is wanted, sweep the rest.
///
/// Routes of other protocols are not looked at. No two of `desired` have the same destination and metric. Deletions come
/// last, so that a route that moves is never missing.
pub fn plan(desired: &[RouteSpec], actual: &[RouteSpec]) -> Vec<Op> {
    let ours: Vec<&RouteSpec> = actual.iter().filter(|route| route.protocol == ROUTE_PROTOCOL).collect();
    let present: BTreeSet<&RouteSpec> = ours.iter().copied().collect();
    // The kernel replaces the first of several routes with one destination and metric; a dump keeps their order.
    let mut first = BTreeMap::new();
    for route in &ours {
        first.entry((route.dst, route.metric)).or_insert(*route);
    }

    let mut kept: BTreeSet<&RouteSpec> = BTreeSet::new();
    let mut ops = Vec::new();
    for route in desired {
        if present.contains(route) {
            kept.insert(route);
        } else if let Some(old) = first.get(&(route.dst, route.metric)) {
            kept.insert(old);
            ops.push(Op::Replace { old: (*old).clone(), new: route.clone() });
        } else {
            ops.push(Op::Add(route.clone()));
        }
    }
    ops.extend(ours.into_iter().filter(|route| !kept.contains(route)).cloned().map(Op::Delete));
    ops
}

#[cfg(test)]
mod tests;
