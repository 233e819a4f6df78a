//! What CHECK compares: the first thing about a pod's wiring that is not as ADD made it.

use std::net::IpAddr;

use ipnet::IpNet;
use minicni_common::Endpoint;

use super::{
    pod::{anywhere, gateway, host_route, pod_route},
    wiring::{Attachable, Wiring},
};
use crate::{
    cni::CniError,
    datapath::Endpoints,
    link::{LinkError, MacAddress, Neighbour, Route, RouteFilter, Socket},
    node::attach,
};

/// Looks at the host's side and then at the pod's; `gateways` are those whose default route has to be there.
pub(super) fn difference(
    wiring: &Wiring<'_>,
    gateways: &[IpAddr],
    datapath: Option<&Attachable<'_>>,
) -> Result<Option<String>, CniError> {
    let mut socket = Socket::open()?;
    let name = &wiring.names.host;
    let Some(link) = socket.link_by_name(name)? else { return Ok(Some(format!("{name} is missing on the host"))) };
    if !link.up {
        return Ok(Some(format!("{name} on the host is down")));
    }
    let routes = routes(&mut socket, link.ifindex)?;
    let neighbours = socket.neighbours(link.ifindex)?;
    for address in wiring.addresses {
        let wanted = host_route(*address, link.ifindex);
        if !routes.contains(&wanted) {
            return Ok(Some(format!("the host has no route {wanted}")));
        }
        if !neighbours.contains(&permanent(*address, wiring.pod_mac)) {
            return Ok(Some(format!("the host has no permanent neighbour {address} with MAC {}", wiring.pod_mac)));
        }
    }
    if let Some(datapath) = datapath
        && let Some(difference) = datapath_difference(wiring, datapath, &mut socket, link.ifindex)?
    {
        return Ok(Some(difference));
    }
    Ok(wiring.netns.run(|| pod_difference(wiring, gateways))??)
}

fn datapath_difference(
    wiring: &Wiring<'_>,
    datapath: &Attachable<'_>,
    socket: &mut Socket,
    ifindex: u32,
) -> Result<Option<String>, CniError> {
    let name = &wiring.names.host;
    let blocks = socket.hook_qdisc(ifindex)?.map(|qdisc| (qdisc.ingress_block, qdisc.egress_block));
    let entry = Endpoints::open(datapath.pins)?.get(ifindex)?;
    if blocks != Some((Some(attach::INGRESS_BLOCK), Some(attach::EGRESS_BLOCK))) {
        // Without both it was wired when the node had no programs, and is as complete as it was then.
        return Ok(entry.map(|_| format!("{name} has no clsact qdisc with minicni's blocks")));
    }
    for block in [attach::INGRESS_BLOCK, attach::EGRESS_BLOCK] {
        // Any program of ours: while a daemon replaces them, those attached may not be those pinned.
        if attach::attached(socket, block)?.is_none() {
            return Ok(Some(format!("tc block {block} has no program of minicni")));
        }
    }
    if entry.map(|entry| Endpoint { flags: wiring.flags, ..entry }) != Some(wiring.endpoint()) {
        return Ok(Some(format!("the endpoint map has no entry, or another, for {name}")));
    }
    Ok(None)
}

fn pod_difference(wiring: &Wiring<'_>, gateways: &[IpAddr]) -> Result<Option<String>, LinkError> {
    let mut socket = Socket::open()?;
    let name = wiring.ifname;
    let Some(link) = socket.link_by_name(name)? else { return Ok(Some(format!("{name} is missing in the container"))) };
    let kind = link.kind.as_deref().unwrap_or("none");
    if kind != "veth" || !link.up {
        return Ok(Some(format!("{name} in the container is of kind {kind} and up is {}", link.up)));
    }
    let mac = link.mac.unwrap_or(MacAddress([0; 6]));
    if mac != wiring.pod_mac {
        return Ok(Some(format!("{name} in the container has MAC {mac} instead of {}", wiring.pod_mac)));
    }
    let addresses = socket.addresses(link.ifindex)?;
    let neighbours = socket.neighbours(link.ifindex)?;
    let routes = routes(&mut socket, link.ifindex)?;
    // Only those that lead through our gateway; a plugin behind us may have added to them.
    let missing = |destination: IpNet| {
        let wanted = pod_route(destination, None, link.ifindex);
        let there = routes.iter().any(|route| route.destination == wanted.destination && route.via == wanted.via);
        (!there).then(|| format!("the container has no route {wanted}"))
    };
    for address in wiring.addresses {
        let (wanted, gateway) = (IpNet::from(*address), gateway(*address));
        if !addresses.contains(&wanted) {
            return Ok(Some(format!("{name} in the container does not have address {wanted}")));
        }
        if !neighbours.contains(&permanent(gateway, wiring.names.host_mac)) {
            return Ok(Some(format!("the container has no permanent neighbour {gateway}")));
        }
        if gateways.contains(&gateway)
            && let Some(missing) = missing(anywhere(*address))
        {
            return Ok(Some(missing));
        }
    }
    Ok(wiring.routes.iter().find_map(|route| missing(route.destination)))
}

fn permanent(address: IpAddr, mac: MacAddress) -> Neighbour {
    Neighbour { address, mac: Some(mac), permanent: true }
}

fn routes(socket: &mut Socket, ifindex: u32) -> Result<Vec<Route>, LinkError> {
    socket.routes(RouteFilter { ifindex: Some(ifindex), protocol: None })
}
