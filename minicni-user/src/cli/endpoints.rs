//! The pods of a node for `status`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use minicni_common::{Endpoint, EndpointKind};
use serde::Serialize;

use super::status::keep;
use crate::{
    datapath::{Endpoints, Pins},
    link::{LinkInfo, MacAddress, Route, RouteFilter, Socket},
    node::attach,
    plugin::{ENDPOINT_ROUTE_PROTOCOL, HOST_PREFIX},
};

/// A pod as `status` shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointView {
    pub(super) interface: String,
    pub(super) ifindex: u32,
    pub(super) pod: String,
    /// One address, or one of each family.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) mac: String,
    /// Whether its flows may leave the stack.
    pub(super) fast_path: bool,
}

/// The pods that have their interfaces here, and what is wrong with them.
pub(super) fn collect(pins: &Pins, links: &[LinkInfo], problems: &mut Vec<String>) -> Vec<EndpointView> {
    let all = keep(Endpoints::open(pins).and_then(|endpoints| endpoints.all()), problems).unwrap_or_default();
    let mut views = Vec::new();
    for (ifindex, endpoint) in all {
        if EndpointKind::from_number(endpoint.kind) != Some(EndpointKind::Pod) {
            continue;
        }
        let addresses = addresses(&endpoint);
        let Some(link) = links.iter().find(|link| link.ifindex == ifindex) else {
            problems.push(format!("the interface {ifindex} of endpoint {addresses:?} is gone, and no DEL came for it"));
            continue;
        };
        views.push(EndpointView {
            interface: link.name.clone(),
            ifindex,
            pod: link.alias.clone().unwrap_or_default(),
            addresses,
            mac: MacAddress(endpoint.mac).to_string(),
            fast_path: endpoint.flags & (Endpoint::NO_FAST_PATH | Endpoint::NO_SPOOF_CHECK) == 0,
        });
    }
    let (mut attached, mut routed) = (true, Vec::new());
    if let Some(mut socket) = keep(Socket::open(), problems) {
        let filter = RouteFilter { protocol: Some(ENDPOINT_ROUTE_PROTOCOL), ifindex: None };
        routed = keep(socket.routes(filter), problems).unwrap_or_default();
        for block in [attach::INGRESS_BLOCK, attach::EGRESS_BLOCK] {
            attached &= keep(attach::attached(&mut socket, block), problems).flatten().is_some();
        }
        views.extend(without_programs(&mut socket, links, &views, &routed, problems));
    }
    if views.iter().any(|view| view.fast_path) && !attached {
        problems
            .push("a tc block of the pods has no program: no fast path; restart minicnid, which attaches it".into());
    }
    for view in &views {
        for address in &view.addresses {
            if !routed.iter().any(|route| route.ifindex == view.ifindex && route.destination.addr() == *address) {
                problems.push(format!("there is no route to {address} ({}): the pod cannot be reached", view.pod));
            }
        }
    }
    views.sort_by(|one, other| one.addresses.cmp(&other.addresses));
    views
}

fn addresses(endpoint: &Endpoint) -> Vec<IpAddr> {
    let both = [IpAddr::V4(Ipv4Addr::from(endpoint.ipv4)), IpAddr::V6(Ipv6Addr::from(endpoint.ipv6))];
    both.into_iter().filter(|address| !address.is_unspecified()).collect()
}

/// Pods that were wired without the programs: with a bandwidth limit, or of a network that wants none.
fn without_programs(
    socket: &mut Socket,
    links: &[LinkInfo],
    views: &[EndpointView],
    routed: &[Route],
    problems: &mut Vec<String>,
) -> Vec<EndpointView> {
    let others = links.iter().filter(|link| {
        link.name.starts_with(HOST_PREFIX)
            && link.kind.as_deref() == Some("veth")
            && !views.iter().any(|view| view.ifindex == link.ifindex)
    });
    let mut found = Vec::new();
    for link in others {
        let block = keep(socket.hook_qdisc(link.ifindex), problems).flatten().and_then(|qdisc| qdisc.ingress_block);
        if block == Some(attach::INGRESS_BLOCK) {
            problems.push(format!("{} is not in the endpoint map: its flows stay in the stack", link.name));
            continue;
        }
        let theirs = routed.iter().filter(|route| route.ifindex == link.ifindex);
        found.push(EndpointView {
            interface: link.name.clone(),
            ifindex: link.ifindex,
            pod: link.alias.clone().unwrap_or_default(),
            addresses: theirs.map(|route| route.destination.addr()).collect(),
            mac: String::new(),
            fast_path: false,
        });
    }
    found
}
