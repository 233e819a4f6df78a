//! Addresses of devices.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, CacheInfo},
};
use nix::errno::Errno;

use super::{LinkError, Request, Socket};

/// Adds an address with its prefix length to a device. `nodad` makes an IPv6 address usable at once, without duplicate
/// address detection.
pub fn address(ifindex: u32, address: IpNet, nodad: bool) -> Request<'static> {
    Request::new(
        format!("add address {address} to dev {ifindex}"),
        RouteNetlinkMessage::NewAddress(message(ifindex, address, nodad)),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// Adds an address that is usable at once and, if it is IPv6, that the kernel takes only where somebody asks for it: a
/// deprecated one, by RFC 6724, rule 3.
pub fn address_aside(ifindex: u32, address: IpNet) -> Request<'static> {
    let mut message = message(ifindex, address, true);
    if address.addr().is_ipv6() {
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_preferred = 0;
        lifetime.ifa_valid = u32::MAX;
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
    }
    let operation = format!("add address {address} to dev {ifindex}");
    Request::new(operation, RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
}

fn message(ifindex: u32, address: IpNet, nodad: bool) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = ifindex;
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    if nodad {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes = vec![AddressAttribute::Local(address.addr()), AddressAttribute::Address(address.addr())];
    message
}

/// Takes an address off a device. That it is gone already is success.
pub fn delete_address(ifindex: u32, address: IpNet) -> Request<'static> {
    let mut message = AddressMessage::default();
    message.header.index = ifindex;
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.attributes = vec![AddressAttribute::Local(address.addr())];
    let operation = format!("delete address {address} of dev {ifindex}");
    Request::new(operation, RouteNetlinkMessage::DelAddress(message), 0).tolerate(Errno::EADDRNOTAVAIL)
}

impl Socket {
    /// The addresses of a device, IPv4 and IPv6.
    pub fn addresses(&mut self, ifindex: u32) -> Result<Vec<IpNet>, LinkError> {
        let mut message = AddressMessage::default();
        message.header.index = ifindex;
        let operation = format!("list addresses of dev {ifindex}");
        let request = Request::new(operation, RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP);
        let answers = self.dump(request)?;
        Ok(answers.into_iter().filter_map(|answer| prefix(&answer, ifindex)).collect())
    }
}

fn prefix(answer: &RouteNetlinkMessage, ifindex: u32) -> Option<IpNet> {
    let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
    if message.header.index != ifindex {
        return None;
    }
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point device IFA_ADDRESS is the other side's.
            AddressAttribute::Local(address) => found = Some(*address),
            AddressAttribute::Address(address) => found = found.or(Some(*address)),
            _ => {}
        }
    }
    IpNet::new(found?, message.header.prefix_len).ok()
}

/// The address family as netlink numbers it.
pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
