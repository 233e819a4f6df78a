use std::net::IpAddr;

use ipnet::IpNet;
use minicni_common::Endpoint;

use super::{
    config::Config,
    names::Names,
    pod::{anywhere, gateway},
    wiring::{Attachable, Unwired, Wiring},
};
use crate::{
    cni::{AddResult, CniError, Code, Environment, Interface, Ip, Request, Requested, Route},
    datapath::Programs,
    ipam::{Owner, RangeSet, Store},
    link::{MacAddress, Netns},
    node::{Datapath, Facts, forward, prepare},
};

/// Attaches a container to the network.
pub(super) fn add(request: &Request) -> Result<AddResult, CniError> {
    let Request { environment, config: netconf } = request;
    let config = Config::new(netconf)?;
    let requested = request.requested()?;
    let netns = sandbox(environment)?;
    let owner = Owner::new(&environment.container_id, &environment.ifname)?;
    let (facts, datapath) = node(&config)?;
    let sets = config.ranges(facts.as_ref(), &requested.ip_ranges)?;
    let ipv6 = sets.iter().any(RangeSet::is_ipv6);
    let mtu = config.mtu(facts.as_ref(), ipv6)?;
    forward(ipv6)?;
    let store = config.store()?;

    let names = Names::new(&netconf.name, owner.container_id(), owner.ifname());
    let pod = pod_name(environment);
    let _held = store.hold(&owner)?;
    // What the runtime asks for is of this container alone.
    if requested.ip_ranges.is_empty()
        && let Err(error) = store.record_pool(&sets)
    {
        eprintln!("minicni: the metrics will not know the size of the pool: {error}");
    }
    let addresses = store.allocate(&owner, pod.as_deref(), &sets, &requested.ips)?;
    let wiring = Wiring {
        names: &names,
        ifname: owner.ifname(),
        netns: &netns,
        addresses: &addresses,
        pod_mac: requested.mac.map_or(names.pod_mac, MacAddress),
        flags: flags(&requested),
        routes: &config.routes,
        mtu,
        alias: pod.as_deref().unwrap_or(owner.container_id()),
    };
    // The bandwidth plugin behind us limits in queues of the host's end, which the fast path would pass by.
    let datapath = datapath.filter(|_| !requested.bandwidth_limited);
    match wiring.wire(&config.state, datapath.as_ref()) {
        Ok(gateways) => Ok(result(&wiring, &gateways, request, requested)),
        Err(Unwired { error, left }) => {
            // An address whose device may be there still is DEL's to release.
            if !left {
                give_back(&store, &owner);
            }
            Err(error)
        }
    }
}

/// The container's namespace, which must not be our own: everything would be done to the host.
pub(super) fn sandbox(environment: &Environment) -> Result<Netns, CniError> {
    let Some(path) = &environment.netns else {
        return Err(CniError::new(Code::InvalidEnvironment, "required env variables [CNI_NETNS] missing"));
    };
    let netns = Netns::open(path)?;
    if !environment.netns_override && netns.is_own()? {
        return Err(CniError::new(
            Code::InvalidNetns,
            format!("plugin's netns and netns from CNI_NETNS {} should not be the same", path.display()),
        ));
    }
    Ok(netns)
}

/// What a pod is exempt from.
fn flags(requested: &Requested) -> u32 {
    let flag = |set, flag| if set { flag } else { 0 };
    flag(requested.without_fast_path, Endpoint::NO_FAST_PATH)
        | flag(requested.without_spoof_check, Endpoint::NO_SPOOF_CHECK)
}

/// `<namespace>/<pod>` for people, where the runtime is a kubelet's.
fn pod_name(environment: &Environment) -> Option<String> {
    let name = environment.args.get("K8S_POD_NAME")?;
    Some(format!("{}/{name}", environment.args.get("K8S_POD_NAMESPACE").unwrap_or_default()))
}

/// The node's facts, and the programs to attach: `None` where the kernel's routes alone are wanted, or all there is.
///
/// The first ADD after boot on a node without a daemon prepares the node, and writes down what came of it.
fn node(config: &Config) -> Result<(Option<Facts>, Option<Attachable<'_>>), CniError> {
    let mut facts = Facts::read(&config.state)?;
    if let Some(facts) = &facts {
        facts.check_netns(&config.state)?;
    }
    if config.datapath == Datapath::Route {
        // What one network wants says nothing about the node.
        return Ok((facts, None));
    }
    let mut programs = config.opened()?;
    if programs.is_none() && !config.routes_only(facts.as_ref()) {
        (facts, programs) = prepare_node(config)?;
    }
    let programs = programs.filter(|_| !config.routes_only(facts.as_ref()));
    Ok((facts, programs.map(|programs| Attachable { programs, pins: &config.pins })))
}

fn prepare_node(config: &Config) -> Result<(Option<Facts>, Option<Programs>), CniError> {
    let _lock = config.state.lock()?;
    // Whoever held the lock before may have done it.
    let (facts, programs) = (Facts::read(&config.state)?, config.opened()?);
    if programs.is_some() || config.routes_only(facts.as_ref()) {
        return Ok((facts, programs));
    }
    let mode = prepare(&config.pins, config.settings())?;
    eprintln!("minicni: prepared the node, as no daemon has: datapath {mode}");
    let facts = match facts {
        Some(facts) => Facts { datapath: mode, ..facts },
        None => Facts::new(mode)?,
    };
    facts.write(&config.state)?;
    Ok((Some(facts), config.opened()?))
}

/// Releases the lease of an ADD that failed. A DEL follows in any case.
fn give_back(store: &Store, owner: &Owner) {
    if let Err(error) = store.release(owner) {
        eprintln!("minicni: the lease of {owner} stays until DEL: {error}");
    }
}

fn result(wiring: &Wiring<'_>, gateways: &[IpAddr], request: &Request, requested: Requested) -> AddResult {
    let sandbox = request.environment.netns.as_ref().map(|path| path.to_string_lossy().into_owned());
    let interface = |name: &str, mac: MacAddress, sandbox| Interface {
        name: name.to_owned(),
        mac: mac.to_string(),
        mtu: Some(wiring.mtu),
        sandbox,
        ..Interface::default()
    };
    let ip = |address: &IpAddr| Ip {
        address: IpNet::from(*address),
        gateway: Some(gateway(*address)),
        interface: Some(1),
        other: serde_json::Map::new(),
    };
    let route = |dst: IpNet, mtu: Option<u32>| Route {
        dst,
        gw: Some(gateway(dst.addr())),
        other: mtu.into_iter().map(|mtu| ("mtu".to_owned(), mtu.into())).collect(),
    };
    let defaults = gateways.iter().map(|gateway| route(anywhere(*gateway), None));
    AddResult {
        interfaces: vec![
            interface(&wiring.names.host, wiring.names.host_mac, None),
            interface(wiring.ifname, wiring.pod_mac, sandbox),
        ],
        ips: wiring.addresses.iter().map(ip).collect(),
        routes: defaults.chain(wiring.routes.iter().map(|further| route(further.destination, further.mtu))).collect(),
        dns: if requested.dns.is_empty() { request.config.dns.clone() } else { requested.dns },
    }
}
