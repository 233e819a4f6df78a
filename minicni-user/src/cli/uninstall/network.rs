//! What minicni has in the kernel's network stack.

use std::fmt;

use super::Removal;
use crate::{
    cni::CniError,
    daemon::{firewall, plan::ROUTE_PROTOCOL, tunnel},
    datapath::Pins,
    ipam::{Owner, Store},
    link::{LinkError, RouteFilter, Socket, delete_link, delete_route},
    node::{HOST_PREFIX, StateDir, uplink},
    plugin::reclaim,
};

/// A pod that is attached.
pub(super) struct Pod {
    interface: String,
    ifindex: u32,
    /// Namespace and name, where the interface tells.
    name: Option<String>,
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({})", self.interface),
            None => f.write_str(&self.interface),
        }
    }
}

/// The pods that have their interfaces here.
pub(super) fn pods() -> Result<Vec<Pod>, LinkError> {
    let links = Socket::open()?.links()?.into_iter();
    let ours = links.filter(|link| link.name.starts_with(HOST_PREFIX) && link.kind.as_deref() == Some("veth"));
    Ok(ours.map(|link| Pod { interface: link.name, ifindex: link.ifindex, name: link.alias }).collect())
}

/// Takes pods off the network, as DEL does where there is a lease.
pub(super) fn detach(removal: &mut Removal, state: &StateDir, pins: &Pins, pods: &[Pod]) {
    if pods.is_empty() {
        return;
    }
    let mut attachments = removal.found(owners(state)).unwrap_or_default();
    for pod in pods {
        let held = attachments.iter().position(|(network, owner)| reclaim::device(network, owner) == pod.interface);
        let attachment = held.map(|index| attachments.swap_remove(index));
        removal.remove(format_args!("the network of pod {pod}"), || -> Result<(), CniError> {
            if let Some((network, owner)) = attachment {
                reclaim::detach(state, pins, &network, &owner)?;
                return Ok(());
            }
            Ok(Socket::open()?.batch(vec![delete_link(pod.ifindex)])?)
        });
    }
}

/// Whose leases there are, with their networks.
fn owners(state: &StateDir) -> Result<Vec<(String, Owner)>, CniError> {
    let mut owners = Vec::new();
    for network in reclaim::networks(state)? {
        let of_network = reclaim::leases(state, &network)?.as_ref().map(Store::owners).transpose()?;
        owners.extend(of_network.into_iter().flatten().map(|owner| (network.clone(), owner)));
    }
    Ok(owners)
}

/// The routes to other nodes.
pub(super) fn routes(removal: &mut Removal) {
    let filter = RouteFilter { protocol: Some(ROUTE_PROTOCOL), ifindex: None };
    let routes = Socket::open().and_then(|mut socket| socket.routes(filter));
    for route in removal.found(routes).unwrap_or_default() {
        removal.remove(format_args!("the route {route}"), || Socket::open()?.batch(vec![delete_route(&route)]));
    }
}

/// The device of the tunnel.
pub(super) fn tunnel(removal: &mut Removal) {
    if removal.found(tunnel::is_there()) == Some(true) {
        removal.remove(format_args!("the device {}", tunnel::DEVICE), || tunnel::remove().map(drop));
    }
}

/// The rules of nftables and of iptables.
pub(super) fn firewall(removal: &mut Removal) {
    if firewall::is_there() {
        removal.remove("the rules of nftables and iptables", || {
            let errors: Vec<_> = firewall::remove().iter().map(ToString::to_string).collect();
            if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
        });
    }
}

/// The programs on the interfaces towards other hosts.
pub(super) fn uplinks(removal: &mut Removal, pins: &Pins) {
    for ifindex in removal.found(uplink::found(pins)).unwrap_or_default() {
        removal.remove(format_args!("the programs of interface {ifindex}"), || uplink::remove(pins, ifindex));
    }
}
