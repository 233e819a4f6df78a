//! Routes of the main table.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
pub use netlink_packet_route::route::RouteScope;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteIp6Tunnel, RouteIpTunnel, RouteLwTunnelEncap,
        RouteMessage, RouteMetric, RouteProtocol, RouteType,
    },
};
use nix::errno::Errno;

use super::{LinkError, Request, Socket, address::family};

/// A unicast route of the main table with one next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The destination; a prefix of length 0 is the default route.
    pub destination: IpNet,
    /// The gateway.
    pub via: Option<IpAddr>,
    /// The outgoing device.
    pub ifindex: u32,
    /// Take the gateway for reachable on the device although no route says so.
    pub onlink: bool,
    /// How far away the destination is. IPv6 has no scopes: the kernel reports `Universe`.
    pub scope: RouteScope,
    /// Who made the route (`rtm_protocol`).
    pub protocol: u8,
    /// The preferred source address.
    pub source: Option<IpAddr>,
    /// The path MTU in bytes, where it is smaller than the device's.
    pub mtu: Option<u32>,
    /// Where a lightweight tunnel sends the packets. It is reported, and neither set nor compared.
    pub tunnel: Option<IpAddr>,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        if let Some(gateway) = self.via {
            write!(f, " via {gateway}")?;
        }
        write!(f, " dev {}", self.ifindex)
    }
}

/// Adds a route; the kernel answers `EEXIST` when there is one to the same destination.
pub fn route(route: &Route) -> Request<'static> {
    let message = RouteNetlinkMessage::NewRoute(route.message());
    Request::new(format!("add route {route}"), message, NLM_F_CREATE | NLM_F_EXCL)
}

/// Deletes the route that agrees in everything `route` says. That there is none, or no such device, is success.
pub fn delete_route(route: &Route) -> Request<'static> {
    Request::new(format!("delete route {route}"), RouteNetlinkMessage::DelRoute(route.message()), 0)
        .tolerate(Errno::ESRCH)
        .tolerate(Errno::ENODEV)
}

/// Which routes to list; `None` means any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteFilter {
    /// Those of this protocol (`rtm_protocol`).
    pub protocol: Option<u8>,
    /// Those through this device.
    pub ifindex: Option<u32>,
}

impl Socket {
    /// The unicast routes of the main table, IPv4 and IPv6, that have one next hop and pass the filter.
    pub fn routes(&mut self, filter: RouteFilter) -> Result<Vec<Route>, LinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.header.table = RouteHeader::RT_TABLE_MAIN;
            message.header.protocol = RouteProtocol::from(filter.protocol.unwrap_or(0));
            message.attributes.extend(filter.ifindex.map(RouteAttribute::Oif));
            let request = Request::new("list routes".to_owned(), RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)
                // The main table is made with its first route, a device may just have gone.
                .tolerate(Errno::ENOENT)
                .tolerate(Errno::ENODEV);
            routes.extend(self.dump(request)?.into_iter().filter_map(|answer| match answer {
                // Without IPv6 the kernel answers with the tables of all families.
                RouteNetlinkMessage::NewRoute(message) if message.header.address_family == family => {
                    Route::new(message)
                }
                _ => None,
            }));
        }
        routes.retain(|route| {
            filter.protocol.is_none_or(|protocol| route.protocol == protocol)
                && filter.ifindex.is_none_or(|ifindex| route.ifindex == ifindex)
        });
        Ok(routes)
    }
}

impl Socket {
    /// Whether the kernel takes what comes for this address for its own. It does not wait for the kernel's network lock:
    /// <https://github.com/torvalds/linux/blob/v6.12/net/ipv6/route.c#L6734>
    pub fn is_local(&mut self, address: IpAddr) -> Result<bool, LinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(address);
        message.header.destination_prefix_length = IpNet::from(address).prefix_len();
        message.attributes.push(RouteAttribute::Destination(address.into()));
        let request = Request::new(format!("look for a route to {address}"), RouteNetlinkMessage::GetRoute(message), 0)
            .tolerate(Errno::ENETUNREACH)
            .tolerate(Errno::EHOSTUNREACH);
        Ok(
            matches!(self.get(request)?, Some(RouteNetlinkMessage::NewRoute(route)) if route.header.kind == RouteType::Local),
        )
    }
}

impl Route {
    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family(self.destination.addr());
        message.header.destination_prefix_length = self.destination.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::from(self.protocol);
        message.header.scope = self.scope;
        message.header.kind = RouteType::Unicast;
        if self.onlink {
            message.header.flags = RouteFlags::Onlink;
        }
        let attributes = &mut message.attributes;
        if self.destination.prefix_len() > 0 {
            attributes.push(RouteAttribute::Destination(self.destination.network().into()));
        }
        attributes.extend(self.via.map(|gateway| RouteAttribute::Gateway(gateway.into())));
        attributes.push(RouteAttribute::Oif(self.ifindex));
        attributes.extend(self.source.map(|source| RouteAttribute::PrefSource(source.into())));
        attributes.extend(self.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
        message
    }

    /// `None` for what is no unicast route of the main table with one next hop.
    fn new(message: RouteMessage) -> Option<Self> {
        let header = message.header;
        if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
            return None;
        }
        let mut destination = match header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let (mut via, mut ifindex, mut source, mut mtu, mut tunnel) = (None, None, None, None, None);
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip(&address)?,
                RouteAttribute::Gateway(address) => via = ip(&address),
                RouteAttribute::PrefSource(address) => source = ip(&address),
                RouteAttribute::Oif(index) => ifindex = Some(index),
                RouteAttribute::Metrics(metrics) => {
                    mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    });
                }
                RouteAttribute::Encap(attributes) => {
                    tunnel = attributes.iter().find_map(|attribute| match attribute {
                        RouteLwTunnelEncap::Ip(RouteIpTunnel::Destination(ip)) => Some(IpAddr::V4(*ip)),
                        RouteLwTunnelEncap::Ip6(RouteIp6Tunnel::Destination(ip)) => Some(IpAddr::V6(*ip)),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        Some(Self {
            destination: IpNet::new(destination, header.destination_prefix_length).ok()?,
            via,
            ifindex: ifindex?,
            onlink: header.flags.contains(RouteFlags::Onlink),
            scope: header.scope,
            protocol: header.protocol.into(),
            source,
            mtu,
            tunnel,
        })
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}
