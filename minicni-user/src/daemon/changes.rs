//! Which of the kernel's notifications void what flows proved.

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteMessage, RouteProtocol, RouteType};

use super::plan::ROUTE_PROTOCOL;
use crate::{node::HOST_PREFIX, plugin::ENDPOINT_ROUTE_PROTOCOL};

/// Whether the stack may treat packets in another way after what route netlink reports in a datagram, which holds one
/// message. What cannot be parsed may be anything.
///
/// Pods come and go all the time, and no flow of another pod is the worse for it: their own routes and devices do not
/// count. Nor do the daemon's routes, because the daemon bumps the generation when it changes them.
pub(super) fn voids_flows(datagram: &[u8]) -> bool {
    let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) else { return true };
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route)) => {
            leads_flows(&route)
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)) => {
            !is_pods(&link)
        }
        _ => true,
    }
}

/// The kernel gives every device that comes up a route for multicast, which no flow takes.
fn leads_flows(route: &RouteMessage) -> bool {
    let ours = [ROUTE_PROTOCOL, ENDPOINT_ROUTE_PROTOCOL].map(RouteProtocol::from);
    let aside = [RouteType::Multicast, RouteType::Broadcast, RouteType::Anycast];
    !ours.contains(&route.header.protocol) && !aside.contains(&route.header.kind)
}

/// Whether it is the host's end of a pod's veth pair: [`HOST_PREFIX`] and 12 hexadecimal digits.
fn is_pods(link: &LinkMessage) -> bool {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    let digits = name.and_then(|name| name.strip_prefix(HOST_PREFIX));
    digits.is_some_and(|digits| digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests;
