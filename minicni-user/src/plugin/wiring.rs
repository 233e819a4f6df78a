//! A pod's wiring: a veth pair, a route and a neighbour on the host, an address and a default route in the pod.

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd as _,
};

use ipnet::{IpNet, Ipv4Net};
use minicni_common::{Endpoint, EndpointKind};
use nix::{errno::Errno, net::if_::if_nametoindex};

use super::{error::Errors, names::Names};
use crate::{
    cni::CniError,
    datapath::{DatapathError, Endpoints, Generations, Pins, Programs},
    link::{
        LinkError, MacAddress, Neighbour, Netns, Route, RouteFilter, RouteScope, Socket, VethEnd, address, alias,
        delete_link, delete_route, link_up, neighbour, noqueue, route, veth, without_link_local,
    },
    node::attach,
};

/// The number (`rtm_protocol`) that marks the route to a pod as minicni's.
pub const ENDPOINT_ROUTE_PROTOCOL: u8 = 110;
/// The gateway of every pod: link-local, on no interface, known by a permanent neighbour entry.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// What is to be wired.
#[derive(Debug)]
pub(super) struct Wiring<'a> {
    pub(super) names: &'a Names,
    pub(super) ifname: &'a str,
    pub(super) netns: &'a Netns,
    pub(super) address: Ipv4Addr,
    pub(super) mtu: u32,
    /// For people who look at the host's end.
    pub(super) alias: &'a str,
}

/// Whose default route a container has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Routed {
    /// Ours.
    ByUs,
    /// That of an interface that was there before; ours is a further one.
    Already,
}

/// A pod that could not be wired.
#[derive(Debug)]
pub(super) struct Unwired {
    pub(super) error: CniError,
    /// Whether something of it may be there still, so that its address must not go to another pod.
    pub(super) left: bool,
}

/// The programs of a node in eBPF mode, and where their maps are.
#[derive(Debug)]
pub(super) struct Attachable<'a> {
    pub(super) programs: Programs,
    pub(super) pins: &'a Pins,
}

/// The host's route to a pod.
pub(super) fn host_route(address: Ipv4Addr, ifindex: u32) -> Route {
    Route {
        destination: IpNet::V4(Ipv4Net::from(address)),
        via: None,
        ifindex,
        onlink: false,
        scope: RouteScope::Link,
        protocol: ENDPOINT_ROUTE_PROTOCOL,
        source: None,
        mtu: None,
    }
}

/// A pod's default route.
pub(super) fn default_route(ifindex: u32) -> Route {
    Route {
        destination: IpNet::V4(Ipv4Net::default()),
        via: Some(IpAddr::V4(GATEWAY)),
        ifindex,
        onlink: true,
        scope: RouteScope::Universe,
        // RTPROT_STATIC: inside the pod there is no daemon that would look for its own.
        protocol: 4,
        source: None,
        mtu: None,
    }
}

impl Wiring<'_> {
    /// Wires the pod, or removes what was made of it.
    pub(super) fn wire(&self, datapath: Option<&Attachable<'_>>) -> Result<Routed, Unwired> {
        let nothing_left = |error: CniError| Unwired { error, left: false };
        let mut socket = Socket::open().map_err(|error| nothing_left(error.into()))?;
        // Where the pair could not be made, what bears its name belongs to someone else, unless nobody knows whether the
        // kernel made it.
        self.create_pair(&mut socket).map_err(|error| Unwired {
            left: !matches!(error, LinkError::Refused { .. } | LinkError::Invalid { .. }),
            error: self.explained(error),
        })?;
        self.wire_pair(&mut socket, datapath).map_err(|error| {
            let addresses = [IpAddr::V4(self.address)];
            match unwire(self.names, &addresses, datapath.map(|datapath| datapath.pins)) {
                Ok(()) => nothing_left(error),
                Err(also) => Unwired { error: error.details(format!("and then: {also}")), left: true },
            }
        })
    }

    fn create_pair(&self, socket: &mut Socket) -> Result<(), LinkError> {
        let host = VethEnd { name: &self.names.host, ifindex: None, mac: self.names.host_mac, mtu: self.mtu };
        let pod = VethEnd { name: self.ifname, ifindex: None, mac: self.names.pod_mac, mtu: self.mtu };
        // Alone: a batch goes on after a failure, and would then change someone else's device.
        socket.batch(vec![veth(&host, &pod, self.netns.as_fd())?])
    }

    fn explained(&self, error: LinkError) -> CniError {
        let exists = error.errno() == Some(Errno::EEXIST as i32);
        let error = CniError::from(error);
        if !exists {
            return error;
        }
        let (pod, host) = (self.ifname, &self.names.host);
        error.details(format!("there is an interface {pod} in the container, or {host} on the host, already"))
    }

    fn wire_pair(&self, socket: &mut Socket, datapath: Option<&Attachable<'_>>) -> Result<Routed, CniError> {
        let ifindex = index_of(&self.names.host)?;
        socket.batch(vec![alias(ifindex, self.alias), without_link_local(ifindex)])?;
        let routed = self.netns.run(|| self.wire_pod())??;
        // Only now that the pod's end is up: the kernel lets the host's end send when its other end comes up, but does so
        // from a work queue, and drops what comes before. Adding a qdisc to a device that has its carrier does it at once
        // (`dev_activate` in `qdisc_graft`): https://elixir.bootlin.com/linux/v6.12/source/net/sched/sch_api.c#L1130
        let mut host = match datapath {
            Some(datapath) => Vec::from(attach::attachments(ifindex, &datapath.programs)),
            None => vec![noqueue(ifindex)],
        };
        host.push(neighbour(ifindex, IpAddr::V4(self.address), self.names.pod_mac));
        host.push(route(&host_route(self.address, ifindex)));
        socket.batch(host)?;
        if let Some(datapath) = datapath {
            // Last, so that the programs trust an interface only once it is complete.
            Endpoints::open(datapath.pins)?.insert(ifindex, &self.endpoint())?;
        }
        Ok(routed)
    }

    fn wire_pod(&self) -> Result<Routed, LinkError> {
        let mut socket = Socket::open()?;
        let ifindex = index_of(self.ifname)?;
        let wired = socket.batch(vec![
            address(ifindex, IpNet::V4(Ipv4Net::from(self.address)), false),
            link_up(ifindex),
            neighbour(ifindex, IpAddr::V4(GATEWAY), self.names.host_mac),
            route(&default_route(ifindex)),
        ]);
        match wired {
            Ok(()) => Ok(Routed::ByUs),
            // On a new device nothing but the default route can be there already.
            Err(error) if error.errno() == Some(Errno::EEXIST as i32) => Ok(Routed::Already),
            Err(error) => Err(error),
        }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint {
            kind: EndpointKind::Pod as u32,
            flags: 0,
            ipv4: self.address.octets(),
            mac: self.names.pod_mac.0,
            reserved: [0; 2],
            ipv6: [0; 16],
        }
    }
}

/// The index of a device in this thread's namespace.
fn index_of(name: &str) -> Result<u32, LinkError> {
    if_nametoindex(name).map_err(|errno| LinkError::Refused {
        operation: format!("look for dev {name}"),
        errno,
        reason: String::new(),
    })
}

/// Removes what [`Wiring::wire`] made, as far as it is there: the route first, so that no packet is sent to a dying
/// device, then the flows, then the pair. Goes on after errors.
pub(super) fn unwire(names: &Names, addresses: &[IpAddr], pins: Option<&Pins>) -> Result<(), CniError> {
    let mut errors = Errors::default();
    let Some(mut socket) = errors.keep(Socket::open()) else { return errors.into_result() };
    // Whatever else has taken our name is not ours to remove.
    let link = errors.keep(socket.link_by_name(&names.host)).flatten();
    match link.filter(|link| link.kind.as_deref() == Some("veth")) {
        Some(link) => {
            let routes = addresses.iter().filter_map(|address| match address {
                IpAddr::V4(address) => Some(delete_route(&host_route(*address, link.ifindex))),
                IpAddr::V6(_) => None,
            });
            errors.keep(socket.batch(routes.collect()));
            if let Some(pins) = pins {
                errors.keep(forget(pins, link.ifindex));
            }
            errors.keep(socket.batch(vec![delete_link(link.ifindex)]));
        }
        // The namespace is gone, and the pair with it; the maps do not know.
        None => {
            if let Some(pins) = pins {
                errors.keep(forget_addresses(&mut socket, pins, addresses));
            }
        }
    }
    errors.into_result()
}

/// Takes an interface off the fast path. Its flows end first: once the address is leased anew, they would be wrong.
fn forget(pins: &Pins, ifindex: u32) -> Result<(), DatapathError> {
    match Generations::open(pins).and_then(|mut generations| generations.bump(ifindex)) {
        Err(error) if error.is_missing() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => Endpoints::open(pins)?.remove(ifindex).map(drop),
    }
}

/// As [`forget`], for interfaces that are gone and had one of these addresses.
fn forget_addresses(socket: &mut Socket, pins: &Pins, addresses: &[IpAddr]) -> Result<(), CniError> {
    let endpoints = match Endpoints::open(pins) {
        Err(error) if error.is_missing() => return Ok(()),
        endpoints => endpoints?,
    };
    for (ifindex, endpoint) in endpoints.all()? {
        let theirs = addresses.contains(&IpAddr::V4(endpoint.ipv4.into()));
        if theirs && socket.link_by_index(ifindex)?.is_none() {
            forget(pins, ifindex)?;
        }
    }
    Ok(())
}

/// What CHECK compares: the first thing about a pod's wiring that is not as [`Wiring::wire`] made it.
pub(super) fn difference(
    wiring: &Wiring<'_>,
    routed: Routed,
    datapath: Option<&Attachable<'_>>,
) -> Result<Option<String>, CniError> {
    let mut socket = Socket::open()?;
    let name = &wiring.names.host;
    let Some(link) = socket.link_by_name(name)? else { return Ok(Some(format!("{name} is missing on the host"))) };
    if !link.up {
        return Ok(Some(format!("{name} on the host is down")));
    }
    let wanted = host_route(wiring.address, link.ifindex);
    if !socket.routes(RouteFilter { ifindex: Some(link.ifindex), protocol: None })?.contains(&wanted) {
        return Ok(Some(format!("the host has no route {wanted}")));
    }
    if let Some(datapath) = datapath {
        let blocks = socket.qdiscs(link.ifindex)?.into_iter().map(|qdisc| (qdisc.ingress_block, qdisc.egress_block));
        if !blocks.into_iter().any(|blocks| blocks == (Some(attach::INGRESS_BLOCK), Some(attach::EGRESS_BLOCK))) {
            return Ok(Some(format!("{name} has no clsact qdisc with minicni's blocks")));
        }
        for block in [attach::INGRESS_BLOCK, attach::EGRESS_BLOCK] {
            // Any program of ours: while a daemon replaces them, those attached may not be those pinned.
            if attach::attached(&mut socket, block)?.is_none() {
                return Ok(Some(format!("tc block {block} has no program of minicni")));
            }
        }
        if Endpoints::open(datapath.pins)?.get(link.ifindex)? != Some(wiring.endpoint()) {
            return Ok(Some(format!("the endpoint map has no entry, or another, for {name}")));
        }
    }
    Ok(wiring.netns.run(|| pod_difference(wiring, routed))??)
}

fn pod_difference(wiring: &Wiring<'_>, routed: Routed) -> Result<Option<String>, LinkError> {
    let mut socket = Socket::open()?;
    let name = wiring.ifname;
    let Some(link) = socket.link_by_name(name)? else { return Ok(Some(format!("{name} is missing in the container"))) };
    let kind = link.kind.as_deref().unwrap_or("none");
    if kind != "veth" || !link.up {
        return Ok(Some(format!("{name} in the container is of kind {kind} and up is {}", link.up)));
    }
    let mac = link.mac.unwrap_or(MacAddress([0; 6]));
    if mac != wiring.names.pod_mac {
        return Ok(Some(format!("{name} in the container has MAC {mac} instead of {}", wiring.names.pod_mac)));
    }
    let wanted = IpNet::V4(Ipv4Net::from(wiring.address));
    if !socket.addresses(link.ifindex)?.contains(&wanted) {
        return Ok(Some(format!("{name} in the container does not have address {wanted}")));
    }
    let gateway = Neighbour { address: IpAddr::V4(GATEWAY), mac: Some(wiring.names.host_mac), permanent: true };
    if !socket.neighbours(link.ifindex)?.contains(&gateway) {
        return Ok(Some(format!("the container has no permanent neighbour {GATEWAY}")));
    }
    let wanted = default_route(link.ifindex);
    let there = socket.routes(RouteFilter { ifindex: Some(link.ifindex), protocol: None })?;
    if routed == Routed::ByUs
        && !there.iter().any(|route| route.destination == wanted.destination && route.via == wanted.via)
    {
        return Ok(Some(format!("the container has no route {wanted}")));
    }
    Ok(None)
}
