//! Removing a pod's wiring, as far as it is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use minicni_common::Endpoint;

use super::{
    error::Errors,
    names::Names,
    pod::{ENDPOINT_ROUTE_PROTOCOL, host_route},
};
use crate::{
    cni::CniError,
    datapath::{DatapathError, Endpoints, Generations, Pins},
    link::{
        LinkError, RouteFilter, Socket, delete_group, delete_link, delete_route, index_of, mac_of, name_of, set_group,
    },
    node::StateDir,
};

/// The group (`ip link show group …`) of the devices that are being deleted; the number is ours ("mni" and 3).
const DYING: u32 = 0x6d6e_6903;

/// Removes a pod's wiring: the routes first, so that no packet is sent to a dying device, then the flows, then the pair.
/// Goes on after errors. Success means that nothing is left of it.
pub(super) fn unwire(
    state: &StateDir,
    names: &Names,
    addresses: &[IpAddr],
    pins: Option<&Pins>,
) -> Result<(), CniError> {
    let mut errors = Errors::default();
    let Some(mut socket) = errors.keep(Socket::open()) else { return errors.into_result() };
    match errors.keep(own_device(&mut socket, names, addresses)).flatten() {
        Some(ifindex) => {
            let mut requests: Vec<_> =
                addresses.iter().map(|address| delete_route(&host_route(*address, ifindex))).collect();
            requests.push(set_group(ifindex, DYING));
            errors.keep(socket.batch(requests));
            if let Some(pins) = pins {
                errors.keep(forget(pins, ifindex));
            }
            errors.keep(delete(&mut socket, state, ifindex));
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

/// The index of the host's end, if it is there. Whatever else has taken its name is not ours to remove.
fn own_device(socket: &mut Socket, names: &Names, addresses: &[IpAddr]) -> Result<Option<u32>, LinkError> {
    if let Some(ifindex) = index_of(&names.host)? {
        if mac_of(&names.host)? == Some(names.host_mac) {
            return Ok(Some(ifindex));
        }
        // Somebody may have changed the address.
        if let Some(link) = socket.link_by_name(&names.host)?.filter(|link| link.kind.as_deref() == Some("veth")) {
            return Ok(Some(link.ifindex));
        }
    }
    renamed(socket, names, addresses)
}

/// The pod's device under another name: it has the MAC address that only this attachment's has, and a route to the pod.
fn renamed(socket: &mut Socket, names: &Names, addresses: &[IpAddr]) -> Result<Option<u32>, LinkError> {
    if addresses.is_empty() {
        return Ok(None);
    }
    let routes = socket.routes(RouteFilter { protocol: Some(ENDPOINT_ROUTE_PROTOCOL), ifindex: None })?;
    for route in routes.iter().filter(|route| addresses.contains(&route.destination.addr())) {
        if let Some(name) = name_of(route.ifindex)?
            && mac_of(&name)? == Some(names.host_mac)
        {
            return Ok(Some(route.ifindex));
        }
    }
    Ok(None)
}

/// Deletes a device that is in the group of the dying, and with it all others that are there by then.
///
/// Most of a deletion is a wait for the kernel's readers. Who comes while another waits joins the group, and finds its
/// device gone when it is its turn: a hundred calls at once wait a few times, not a hundred times.
fn delete(socket: &mut Socket, state: &StateDir, ifindex: u32) -> Result<(), LinkError> {
    let gone = || Ok(name_of(ifindex)?.is_none());
    // Without the lock nobody is waited for; that is slower, and as good.
    let turn = state.removal_lock();
    if gone()? {
        return Ok(());
    }
    let deleted = socket.batch(vec![delete_group(DYING)]);
    drop(turn);
    if deleted.is_ok() && gone()? {
        return Ok(());
    }
    // It is not in the group, or another device of the group would not go: this one alone.
    socket.batch(vec![delete_link(ifindex)])
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
    if addresses.is_empty() {
        return Ok(());
    }
    let endpoints = match Endpoints::open(pins) {
        Err(error) if error.is_missing() => return Ok(()),
        endpoints => endpoints?,
    };
    for (ifindex, endpoint) in endpoints.all()? {
        if addresses.iter().any(|address| has(&endpoint, *address)) && socket.link_by_index(ifindex)?.is_none() {
            forget(pins, ifindex)?;
        }
    }
    Ok(())
}

fn has(endpoint: &Endpoint, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from(endpoint.ipv4) == address,
        IpAddr::V6(address) => Ipv6Addr::from(endpoint.ipv6) == address,
    }
}
