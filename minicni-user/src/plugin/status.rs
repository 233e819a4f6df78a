use super::config::Config;
use crate::{
    cni::{CniError, Code, Request},
    ipam::{RangeSet, Store},
    link::sysctl,
    node::{Datapath, Facts},
};

/// Fails where an ADD could not be served, and says whether pods that are there suffer, too. Reads a few files, waits for
/// nobody, changes nothing.
pub(super) fn status(request: &Request) -> Result<(), CniError> {
    let config = Config::new(&request.config)?;
    let not_available = |error: CniError| CniError { code: Code::NotAvailable, ..error };
    config.state.check().map_err(|error| not_available(error.into()))?;
    let facts = Facts::read(&config.state).map_err(|error| not_available(error.into()))?;
    let sets = config.ranges(facts.as_ref(), &[]).map_err(not_available)?;
    let store = config.existing_store().map_err(not_available)?;
    // Asked only where something is wrong: the answer takes longer the more pods there are.
    let has_pods = || store.as_ref().is_some_and(|store| store.has_owners().unwrap_or(false));
    let limited = |error: CniError| CniError { code: Code::NotAvailableLimited, ..error };
    programs(&config).map_err(|error| if has_pods() { limited(error) } else { not_available(error) })?;
    if let Err(error) = forwarding(&sets)
        && has_pods()
    {
        return Err(limited(error));
    }
    store.as_ref().map_or(Ok(()), |store| room(store, &sets)).map_err(not_available)
}

/// Whether the programs are there, or can be loaded, where nothing else will do.
fn programs(config: &Config) -> Result<(), CniError> {
    if config.datapath == Datapath::Ebpf && config.opened()?.is_none() {
        config.pins.check()?;
    }
    Ok(())
}

/// Whether the host forwards what pods send: ADD sees to it, and whoever switched it off since cut the pods off.
fn forwarding(sets: &[RangeSet]) -> Result<(), CniError> {
    for set in sets {
        let key = if set.is_ipv6() { "net/ipv6/conf/all/forwarding" } else { "net/ipv4/ip_forward" };
        let value = sysctl::read(key)?;
        if value != "1" {
            let msg = format!("{key} is {value}: this host does not forward packets of pods; set it to 1");
            return Err(CniError::new(Code::NotAvailableLimited, msg));
        }
    }
    Ok(())
}

fn room(store: &Store, sets: &[RangeSet]) -> Result<(), CniError> {
    let Some(set) = store.exhausted(sets)? else { return Ok(()) };
    let msg = format!("all {} addresses of {set} are leased; delete pods or widen the range", set.size());
    Err(CniError::new(Code::NotAvailable, msg))
}
