use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::{
    config::Config,
    names::Names,
    wiring::{Attachable, GATEWAY, Wiring},
};
use crate::{
    cni::{AddResult, CniError, Code, Environment, Interface, Ip, Request, Route},
    datapath::{Pins, Programs},
    ipam::{Owner, Store},
    link::Netns,
    node::{Datapath, Facts, Mode, Settings, prepare},
};

/// Attaches a container to the network.
pub(super) fn add(request: &Request) -> Result<AddResult, CniError> {
    let Request { environment, config: netconf } = request;
    let config = Config::new(netconf)?;
    let netns = sandbox(environment)?;
    let owner = Owner::new(&environment.container_id, &environment.ifname)?;
    let datapath = datapath(&config)?;
    let facts = Facts::read(&config.state)?;
    let sets = config.ranges(facts.as_ref())?;
    let store = config.store()?;

    let names = Names::new(&netconf.name, owner.container_id(), owner.ifname());
    let pod = pod_name(environment);
    let addresses = store.allocate(&owner, pod.as_deref(), &sets)?;
    let wired = only_v4(&addresses).and_then(|address| {
        let wiring = Wiring {
            names: &names,
            ifname: owner.ifname(),
            netns: &netns,
            address,
            mtu: config.mtu(facts.as_ref()),
            alias: pod.as_deref().unwrap_or(owner.container_id()),
        };
        wiring.wire(datapath.as_ref())?;
        Ok(result(&wiring, environment, request))
    });
    if wired.is_err() {
        give_back(&store, &owner);
    }
    wired
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

/// `<namespace>/<pod>` for people, where the runtime is a kubelet's.
fn pod_name(environment: &Environment) -> Option<String> {
    let name = environment.args.get("K8S_POD_NAME")?;
    Some(format!("{}/{name}", environment.args.get("K8S_POD_NAMESPACE").unwrap_or_default()))
}

/// The programs to attach, or `None` where the kernel's routes alone are wanted or all there is.
///
/// The first ADD after boot on a node without a daemon loads the programs, and writes down if that failed.
fn datapath(config: &Config) -> Result<Option<Attachable<'_>>, CniError> {
    let attachable = |programs| Some(Attachable { programs, pins: &config.pins });
    match config.datapath {
        Datapath::Route => {
            if Facts::read(&config.state)?.is_none() {
                prepare_node(config)?;
            }
            return Ok(None);
        }
        Datapath::Auto | Datapath::Ebpf => {}
    }
    if let Some(programs) = opened(&config.pins)? {
        return Ok(attachable(programs));
    }
    let facts = Facts::read(&config.state)?;
    if config.datapath == Datapath::Auto && facts.is_some_and(|facts| matches!(facts.datapath, Mode::Route { .. })) {
        return Ok(None);
    }
    prepare_node(config)?;
    Ok(opened(&config.pins)?.and_then(attachable))
}

fn opened(pins: &Pins) -> Result<Option<Programs>, CniError> {
    match pins.open_programs() {
        Ok(programs) => Ok(Some(programs)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn prepare_node(config: &Config) -> Result<(), CniError> {
    let _lock = config.state.lock()?;
    // Whoever held the lock before may have done it.
    if config.datapath != Datapath::Route && opened(&config.pins)?.is_some() {
        return Ok(());
    }
    let mode = prepare(&config.pins, Settings { datapath: config.datapath, ebpf_log_level: 0 })?;
    eprintln!("minicni: prepared the node, as no daemon has: datapath {mode}");
    let facts = match Facts::read(&config.state)? {
        Some(facts) => Facts { datapath: mode, ..facts },
        None => Facts::new(mode)?,
    };
    Ok(facts.write(&config.state)?)
}

fn only_v4(addresses: &[IpAddr]) -> Result<Ipv4Addr, CniError> {
    match addresses {
        [IpAddr::V4(address)] => Ok(*address),
        other => {
            Err(CniError::new(Code::UnsupportedField, format!("addresses {other:?}: one IPv4 address is supported")))
        }
    }
}

/// Releases the lease of an ADD that failed. A DEL follows in any case.
fn give_back(store: &Store, owner: &Owner) {
    if let Err(error) = store.release(owner) {
        eprintln!("minicni: the lease of {owner} stays until DEL: {error}");
    }
}

fn result(wiring: &Wiring<'_>, environment: &Environment, request: &Request) -> AddResult {
    let sandbox = environment.netns.as_ref().map(|path| path.to_string_lossy().into_owned());
    let interface = |name: &str, mac: crate::link::MacAddress, sandbox| Interface {
        name: name.to_owned(),
        mac: mac.to_string(),
        mtu: Some(wiring.mtu),
        sandbox,
        ..Interface::default()
    };
    let gateway = Some(IpAddr::V4(GATEWAY));
    AddResult {
        interfaces: vec![
            interface(&wiring.names.host, wiring.names.host_mac, None),
            interface(wiring.ifname, wiring.names.pod_mac, sandbox),
        ],
        ips: vec![Ip {
            address: IpNet::V4(Ipv4Net::from(wiring.address)),
            gateway,
            interface: Some(1),
            other: serde_json::Map::new(),
        }],
        routes: vec![Route { dst: IpNet::V4(Ipv4Net::default()), gw: gateway, other: serde_json::Map::new() }],
        dns: request.config.dns.clone(),
    }
}
