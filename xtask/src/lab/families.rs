use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The address families that the nodes of a lab, and their pods, have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Families {
    /// IPv4 alone.
    V4,
    /// Both, IPv4 first.
    Dual,
    /// IPv6 alone.
    V6,
}

impl Families {
    /// Those of the two values that belong to the families, in order.
    pub(super) fn select<T>(self, v4: T, v6: T) -> Vec<T> {
        match self {
            Self::V4 => vec![v4],
            Self::Dual => vec![v4, v6],
            Self::V6 => vec![v6],
        }
    }
}

/// The IPv4 prefix of a node's pods.
pub(super) fn pod_cidr(number: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 244, number, 0), 24))
}

/// The IPv6 prefix of a node's pods.
pub(super) fn pod_cidr6(number: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfd44, 0, 0, number.into(), 0, 0, 0, 0), 64))
}

/// The IPv4 address of a node's uplink.
pub(super) fn node_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, number)
}

/// The IPv6 address of a node's uplink.
pub(super) fn node_address6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0x77, 0, 0, 0, 0, 0, number.into())
}

/// The addresses of a node's uplink with their prefix lengths.
pub(super) fn uplink_addresses(families: Families, number: u8) -> Vec<IpNet> {
    let v4 = Ipv4Net::new_assert(node_address(number), 24);
    let v6 = Ipv6Net::new_assert(node_address6(number), 64);
    families.select(IpNet::V4(v4), IpNet::V6(v6))
}
