//! How this host reaches each of the other nodes.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    nodes::Node,
    plan::{Encap, INTERNAL_IP, LocalPrefix, Problem, RouteSpec, family, same_family},
    problems::Reason,
    underlay::Underlay,
};

/// The tunnel that routes may lead through.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel {
    /// Index of the device.
    pub ifindex: u32,
    /// The VXLAN network identifier.
    pub vni: u32,
    /// Whether nodes that are on-link are reached through it, too.
    pub always: bool,
}

/// Finds the way to other nodes.
pub(super) struct NextHops<'a> {
    pub(super) underlay: &'a Underlay,
    pub(super) tunnel: Option<Tunnel>,
    /// The pod CIDRs of this node.
    pub(super) own_cidrs: &'a [IpNet],
}

impl NextHops<'_> {
    /// The route to a pod CIDR of a node: direct by the first `InternalIP` of the CIDR's family that is on-link, else through
    /// the tunnel.
    pub(super) fn route(&self, node: &Node, dst: IpNet) -> Result<RouteSpec, Problem> {
        let problem = |why, remedy| {
            let reason = Reason::NodeUnreachable;
            Problem { reason, node: node.name.clone(), field: INTERNAL_IP, why, remedy }
        };
        let is_here = |ip: &&IpAddr| self.underlay.local.iter().any(|local| local.address == **ip);
        if let Some(ip) = node.internal_ips.iter().find(is_here) {
            return Err(problem(
                format!("{ip} is an address of this host"),
                "give every kubelet its own --node-ip, and the daemon the name of this host's Node",
            ));
        }
        let ips = same_family(&node.internal_ips, dst);
        if !self.tunnel.is_some_and(|tunnel| tunnel.always)
            && let Some((ip, ifindex)) = ips.iter().find_map(|ip| Some((*ip, self.uplink(*ip)?)))
        {
            return Ok(RouteSpec::direct(dst, ip, ifindex));
        }
        if let Some(tunnel) = self.tunnel
            && let Some(remote) = self.remote(if self.has_both(&ips, dst) { &ips } else { &node.internal_ips })
        {
            let encap = Encap::Vxlan { vni: tunnel.vni, remote };
            return Ok(RouteSpec::encapsulated(dst, encap, tunnel.ifindex, self.source(dst)));
        }
        if ips.is_empty() {
            return Err(no_address(node, dst));
        }
        let shown: Vec<_> = ips.iter().map(ToString::to_string).collect();
        let why = format!("{} is on no network of this host ({})", shown.join(", "), self.networks(&ips));
        Err(if self.tunnel.is_some() {
            problem(why, "give this host the InternalIP of its Node, on an interface that is up")
        } else {
            problem(why, "put the nodes on one network, or let the daemon encapsulate (--encapsulation cross-subnet)")
        })
    }

    /// What this host uses towards pods at the other end of the tunnel, where it has to be said: the IPv6 address of the
    /// tunnel's device, which nothing else is to use.
    fn source(&self, dst: IpNet) -> Option<IpAddr> {
        let own = self.own_cidrs.iter().find(|own| own.addr().is_ipv6() && dst.addr().is_ipv6());
        own.map(IpNet::network)
    }

    /// The interface with the longest prefix around `ip`; of equals the one by which this node meets the others.
    fn uplink(&self, ip: IpAddr) -> Option<u32> {
        let around = self.underlay.networks().iter().filter(|local| local.on_link.contains(&ip));
        let is_own = |ifindex| self.underlay.own.iter().any(|own| own.ifindex == ifindex);
        around.min_by_key(|l| (u8::MAX - l.on_link.prefix_len(), !is_own(l.ifindex), l.ifindex)).map(|l| l.ifindex)
    }

    /// Whether both nodes have an `InternalIP` of a pod CIDR's family, the other one `ips`. One that this host lost for a moment
    /// moves nothing to the other family.
    fn has_both(&self, ips: &[IpAddr], dst: IpNet) -> bool {
        !ips.is_empty() && !same_family(&self.underlay.internal_ips, dst).is_empty()
    }

    /// The first of a node's addresses whose family this host has an address of. While it has none, because its uplink is
    /// down, a node that is on-link is not to be taken for one that is not.
    fn remote(&self, ips: &[IpAddr]) -> Option<IpAddr> {
        let reaches = |ip: &IpAddr| self.underlay.own.iter().any(|own| own.address.is_ipv4() == ip.is_ipv4());
        ips.iter().copied().find(reaches)
    }

    /// The networks of this host, of the family of `ips`.
    fn networks(&self, ips: &[IpAddr]) -> String {
        let shown = self.underlay.networks().iter().filter(|local| !same_family(ips, local.on_link).is_empty());
        let shown = shown.filter(|local| !local.address.is_loopback());
        let shown: Vec<_> = shown.map(|local: &LocalPrefix| format!("{} on {}", local.on_link, local.ifname)).collect();
        if shown.is_empty() { "none is up".to_owned() } else { shown.join(", ") }
    }
}

/// That a node has no `InternalIP` of the family of one of its pod CIDRs.
pub(super) fn no_address(node: &Node, dst: IpNet) -> Problem {
    Problem {
        reason: Reason::NodeUnreachable,
        node: node.name.clone(),
        field: INTERNAL_IP,
        why: format!("has no {} address, though there is the pod CIDR {dst}", family(dst.addr())),
        remedy: "name an address of each family in kubelet's --node-ip",
    }
}
