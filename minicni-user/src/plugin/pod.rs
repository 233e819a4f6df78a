//! What a pod is wired with, by address family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::link::{MacAddress, Route, RouteScope};

/// The number (`rtm_protocol`) that marks the route to a pod as minicni's.
pub const ENDPOINT_ROUTE_PROTOCOL: u8 = 110;
/// `RTPROT_STATIC`: inside the pod there is no daemon that would look for its own.
const STATIC: u8 = 4;

/// A further route of a pod, beside its default route; it leads the same way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct PodRoute {
    pub(super) destination: IpNet,
    /// The path MTU in bytes, where it is smaller than the interface's.
    pub(super) mtu: Option<u32>,
}

/// The gateway of every pod in the family of `address`: link-local, on no interface, known by a permanent neighbour entry.
pub(super) fn gateway(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
    }
}

/// All addresses in the family of `address`.
pub(super) fn anywhere(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

/// The host's route to a pod.
pub(super) fn host_route(address: IpAddr, ifindex: u32) -> Route {
    Route {
        destination: IpNet::from(address),
        via: None,
        ifindex,
        onlink: false,
        scope: if address.is_ipv4() { RouteScope::Link } else { RouteScope::Universe },
        protocol: ENDPOINT_ROUTE_PROTOCOL,
        source: None,
        mtu: None,
        tunnel: None,
    }
}

/// A pod's route through its gateway.
pub(super) fn pod_route(destination: IpNet, mtu: Option<u32>, ifindex: u32) -> Route {
    Route {
        destination,
        via: Some(gateway(destination.addr())),
        ifindex,
        // IPv6 takes every link-local gateway for reachable.
        onlink: destination.addr().is_ipv4(),
        scope: RouteScope::Universe,
        protocol: STATIC,
        source: None,
        mtu,
        tunnel: None,
    }
}

/// The IPv6 address that every interface has to have, made of its MAC address (RFC 4291, appendix A).
pub(super) fn link_local(MacAddress(mac): MacAddress) -> IpNet {
    let identifier = [mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]];
    let address = Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(u64::from_be_bytes(identifier)));
    IpNet::V6(Ipv6Net::new_assert(address, 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_local_address_is_the_one_that_the_kernel_would_make() {
        let address = link_local(MacAddress([0x02, 0x42, 0xac, 0x11, 0x00, 0x02]));
        assert_eq!(address.to_string(), "fe80::42:acff:fe11:2/64");
    }
}
