use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use super::{
    add::sandbox,
    config::Config,
    names::Names,
    wiring::{Attachable, GATEWAY, Routed, Wiring, difference},
};
use crate::{
    cni::{AddResult, CniError, Code, Environment, Ip, Request, Route},
    ipam::Owner,
    node::{Datapath, Facts},
};

/// Verifies that an attachment is as ADD made it. Changes nothing.
pub(super) fn check(request: &Request) -> Result<(), CniError> {
    let Request { environment, config: netconf } = request;
    let config = Config::new(netconf)?;
    let netns = sandbox(environment)?;
    let owner = Owner::new(&environment.container_id, &environment.ifname)?;
    let previous = AddResult::from_prev_result(netconf.prev_result.as_ref().unwrap_or_default())?;

    let store = config.existing_store()?.ok_or_else(|| differs(format!("network {} has no leases", netconf.name)))?;
    let leased = store.addresses_of(&owner)?;
    let [IpAddr::V4(address)] = leased.as_slice() else {
        return Err(differs(format!("{owner} has leases {leased:?}; one IPv4 address was expected")));
    };
    let names = Names::new(&netconf.name, owner.container_id(), owner.ifname());
    let routed = told(&previous, &names, *address, environment)?;

    let facts = Facts::read(&config.state)?;
    let datapath = if config.datapath == Datapath::Route || config.routes_only(facts.as_ref()) {
        None
    } else {
        Some(Attachable { programs: config.pins.open_programs()?, pins: &config.pins })
    };
    let wiring = Wiring {
        names: &names,
        ifname: owner.ifname(),
        netns: &netns,
        address: *address,
        mtu: config.mtu(facts.as_ref()),
        alias: "",
    };
    difference(&wiring, routed, datapath.as_ref())?.map_or(Ok(()), |difference| Err(differs(difference)))
}

/// Compares what the runtime was told at ADD with what is leased; says whose default route it was told of.
fn told(previous: &AddResult, names: &Names, address: Ipv4Addr, environment: &Environment) -> Result<Routed, CniError> {
    let sandbox = environment.netns.as_deref();
    let ours = previous.interfaces.iter().enumerate().find(|(_, interface)| {
        interface.name == environment.ifname && interface.sandbox.as_deref().map(Path::new) == sandbox
    });
    let Some((ours, interface)) = ours else {
        return Err(differs(format!("prevResult has no interface {} in this container", environment.ifname)));
    };
    let mac = &interface.mac;
    if !mac.eq_ignore_ascii_case(&names.pod_mac.to_string()) {
        return Err(differs(format!("prevResult gives {} MAC {mac} instead of {}", environment.ifname, names.pod_mac)));
    }
    if !previous.interfaces.iter().any(|interface| interface.name == names.host && interface.sandbox.is_none()) {
        return Err(differs(format!("prevResult does not have {} on the host", names.host)));
    }
    let has = |ip: &Ip| ip.address.addr() == IpAddr::V4(address) && ip.interface == Some(ours);
    if !previous.ips.iter().any(has) {
        return Err(differs(format!("prevResult does not give {} the leased address {address}", environment.ifname)));
    }
    // A chained plugin may have told of its own default route; then ours may be there or not.
    let default = |route: &Route| route.dst.prefix_len() == 0 && route.gw == Some(IpAddr::V4(GATEWAY));
    let first = previous.interfaces.iter().position(|interface| interface.sandbox.as_deref().map(Path::new) == sandbox);
    let by_us = first == Some(ours) && previous.routes.iter().any(default);
    Ok(if by_us { Routed::ByUs } else { Routed::Already })
}

fn differs(what: String) -> CniError {
    CniError::new(Code::Own(104), what).details("the attachment is not as ADD made it; DEL and ADD it anew")
}
