//! The uplinks of a node for `status`.

use serde::Serialize;

use super::status::keep;
use crate::{
    datapath::{Endpoints, Pins},
    link::LinkInfo,
    node::uplink::{Attachment, attached, is_uplink},
};

/// An uplink as `status` shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UplinkView {
    pub(super) interface: String,
    pub(super) ifindex: u32,
    /// `tcx` or `clsact`; `null` where a program is missing.
    pub(super) attached: Option<&'static str>,
}

/// The interfaces that are entered as uplinks, and what is wrong with them.
pub(super) fn collect(pins: &Pins, links: &[LinkInfo], problems: &mut Vec<String>) -> Vec<UplinkView> {
    let all = keep(Endpoints::open(pins).and_then(|endpoints| endpoints.all()), problems).unwrap_or_default();
    let mut views = Vec::new();
    for (ifindex, _) in all.iter().filter(|(_, endpoint)| is_uplink(endpoint)) {
        // One that is gone is none any more, as the daemon will find.
        let Some(link) = links.iter().find(|link| link.ifindex == *ifindex) else { continue };
        let attached = keep(attached(pins, link), problems).flatten().map(Attachment::name);
        if attached.is_none() {
            problems.push(format!("uplink {} lacks a program: restart minicnid, which attaches it", link.name));
        }
        views.push(UplinkView { interface: link.name.clone(), ifindex: *ifindex, attached });
    }
    views.sort_by_key(|view| view.ifindex);
    views
}
