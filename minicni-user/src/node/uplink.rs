//! The programs on the interfaces towards other hosts, which are not ours alone.
//!
//! They run behind the programs of others. TCX does that, and is what a kernel has since 6.6. A filter on a clsact qdisc is for
//! the other kernels, and for interfaces where somebody filters in such a qdisc what enters: TCX would run before it.

use std::collections::BTreeSet;

use minicni_common::{Endpoint, EndpointKind};

use super::{HOST_PREFIX, NodeError, attach};
use crate::{
    datapath::{DatapathError, Endpoints, Generations, Pins, Programs, attach_tcx, detach_tcx, has_tcx, links},
    link::{Filter, Hook, LinkError, LinkInfo, Socket, clsact_alone, delete_device_filter, device_filter},
};

/// How the programs are attached to an uplink.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Attachment {
    /// By pinned TCX links.
    Tcx,
    /// By filters on the interface's clsact qdisc.
    Clsact,
}

impl Attachment {
    /// `tcx` or `clsact`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// What the endpoint map says of an uplink.
const UPLINK: Endpoint = Endpoint {
    kind: EndpointKind::Uplink as u32,
    flags: 0,
    ipv4: [0; 4],
    mac: [0; 6],
    reserved: [0; 2],
    ipv6: [0; 16],
};

/// Whether an endpoint is an uplink.
pub fn is_uplink(endpoint: &Endpoint) -> bool {
    EndpointKind::from_number(endpoint.kind) == Some(EndpointKind::Uplink)
}

/// Attaches the programs to an Ethernet interface, or replaces older ones, and then enters it as an uplink; says whether it was
/// not one before. Where all is as it should be, nothing is done.
pub fn add(pins: &Pins, link: &LinkInfo) -> Result<bool, NodeError> {
    let mut socket = Socket::open()?;
    // What was chosen once is kept: links are replaced as links, and our own filter counts as one.
    let filtered =
        !links(pins)?.contains(&link.ifindex) && !socket.device_filters(link.ifindex, Hook::Ingress)?.is_empty();
    if filtered || !attach_tcx(pins, link.ifindex, &link.name)? {
        attach_filters(&mut socket, &pins.open_programs()?, link.ifindex)?;
    }
    let mut endpoints = Endpoints::open(pins)?;
    if endpoints.get(link.ifindex)? == Some(UPLINK) {
        return Ok(false);
    }
    // Last, so that no proof counts at an interface that is not watched at both hooks.
    endpoints.insert(link.ifindex, &UPLINK)?;
    Ok(true)
}

fn attach_filters(socket: &mut Socket, programs: &Programs, ifindex: u32) -> Result<(), LinkError> {
    let (ingress, egress) = programs.ids();
    let mut requests = vec![clsact_alone(ifindex)];
    for (hook, program, name, id) in [
        (Hook::Ingress, programs.ingress(), attach::INGRESS_NAME, ingress),
        (Hook::Egress, programs.egress(), attach::EGRESS_NAME, egress),
    ] {
        if attached_filter(socket, ifindex, hook)? != Some(id) {
            requests.push(device_filter(ifindex, hook, program, name));
        }
    }
    if requests.len() > 1 { socket.batch(requests) } else { Ok(()) }
}

/// The id of the program of our filter.
fn attached_filter(socket: &mut Socket, ifindex: u32, hook: Hook) -> Result<Option<u32>, LinkError> {
    let filters = socket.device_filters(ifindex, hook)?;
    Ok(filters.into_iter().find(Filter::is_ours).and_then(|filter| filter.prog_id))
}

/// Gives an uplink up, which may be gone already: out of the endpoint map first, then its flows, then the programs. What is not
/// ours stays, and the qdisc, which others may use by now.
pub fn remove(pins: &Pins, ifindex: u32) -> Result<(), NodeError> {
    match Endpoints::open(pins) {
        Ok(mut endpoints) => {
            endpoints.remove(ifindex)?;
            // All flows: one that only leaves here knows but the interfaces at which it enters.
            Generations::open(pins)?.bump_all()?;
        }
        Err(error) if error.is_missing() => {}
        Err(error) => return Err(error.into()),
    }
    detach_tcx(pins, ifindex)?;
    let requests = Hook::ALL.map(|hook| delete_device_filter(ifindex, hook));
    Ok(Socket::open()?.batch(requests.into())?)
}

/// The interfaces that are entered as uplinks, or have a link of ours pinned.
pub fn known(pins: &Pins) -> Result<BTreeSet<u32>, DatapathError> {
    let mut known = links(pins)?;
    match Endpoints::open(pins).and_then(|endpoints| endpoints.all()) {
        Ok(all) => known.extend(all.iter().filter(|(_, endpoint)| is_uplink(endpoint)).map(|(ifindex, _)| ifindex)),
        Err(error) if error.is_missing() => {}
        Err(error) => return Err(error),
    }
    Ok(known)
}

/// As [`known`], and those that bear a filter of ours. It asks for every device, so it is for the rare occasions on which
/// somebody who was killed may have left one.
pub fn found(pins: &Pins) -> Result<BTreeSet<u32>, NodeError> {
    let mut found = known(pins)?;
    let mut socket = Socket::open()?;
    for link in socket.links()?.iter().filter(|link| !link.name.starts_with(HOST_PREFIX)) {
        for hook in Hook::ALL {
            if attached_filter(&mut socket, link.ifindex, hook)?.is_some() {
                found.insert(link.ifindex);
            }
        }
    }
    Ok(found)
}

/// Gives every uplink up.
pub(super) fn detach_all(pins: &Pins) -> Result<(), NodeError> {
    found(pins)?.into_iter().try_for_each(|ifindex| remove(pins, ifindex))
}

/// How both programs are attached to an interface; `None` where one is missing, or is not the pinned one.
pub fn attached(pins: &Pins, link: &LinkInfo) -> Result<Option<Attachment>, NodeError> {
    if has_tcx(pins, link.ifindex, &link.name)? {
        return Ok(Some(Attachment::Tcx));
    }
    let (ingress, egress) = pins.open_programs()?.ids();
    let mut socket = Socket::open()?;
    for (hook, id) in [(Hook::Ingress, ingress), (Hook::Egress, egress)] {
        if attached_filter(&mut socket, link.ifindex, hook)? != Some(id) {
            return Ok(None);
        }
    }
    Ok(Some(Attachment::Clsact))
}
