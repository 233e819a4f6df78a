//! The uplinks, reconciled: the programs are where this node meets the others, and nowhere else.

use std::collections::BTreeSet;

use tracing::info;

use super::{
    problems::{Problems, Reason},
    reconcile::Report,
};
use crate::{
    datapath::Pins,
    link::{LinkInfo, Socket},
    node::{HOST_PREFIX, NodeError, uplink},
};

/// The interfaces by which this node meets the others, and those by which its routes to other nodes leave.
pub(super) fn desired(report: &Report) -> BTreeSet<u32> {
    // What goes through the tunnel leaves by an uplink as something else.
    let direct = report.desired.iter().filter(|route| route.encap.is_none()).filter_map(|route| route.ifindex);
    report.own.iter().map(|prefix| prefix.ifindex).chain(direct).collect()
}

/// The uplinks as the daemon keeps them.
#[derive(Debug, Default)]
pub(super) struct Uplinks {
    /// Whether what an earlier daemon left was looked for.
    searched: bool,
}

impl Uplinks {
    /// Makes the uplinks what is desired. What fails becomes a problem, and is tried again at the next pass.
    pub(super) fn reconcile(&mut self, pins: &Pins, desired: &BTreeSet<u32>, problems: &mut Problems) {
        let known = if self.searched { uplink::known(pins).map_err(NodeError::from) } else { uplink::found(pins) };
        let links = Socket::open().and_then(|mut socket| socket.links());
        let (known, links) = match (known, links) {
            (Ok(known), Ok(links)) => (known, links),
            (known, links) => {
                problems.extend(Reason::UplinkFailed, known.err());
                problems.extend(Reason::UplinkFailed, links.err());
                return;
            }
        };
        self.searched = true;
        let link = |ifindex: &u32| links.iter().find(|link| link.ifindex == *ifindex);
        // One that is down has lost its routes, and comes back with them.
        for gone in known.difference(desired).filter(|ifindex| link(ifindex).is_none_or(|link| link.up)) {
            match uplink::remove(pins, *gone) {
                Ok(()) => info!(ifindex = gone, "no uplink any more"),
                Err(error) => problems.add(Reason::UplinkFailed, error),
            }
        }
        for link in desired.iter().filter_map(link).filter(|link| is_fit(link)) {
            match uplink::add(pins, link) {
                Ok(true) => info!(uplink = link.name, ifindex = link.ifindex, "the programs are attached"),
                Ok(false) => {}
                Err(error) => problems.add(
                    Reason::UplinkFailed,
                    format_args!("uplink {}: {error}; its flows stay in the stack", link.name),
                ),
            }
        }
    }
}

/// The programs look for an Ethernet header. Flows by way of other devices stay in the stack.
fn is_fit(link: &LinkInfo) -> bool {
    link.ethernet && !link.name.starts_with(HOST_PREFIX)
}
