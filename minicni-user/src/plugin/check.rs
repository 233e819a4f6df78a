use std::{net::IpAddr, path::Path};

use super::{
    add::sandbox,
    config::Config,
    difference::difference,
    names::Names,
    pod::{PodRoute, gateway},
    wiring::{Attachable, Wiring},
};
use crate::{
    cni::{AddResult, CniError, Code, Environment, Ip, Request, Route},
    ipam::Owner,
    link::MacAddress,
    node::{Datapath, Facts},
};

/// Verifies that an attachment is as ADD made it. Changes nothing.
pub(super) fn check(request: &Request) -> Result<(), CniError> {
    let Request { environment, config: netconf } = request;
    let config = Config::new(netconf)?;
    let requested = request.requested()?;
    let netns = sandbox(environment)?;
    let owner = Owner::new(&environment.container_id, &environment.ifname)?;
    let previous = AddResult::from_prev_result(netconf.prev_result.as_ref().unwrap_or_default())?;

    let store = config.existing_store()?.ok_or_else(|| differs(format!("network {} has no leases", netconf.name)))?;
    let leased = store.addresses_of(&owner)?;
    if leased.is_empty() {
        return Err(differs(format!("{owner} has no lease")));
    }
    let names = Names::new(&netconf.name, owner.container_id(), owner.ifname());
    let told = told(&previous, &names, &leased, environment)?;
    // Those that the configuration got since, the pod never had.
    let routes: Vec<_> = config.routes.iter().copied().filter(|route| was_told(&previous, route)).collect();

    let facts = Facts::read(&config.state)?;
    let without = config.datapath == Datapath::Route || requested.bandwidth_limited;
    let datapath = if without || config.routes_only(facts.as_ref()) {
        None
    } else {
        Some(Attachable { programs: config.pins.open_programs()?, pins: &config.pins })
    };
    let wiring = Wiring {
        names: &names,
        ifname: owner.ifname(),
        netns: &netns,
        addresses: &leased,
        pod_mac: told.mac,
        routes: &routes,
        // These are not compared: they may be others today.
        flags: 0,
        mtu: 0,
        alias: "",
    };
    difference(&wiring, &told.gateways, datapath.as_ref())?.map_or(Ok(()), |difference| Err(differs(difference)))
}

/// What the runtime was told at ADD.
struct Told {
    mac: MacAddress,
    /// The gateways of the default routes that are ours.
    gateways: Vec<IpAddr>,
}

/// Compares what the runtime was told at ADD with what is leased.
fn told(previous: &AddResult, names: &Names, leased: &[IpAddr], environment: &Environment) -> Result<Told, CniError> {
    let sandbox = environment.netns.as_deref();
    let ours = previous.interfaces.iter().enumerate().find(|(_, interface)| {
        interface.name == environment.ifname && interface.sandbox.as_deref().map(Path::new) == sandbox
    });
    let Some((ours, interface)) = ours else {
        return Err(differs(format!("prevResult has no interface {} in this container", environment.ifname)));
    };
    let mac = interface.mac.parse().map_err(|_| {
        differs(format!("prevResult gives {} MAC {:?}, which is none", environment.ifname, interface.mac))
    })?;
    if !previous.interfaces.iter().any(|interface| interface.name == names.host && interface.sandbox.is_none()) {
        return Err(differs(format!("prevResult does not have {} on the host", names.host)));
    }
    for address in leased {
        let has = |ip: &Ip| ip.address.addr() == *address && ip.interface == Some(ours);
        if !previous.ips.iter().any(has) {
            return Err(differs(format!(
                "prevResult does not give {} the leased address {address}",
                environment.ifname
            )));
        }
    }
    // A chained plugin may have told of its own default route; then ours may be there or not.
    let first = previous.interfaces.iter().position(|interface| interface.sandbox.as_deref().map(Path::new) == sandbox);
    let by_us = |gateway: &IpAddr| {
        let default = |route: &Route| route.dst.prefix_len() == 0 && route.gw == Some(*gateway);
        first == Some(ours) && previous.routes.iter().any(default)
    };
    Ok(Told { mac, gateways: leased.iter().map(|address| gateway(*address)).filter(by_us).collect() })
}

fn was_told(previous: &AddResult, route: &PodRoute) -> bool {
    let gateway = Some(gateway(route.destination.addr()));
    previous.routes.iter().any(|told| told.dst == route.destination && told.gw == gateway)
}

fn differs(what: String) -> CniError {
    CniError::new(Code::Own(104), what).details("the attachment is not as ADD made it; DEL and ADD it anew")
}
