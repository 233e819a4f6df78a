//! The netlink attributes of a route through a lightweight tunnel: `ip route add … encap ip id … dst …`.

use std::net::IpAddr;

use netlink_packet_route::route::{
    RouteAttribute, RouteIp6Tunnel, RouteIp6TunnelFlags, RouteIpTunnel, RouteLwEnCapType, RouteLwTunnelEncap,
};

use super::plan::Encap;

/// What a route that encapsulates bears; nothing for what we do not make.
pub(super) fn attributes(encap: &Encap) -> Vec<RouteAttribute> {
    let Encap::Vxlan { vni, remote } = encap else { return Vec::new() };
    let vni = u64::from(*vni);
    let (kind, attributes) = match remote {
        IpAddr::V4(remote) => {
            let attributes = [RouteIpTunnel::Id(vni), RouteIpTunnel::Destination(*remote)];
            (RouteLwEnCapType::Ip, attributes.map(RouteLwTunnelEncap::Ip).to_vec())
        }
        IpAddr::V6(remote) => {
            let checksum = RouteIp6Tunnel::Flags(RouteIp6TunnelFlags::Checksum);
            let attributes = [RouteIp6Tunnel::Id(vni), RouteIp6Tunnel::Destination(*remote), checksum];
            (RouteLwEnCapType::Ip6, attributes.map(RouteLwTunnelEncap::Ip6).to_vec())
        }
    };
    vec![RouteAttribute::EncapType(kind), RouteAttribute::Encap(attributes)]
}

/// What [`attributes`] made; anything else, be it one attribute of many, is another encapsulation.
pub(super) fn parse(attributes: &[RouteLwTunnelEncap]) -> Encap {
    let (mut id, mut to, mut checksum) = (None, None, false);
    for attribute in attributes {
        match attribute {
            RouteLwTunnelEncap::Ip(RouteIpTunnel::Id(vni)) | RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Id(vni)) => {
                id = u32::try_from(*vni).ok();
            }
            RouteLwTunnelEncap::Ip(RouteIpTunnel::Destination(ip)) => to = Some(IpAddr::V4(*ip)),
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Destination(ip)) => to = Some(IpAddr::V6(*ip)),
            RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Flags(flags)) => {
                checksum = flags.contains(RouteIp6TunnelFlags::Checksum);
            }
            attribute if is_default(attribute) => {}
            _ => return Encap::Other,
        }
    }
    match (id, to) {
        (Some(vni), Some(remote)) if checksum == remote.is_ipv6() => Encap::Vxlan { vni, remote },
        _ => Encap::Other,
    }
}

/// Whether it is what the kernel reports where nothing was asked for.
fn is_default(attribute: &RouteLwTunnelEncap) -> bool {
    match attribute {
        RouteLwTunnelEncap::Ip(RouteIpTunnel::Source(ip)) => ip.is_unspecified(),
        RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Source(ip)) => ip.is_unspecified(),
        RouteLwTunnelEncap::Ip(RouteIpTunnel::Ttl(value) | RouteIpTunnel::Tos(value))
        | RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Hoplimit(value) | RouteIp6Tunnel::Tc(value)) => *value == 0,
        RouteLwTunnelEncap::Ip(RouteIpTunnel::Flags(flags)) => flags.is_empty(),
        _ => false,
    }
}
