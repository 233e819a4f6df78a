//! What the kernel carries: packets, flows, interfaces, routes.

use std::{collections::BTreeMap, fmt};

use minicni_common::{Counters, EndpointKind, FlowState, Reason, Verdict};
use prometheus_client::encoding::DescriptorEncoder;

use super::encode::{counters, gauge, gauges};
use crate::{
    daemon::plan::ROUTE_PROTOCOL,
    datapath::{self, DatapathError, Endpoints, Flows, Pins},
    link::{LinkInfo, RouteFilter, Socket},
    node::{
        HOST_PREFIX, NodeError,
        uplink::{self, Attachment, is_uplink},
    },
};

/// What is wired to this host, and its routes to other nodes.
#[derive(Debug)]
pub(super) struct Interfaces {
    routes: usize,
    pods: [usize; 2],
    uplinks: BTreeMap<&'static str, u64>,
}

impl Interfaces {
    pub(super) fn read(pins: &Pins) -> Result<Self, NodeError> {
        let mut socket = Socket::open()?;
        let links = socket.links()?;
        let routes = socket.routes(RouteFilter { protocol: Some(ROUTE_PROTOCOL), ifindex: None })?.len();
        let entered = loaded(Endpoints::open(pins).and_then(|endpoints| endpoints.all()))?.unwrap_or_default();
        let with_programs = |link: &LinkInfo| {
            let kind = entered.iter().find(|(ifindex, _)| *ifindex == link.ifindex);
            kind.and_then(|(_, endpoint)| EndpointKind::from_number(endpoint.kind)) == Some(EndpointKind::Pod)
        };
        let (with, without): (Vec<_>, Vec<_>) = links
            .iter()
            .filter(|link| link.kind.as_deref() == Some("veth") && link.name.starts_with(HOST_PREFIX))
            .partition(|link| with_programs(link));
        let mut uplinks = BTreeMap::from(["tcx", "clsact", "none"].map(|attachment| (attachment, 0)));
        for (ifindex, _) in entered.iter().filter(|(_, endpoint)| is_uplink(endpoint)) {
            // One that is gone is none any more, as the main loop will find.
            let Some(link) = links.iter().find(|link| link.ifindex == *ifindex) else { continue };
            *uplinks.entry(uplink::attached(pins, link)?.map_or("none", Attachment::name)).or_default() += 1;
        }
        Ok(Self { routes, pods: [with.len(), without.len()], uplinks })
    }

    pub(super) fn encode(self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        gauge(encoder, "minicni_routes", "Routes to other nodes that the kernel has from minicni", &self.routes)?;
        let pods =
            ["ebpf", "route"].into_iter().zip(self.pods).map(|(datapath, count)| ([("datapath", datapath)], count));
        gauges(encoder, "minicni_endpoints", "Interfaces of pods on this host, by what carries their packets", pods)?;
        let uplinks = self.uplinks.into_iter().map(|(attachment, count)| ([("attachment", attachment)], count));
        gauges(encoder, "minicni_uplinks", "Interfaces towards other nodes, by how the programs are attached", uplinks)
    }
}

/// What the programs counted; `None` where none are loaded.
pub(super) fn read_counters(pins: &Pins) -> Result<Option<Counters>, DatapathError> {
    loaded(datapath::counters(pins))
}

pub(super) fn encode_counters(encoder: &mut DescriptorEncoder<'_>, counted: &Counters) -> fmt::Result {
    let with = |wanted: fn(Verdict) -> bool| Reason::ALL.iter().filter(move |reason| wanted(reason.verdict()));
    let packets = with(|verdict| verdict != Verdict::Event)
        .map(|reason| ([("verdict", verdict(reason.verdict())), ("reason", reason.name())], counted.get(*reason)));
    counters(encoder, "minicni_packets", "Packets that the programs saw, by what became of them and why", packets)?;
    let events =
        with(|verdict| verdict == Verdict::Event).map(|reason| ([("event", reason.name())], counted.get(*reason)));
    counters(encoder, "minicni_flow_events", "What happened to flows", events)
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Fast => "fast",
        Verdict::Stack => "stack",
        Verdict::Host => "host",
        Verdict::Drop => "drop",
        Verdict::Event => "event",
    }
}

/// How many flows are in each state.
#[derive(Debug, Default)]
pub(super) struct FlowStates {
    observed: u64,
    promoted: u64,
    closing: u64,
}

impl FlowStates {
    /// Counts them one by one; `None` where no programs are loaded.
    pub(super) fn read(pins: &Pins) -> Result<Option<Self>, DatapathError> {
        let mut this = Self::default();
        let counted = Flows::open(pins).and_then(|flows| {
            flows.each_state(|state| match FlowState::from_number(state) {
                Some(FlowState::Promoted) => this.promoted += 1,
                Some(FlowState::Closing) => this.closing += 1,
                Some(FlowState::Observed) | None => this.observed += 1,
            })
        });
        Ok(loaded(counted)?.map(|()| this))
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let states = [("observed", self.observed), ("promoted", self.promoted), ("closing", self.closing)];
        let states = states.map(|(state, count)| ([("state", state)], count));
        gauges(encoder, "minicni_flows", "Flows that were seen lately, over TCP and UDP", states)
    }
}

/// That nothing is loaded is no error: the node routes.
fn loaded<T>(result: Result<T, DatapathError>) -> Result<Option<T>, DatapathError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}
