//! The networks by which this node meets the others, and what is encapsulated there.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::{
    nodes::Node,
    plan::{LocalPrefix, Problem},
    problems::Reason,
    tunnel,
};

/// The UDP port of VXLAN-GPE: <https://www.iana.org/assignments/service-names-port-numbers>. Neither the kernel's nor
/// flannel's and Calico's VXLAN devices use it, so that one of them may be there, too.
pub const DEFAULT_PORT: u16 = 4790;
/// As our routes' protocol; the receiving node does not ask.
pub const DEFAULT_VNI: u32 = 109;

/// Bytes of UDP and VXLAN headers before a packet.
const HEADERS: u32 = 8 + 8;
/// Bytes of the outer IP header.
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;

/// Which pods of other nodes are reached through the tunnel.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Encapsulation {
    /// None. Nodes that are on no network of this host are not reached.
    Never,
    /// Those of nodes that are on no network of this host.
    #[default]
    CrossSubnet,
    /// All.
    Always,
}

impl FromStr for Encapsulation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "never" => Ok(Self::Never),
            "cross-subnet" => Ok(Self::CrossSubnet),
            "always" => Ok(Self::Always),
            other => Err(format!("{other:?} is none of never, cross-subnet, always")),
        }
    }
}

impl fmt::Display for Encapsulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "never",
            Self::CrossSubnet => "cross-subnet",
            Self::Always => "always",
        })
    }
}

/// The interface that somebody chose to meet the other nodes by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Uplink {
    /// By its name.
    Name(String),
    /// By a prefix around an address of it.
    Network(IpNet),
}

impl Uplink {
    fn has(&self, prefix: &LocalPrefix) -> bool {
        match self {
            Self::Name(name) => prefix.ifname == *name,
            Self::Network(network) => network.contains(&prefix.address),
        }
    }
}

impl FromStr for Uplink {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || (!text.contains('/') && text.len() > 15 && text.parse::<IpAddr>().is_err()) {
            return Err(format!("{text:?} is neither an interface's name nor a prefix like 192.168.7.0/24"));
        }
        if text.contains('/') {
            let network: IpNet = text.parse().map_err(|_| format!("{text:?} is not a prefix like 192.168.7.0/24"))?;
            return Ok(Self::Network(network.trunc()));
        }
        Ok(text.parse::<IpAddr>().map_or_else(|_| Self::Name(text.to_owned()), |ip| Self::Network(ip.into())))
    }
}

impl fmt::Display for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Network(network) => network.fmt(f),
        }
    }
}

/// What an operator may choose.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// The interface to meet the other nodes by; `None` for those that hold an `InternalIP` of this node, and any other
    /// that other nodes' `InternalIP`s are on-link on.
    pub uplink: Option<Uplink>,
    /// What is encapsulated.
    pub encapsulation: Encapsulation,
    /// The UDP port of the tunnel, the same on all nodes.
    pub vxlan_port: u16,
    /// The VXLAN network identifier, 24 bits.
    pub vni: u32,
}

impl Settings {
    /// The UDP port of the tunnel, where there may be one.
    pub(super) fn tunnel_port(&self) -> Option<u16> {
        (self.encapsulation != Encapsulation::Never).then_some(self.vxlan_port)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { uplink: None, encapsulation: Encapsulation::default(), vxlan_port: DEFAULT_PORT, vni: DEFAULT_VNI }
    }
}

/// What this host's networks mean for the way to other nodes.
#[derive(Clone, Debug, Default)]
pub struct Underlay {
    /// The addresses of this host.
    pub local: Vec<LocalPrefix>,
    /// Those by which it meets the other nodes.
    pub own: Vec<LocalPrefix>,
    /// The `InternalIP`s of this node's object, whether they are here or not.
    pub internal_ips: Vec<IpAddr>,
    /// Whether nodes are on-link only there.
    only_own: bool,
}

impl Underlay {
    /// Of the node `own`. An error tells which uplink is not there.
    pub fn new(settings: &Settings, own: &Node, mut local: Vec<LocalPrefix>) -> Result<Self, Problem> {
        // What it makes reachable are pods, not nodes.
        local.retain(|prefix| prefix.ifname != tunnel::DEVICE);
        let is_own = |prefix: &&LocalPrefix| match &settings.uplink {
            Some(uplink) => uplink.has(prefix),
            None => own.internal_ips.contains(&prefix.address),
        };
        let chosen: Vec<_> = local.iter().filter(is_own).cloned().collect();
        match &settings.uplink {
            Some(uplink) if chosen.is_empty() => Err(missing(uplink, own, &local)),
            uplink => {
                Ok(Self { only_own: uplink.is_some(), own: chosen, local, internal_ips: own.internal_ips.clone() })
            }
        }
    }

    /// The networks on which other nodes may be on-link.
    pub fn networks(&self) -> &[LocalPrefix] {
        if self.only_own { &self.own } else { &self.local }
    }

    /// The MTU of the way to other nodes, in bytes; `None` while there is none.
    pub fn mtu(&self) -> Option<u32> {
        // Where the node's address is on the loopback device, that device's MTU says nothing about the way to others.
        self.own.iter().filter(|prefix| prefix.ifname != "lo").map(|prefix| prefix.mtu).min()
    }

    /// The MTU within the tunnel. It has to do for every node, whichever of its addresses it is reached by.
    pub fn tunnel_mtu(&self) -> Option<u32> {
        let ipv6 = self.own.iter().any(|prefix| prefix.address.is_ipv6());
        let overhead = HEADERS + if ipv6 { IPV6_HEADER } else { IPV4_HEADER };
        self.mtu().map(|mtu| mtu.saturating_sub(overhead))
    }
}

fn missing(uplink: &Uplink, own: &Node, local: &[LocalPrefix]) -> Problem {
    let mut present: Vec<_> = local.iter().map(|prefix| format!("{} on {}", prefix.address, prefix.ifname)).collect();
    present.sort();
    let present = if present.is_empty() { "none".to_owned() } else { present.join(", ") };
    let why = match uplink {
        Uplink::Name(name) => format!("{name} is no interface of this host that is up and has an address"),
        Uplink::Network(network) => format!("{network} holds no address of this host"),
    };
    Problem {
        reason: Reason::UplinkMissing,
        node: own.name.clone(),
        field: "--uplink",
        why: format!("{why} (there are: {present}); no route is changed meanwhile"),
        remedy: "name an interface, or a prefix around one of its addresses, or leave the option out",
    }
}

#[cfg(test)]
mod tests;
