//! What routes should be there, and what has to change. Pure: reads and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::nodes::Node;
use super::problems::Reason;

/// The number that marks a kernel route as minicni's (`rtm_protocol`); only such routes are ever changed or removed.
///
/// Neither `RTPROT_*` of the kernel's `linux/rtnetlink.h` nor `rt_protos` of iproute2 assigns it.
pub const ROUTE_PROTOCOL: u8 = 109;

/// The metric of our IPv6 routes: what the kernel makes of none at all. It is always named, so that a route reads back
/// as it was asked for: `IP6_RT_PRIO_USER`, <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/ipv6_route.h>
const IPV6_METRIC: u32 = 1024;

/// One kernel route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteSpec {
    /// Destination, without host bits.
    pub dst: IpNet,
    /// Next hop; `None` if the route has none, or several.
    pub gateway: Option<IpAddr>,
    /// Index of the interface it leaves by; `None` if the route has none, or several.
    pub ifindex: Option<u32>,
    /// Metric (`RTA_PRIORITY`); the kernel takes the lowest. Ours is [`metric()`].
    pub metric: u32,
    /// Who made it (`rtm_protocol`).
    pub protocol: u8,
}

impl fmt::Display for RouteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dst)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(ifindex) = self.ifindex {
            write!(f, " dev #{ifindex}")?;
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
const INTERNAL_IP: &str = "status.addresses[InternalIP]";

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

/// The routes that the node `me` needs to reach the pods of all others: one per pod CIDR, through the node's `InternalIP`
/// of the same family, sorted by destination; no two overlap.
pub fn desired(nodes: &[Node], me: &str, local: &[LocalPrefix]) -> (Vec<RouteSpec>, Vec<Problem>) {
    let mut problems = Vec::new();
    let own = nodes.iter().find(|node| node.name == me);
    if own.is_none() {
        problems.push(Problem {
            reason: Reason::NodeMissing,
            node: me.to_owned(),
            field: "metadata.name",
            why: "is this node's name, but no Node has it".to_owned(),
            remedy: "start the daemon with the name of this host's Node, or add the Node",
        });
    }
    let next_hops = NextHops { local, own_ips: own.map_or(&[], |node| &node.internal_ips) };
    let mut routes = Vec::new();
    for (dst, node) in pod_cidrs(nodes, me, &mut problems) {
        let ips = same_family(&node.internal_ips, dst);
        if ips.is_empty() {
            problems.push(Problem {
                reason: Reason::NodeUnreachable,
                node: node.name.clone(),
                field: INTERNAL_IP,
                why: format!("has no {} address, though there is the pod CIDR {dst}", family(dst.addr())),
                remedy: "name an address of each family in kubelet's --node-ip",
            });
        } else if node.name != me {
            match next_hops.of(node, &ips) {
                Ok((gateway, ifindex)) => routes.push(RouteSpec {
                    dst,
                    gateway: Some(gateway),
                    ifindex: Some(ifindex),
                    metric: metric(dst),
                    protocol: ROUTE_PROTOCOL,
                }),
                Err(problem) => problems.push(problem),
            }
        }
    }
    (routes, problems)
}

/// Those of the addresses that have the family of a prefix.
pub(super) fn same_family(ips: &[IpAddr], prefix: IpNet) -> Vec<IpAddr> {
    ips.iter().copied().filter(|ip| ip.is_ipv4() == prefix.addr().is_ipv4()).collect()
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The pod CIDRs that may be routed, each with its node, sorted and disjoint.
fn pod_cidrs<'a>(nodes: &'a [Node], me: &str, problems: &mut Vec<Problem>) -> Vec<(IpNet, &'a Node)> {
    let mut cidrs = Vec::new();
    for node in nodes {
        cidrs.extend(node.pod_cidrs.iter().map(|cidr| (cidr.trunc(), node)));
        if node.pod_cidrs.is_empty() {
            problems.push(Problem {
                reason: Reason::PodCidrMissing,
                node: node.name.clone(),
                field: POD_CIDR,
                why: "is missing".to_owned(),
                remedy: "let the controller manager assign one (--allocate-node-cidrs), or write one into the nodes file",
            });
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

/// Finds how this host reaches other nodes.
struct NextHops<'a> {
    local: &'a [LocalPrefix],
    own_ips: &'a [IpAddr],
}

impl NextHops<'_> {
    /// Address and interface index of the first of a node's `ips`, which are of one family, that is on-link.
    fn of(&self, node: &Node, ips: &[IpAddr]) -> Result<(IpAddr, u32), Problem> {
        let problem = |why, remedy| {
            let reason = Reason::NodeUnreachable;
            Problem { reason, node: node.name.clone(), field: INTERNAL_IP, why, remedy }
        };
        if let Some(ip) = ips.iter().find(|ip| self.local.iter().any(|local| local.address == **ip)) {
            return Err(problem(
                format!("{ip} is an address of this host"),
                "give every kubelet its own --node-ip, and the daemon the name of this host's Node",
            ));
        }
        ips.iter().find_map(|ip| self.uplink(*ip).map(|ifindex| (*ip, ifindex))).ok_or_else(|| {
            let shown: Vec<_> = ips.iter().map(ToString::to_string).collect();
            problem(
                format!("{} is on no network of this host ({})", shown.join(", "), self.networks(ips)),
                "put the nodes on one network; nodes behind a router are not supported yet",
            )
        })
    }

    /// The interface with the longest prefix around `ip`; of equals the one that holds this node's own `InternalIP`.
    fn uplink(&self, ip: IpAddr) -> Option<u32> {
        let around = self.local.iter().filter(|local| local.on_link.contains(&ip));
        let holds_own_ip =
            |ifindex| self.local.iter().any(|l| l.ifindex == ifindex && self.own_ips.contains(&l.address));
        around
            .min_by_key(|l| (u8::MAX - l.on_link.prefix_len(), !holds_own_ip(l.ifindex), l.ifindex))
            .map(|l| l.ifindex)
    }

    /// The networks of this host, of the family of `ips`.
    fn networks(&self, ips: &[IpAddr]) -> String {
        let shown = self.local.iter().filter(|local| !same_family(ips, local.on_link).is_empty());
        let shown = shown.filter(|local| !local.address.is_loopback());
        let shown: Vec<_> = shown.map(|local| format!("{} on {}", local.on_link, local.ifname)).collect();
        if shown.is_empty() { "none is up".to_owned() } else { shown.join(", ") }
    }
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
