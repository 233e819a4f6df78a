use std::net::IpAddr;

use super::{
    add::sandbox,
    config::Config,
    names::Names,
    wiring::{Attachable, Wiring, difference},
};
use crate::{
    cni::{AddResult, CniError, Code, Request},
    ipam::Owner,
    node::{Datapath, Facts, Mode},
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
    let told = previous.interfaces.iter().position(|interface| {
        interface.name == owner.ifname()
            && interface.sandbox.as_deref().map(AsRef::as_ref) == environment.netns.as_deref()
    });
    let Some(told) = told else {
        return Err(differs(format!("prevResult has no interface {} in this container", owner.ifname())));
    };
    if !previous
        .ips
        .iter()
        .any(|ip| ip.address.addr() == IpAddr::V4(*address) && ip.interface.is_none_or(|of| of == told))
    {
        return Err(differs(format!("prevResult does not have the leased address {address}")));
    }

    let facts = Facts::read(&config.state)?;
    let ebpf = config.datapath != Datapath::Route
        && !facts.as_ref().is_some_and(|facts| matches!(facts.datapath, Mode::Route { .. }));
    let datapath =
        if ebpf { Some(Attachable { programs: config.pins.open_programs()?, pins: &config.pins }) } else { None };
    let wiring = Wiring {
        names: &names,
        ifname: owner.ifname(),
        netns: &netns,
        address: *address,
        mtu: config.mtu(facts.as_ref()),
        alias: "",
    };
    difference(&wiring, datapath.as_ref())?.map_or(Ok(()), |difference| Err(differs(difference)))
}

fn differs(what: String) -> CniError {
    CniError::new(Code::Own(104), what).details("the attachment is not as ADD made it; DEL and ADD it anew")
}
