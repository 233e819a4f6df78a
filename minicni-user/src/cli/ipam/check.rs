use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    thread::sleep,
    time::Duration,
};

use clap::Args;
use minicni_common::{Endpoint, EndpointKind, names::ENDPOINTS};
use serde::Serialize;

use super::{Answer, Entry, Failure, Scope, stores};
use crate::{
    datapath::Endpoints,
    ipam::{LeaseState, boottime},
    link::{LinkInfo, Route, RouteFilter, Socket},
    node::attach,
    plugin::{ENDPOINT_ROUTE_PROTOCOL, HOST_PREFIX, reclaim::UNFINISHED_ADD},
};

/// How long an ADD or DEL that is at work may take until what it has half done counts.
const SECOND_LOOK: Duration = Duration::from_millis(300);

/// `minicnid ipam check`.
#[derive(Args, Debug)]
pub(super) struct Check {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    scope: Scope,
}

/// What was compared, and what does not agree.
#[derive(Debug, Serialize)]
pub(super) struct Checked {
    leases: usize,
    differences: Vec<Difference>,
}

/// One thing that does not agree.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
struct Difference {
    what: String,
    /// What to do about it.
    advice: String,
}

impl Check {
    pub(super) fn run(&self) -> Result<Checked, Failure> {
        let mut found = self.look()?;
        let network = self.scope.network.as_deref();
        let mut differences = found.differences(network);
        if !differences.is_empty() {
            sleep(SECOND_LOOK);
            found = self.look()?;
            let again = found.differences(network);
            differences.retain(|difference| again.contains(difference));
        }
        let leases = found.leased().filter(|entry| network.is_none_or(|network| entry.network == network));
        Ok(Checked { leases: leases.count(), differences })
    }

    fn look(&self) -> Result<Found, Failure> {
        let (state, pins) = (self.scope.directories.state(), self.scope.directories.pins());
        // Fails where there is no such network. All are looked at: what one does not account for may be another's.
        stores(&state, self.scope.network.as_deref())?;
        let mut entries = Vec::new();
        for (network, store) in stores(&state, None)? {
            entries.extend(Entry::all(&network, &store)?);
        }
        let mut socket = Socket::open()?;
        let mut devices = socket.links()?;
        devices.retain(|link| link.name.starts_with(HOST_PREFIX) && link.kind.as_deref() == Some("veth"));
        let routes = socket.routes(RouteFilter { protocol: Some(ENDPOINT_ROUTE_PROTOCOL), ifindex: None })?;
        let mut endpoints = match Endpoints::open(&pins) {
            Err(error) if error.is_missing() => Vec::new(),
            endpoints => endpoints?.all()?,
        };
        endpoints.retain(|(_, endpoint)| EndpointKind::from_number(endpoint.kind) == Some(EndpointKind::Pod));
        let endpoints: BTreeMap<_, _> = endpoints.into_iter().collect();
        let mut fast = HashSet::new();
        for link in devices.iter().filter(|link| !endpoints.contains_key(&link.ifindex)) {
            let block = socket.hook_qdisc(link.ifindex)?.and_then(|qdisc| qdisc.ingress_block);
            if block == Some(attach::INGRESS_BLOCK) {
                fast.insert(link.ifindex);
            }
        }
        Ok(Found { entries, devices, routes, endpoints, fast, now: boottime(), map: pins.map(ENDPOINTS) })
    }
}

/// What leases, kernel and map say, at one time.
#[derive(Clone, Debug)]
struct Found {
    entries: Vec<Entry>,
    /// The host's ends of pods' veth pairs.
    devices: Vec<LinkInfo>,
    /// The host's routes to pods.
    routes: Vec<Route>,
    /// The endpoint map's pods, by the index of their interface.
    endpoints: BTreeMap<u32, Endpoint>,
    /// The interfaces without an endpoint that have the programs, which need one.
    fast: HashSet<u32>,
    /// See [`boottime`].
    now: u64,
    /// Where the endpoint map is pinned.
    map: PathBuf,
}

impl Found {
    fn leased(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| matches!(entry.lease.state, LeaseState::Leased { .. }))
    }

    fn device(&self, entry: &Entry) -> Option<&LinkInfo> {
        self.devices.iter().find(|link| Some(&link.name) == entry.device.as_ref())
    }

    /// What does not agree, of one network or of all; what no network accounts for only where all were asked for.
    fn differences(&self, network: Option<&str>) -> Vec<Difference> {
        let mut differences: Vec<_> = self
            .entries
            .iter()
            .filter(|entry| network.is_none_or(|network| entry.network == network))
            .filter_map(|entry| self.difference(entry))
            .collect();
        if network.is_none() {
            differences.extend(self.unaccounted());
        }
        differences
    }

    /// The first thing that does not agree with an entry.
    fn difference(&self, entry: &Entry) -> Option<Difference> {
        let Entry { network, lease, .. } = entry;
        let address = lease.address;
        let (subject, release) =
            (format!("{address} of network {network}"), format!("minicnid ipam release {address} --network {network}"));
        let since = match &lease.state {
            LeaseState::Cooling { .. } => return None,
            LeaseState::Unreadable { reason } => {
                return Some(different(
                    format!("{subject}: its lease cannot be read ({reason}); {} claims it", entry.holder()),
                    format!("nobody else gets it until then: {release}"),
                ));
            }
            LeaseState::Leased { since, .. } => *since,
        };
        let (holder, device) = (entry.holder(), entry.device.as_deref().unwrap_or_default());
        let mut routes = self.routes.iter().filter(|route| route.destination.addr() == address).peekable();
        let Some(link) = self.device(entry) else {
            let renamed = |route: &&Route| !self.devices.iter().any(|link| link.ifindex == route.ifindex);
            if let Some(route) = routes.find(renamed) {
                return Some(different(
                    format!(
                        "{subject}: {device} of {holder} is gone, and a route leads to interface {}",
                        route.ifindex
                    ),
                    format!(
                        "if that is the device under another name, delete the pod; if not: ip route del {address} proto \
                         {ENDPOINT_ROUTE_PROTOCOL}"
                    ),
                ));
            }
            // An ADD takes its lease before it makes the device.
            if self.now.saturating_sub(since) < UNFINISHED_ADD.as_secs() {
                return None;
            }
            return Some(different(
                format!("{subject}: {holder} holds it, and its device {device} is gone"),
                format!("a running minicnid releases it after two minutes, or: {release}"),
            ));
        };
        if routes.peek().is_none() {
            return Some(different(
                format!("{subject}: {holder} has no route on the host, and cannot be reached"),
                format!("delete the pod, or: ip route add {address} dev {device} proto {ENDPOINT_ROUTE_PROTOCOL}"),
            ));
        }
        if !routes.any(|route| route.ifindex == link.ifindex) {
            return Some(different(
                format!("{subject}: the host's route leads elsewhere than to {device} of {holder}"),
                "delete the pod, so that it is attached anew".to_owned(),
            ));
        }
        match self.endpoints.get(&link.ifindex) {
            Some(endpoint) if addresses(endpoint).contains(&address) => None,
            Some(_) => Some(different(
                format!("{subject}: the endpoint map has another address for {device} of {holder}"),
                "delete the pod, so that it is attached anew".to_owned(),
            )),
            None if self.fast.contains(&link.ifindex) => Some(different(
                format!("{subject}: {device} of {holder} is not in the endpoint map, its flows stay in the stack"),
                "delete the pod, so that it is attached anew".to_owned(),
            )),
            None => None,
        }
    }

    /// Devices, routes and endpoint entries that belong to no lease.
    fn unaccounted(&self) -> Vec<Difference> {
        let mut differences = Vec::new();
        for link in &self.devices {
            if !self.entries.iter().any(|entry| entry.device.as_ref() == Some(&link.name)) {
                let (name, pod) = (&link.name, link.alias.as_deref().unwrap_or("a pod that is not known"));
                differences.push(different(
                    format!("{name} leads to {pod}, which has no lease: its address may be given to another pod"),
                    format!("delete the pod; if there is none: ip link del {name}"),
                ));
            }
        }
        let leased: HashMap<IpAddr, &Entry> = self.leased().map(|entry| (entry.lease.address, entry)).collect();
        for route in self.routes.iter().filter(|route| !leased.contains_key(&route.destination.addr())) {
            let destination = route.destination;
            differences.push(different(
                format!("the host's route to {destination} leads to an address that is not leased"),
                format!("ip route del {destination} proto {ENDPOINT_ROUTE_PROTOCOL}"),
            ));
        }
        for (ifindex, endpoint) in &self.endpoints {
            // Of a lease whose device is gone it is a leftover that its release removes.
            let theirs = |address: &IpAddr| leased.get(address).is_some_and(|entry| self.device(entry).is_none());
            let gone = !self.devices.iter().any(|link| link.ifindex == *ifindex);
            if gone && !addresses(endpoint).iter().any(theirs) {
                let key = ifindex.to_ne_bytes().map(|byte| byte.to_string()).join(" ");
                differences.push(different(
                    format!("the endpoint map has interface {ifindex}, which is gone, for {}", named(endpoint)),
                    format!("bpftool map delete pinned {} key {key}", self.map.display()),
                ));
            }
        }
        differences
    }
}

fn different(what: String, advice: String) -> Difference {
    Difference { what, advice }
}

/// The addresses of an endpoint; zeros are none.
fn addresses(endpoint: &Endpoint) -> Vec<IpAddr> {
    let both = [IpAddr::from(endpoint.ipv4), IpAddr::V6(Ipv6Addr::from(endpoint.ipv6))];
    both.into_iter().filter(|address| !address.is_unspecified()).collect()
}

fn named(endpoint: &Endpoint) -> String {
    addresses(endpoint).iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

impl Answer for Checked {
    fn is_well(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.differences.is_empty() {
            let leases = if self.leases == 1 { "lease" } else { "leases" };
            return write!(f, "{} {leases}, nothing is wrong", self.leases);
        }
        let lines = self.differences.iter().map(|one| format!("{}; {}", one.what, one.advice));
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests;
