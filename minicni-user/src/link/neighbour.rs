//! Neighbour entries: which Ethernet address belongs to an IP address.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};

use super::{LinkError, MacAddress, Request, Socket, address::family};

/// Adds a permanent neighbour entry, or replaces the one there is.
pub fn neighbour(ifindex: u32, address: IpAddr, mac: MacAddress) -> Request<'static> {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = ifindex;
    message.header.state = NeighbourState::Permanent;
    message.attributes =
        vec![NeighbourAttribute::Destination(address.into()), NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
    let operation = format!("set neighbour {address} lladdr {mac} on dev {ifindex}");
    Request::new(operation, RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// A neighbour entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The IP address.
    pub address: IpAddr,
    /// The Ethernet address; `None` while it is unknown.
    pub mac: Option<MacAddress>,
    /// Whether it stays until someone removes it.
    pub permanent: bool,
}

impl Socket {
    /// The neighbour entries of a device, IPv4 and IPv6.
    pub fn neighbours(&mut self, ifindex: u32) -> Result<Vec<Neighbour>, LinkError> {
        let mut message = NeighbourMessage::default();
        message.attributes.push(NeighbourAttribute::IfIndex(ifindex));
        let operation = format!("list neighbours of dev {ifindex}");
        let request = Request::new(operation, RouteNetlinkMessage::GetNeighbour(message), NLM_F_DUMP);
        let answers = self.dump(request)?;
        Ok(answers.into_iter().filter_map(|answer| entry(answer, ifindex)).collect())
    }
}

fn entry(answer: RouteNetlinkMessage, ifindex: u32) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = answer else { return None };
    if message.header.ifindex != ifindex {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(v4.into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(v6.into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = MacAddress::from_slice(&bytes),
            _ => {}
        }
    }
    Some(Neighbour { address: address?, mac, permanent: message.header.state == NeighbourState::Permanent })
}
