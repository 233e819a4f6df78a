use std::net::IpAddr;

use super::{config::Config, error::Errors, names::Names, unwire::unwire};
use crate::{
    cni::{CniError, Request},
    ipam::{Owner, Store},
};

/// Detaches a container. Needs neither its namespace nor a `prevResult`, a daemon or a record.
pub(super) fn del(request: &Request) -> Result<(), CniError> {
    let config = Config::lenient(&request.config);
    let environment = &request.environment;
    let mut errors = Errors::default();
    let store = errors.keep(config.existing_store()).flatten();
    // A container whose id no lease can have has no lease.
    let owner = Owner::new(&environment.container_id, &environment.ifname).ok();
    let store = store.as_ref().zip(owner.as_ref());
    let names = Names::new(&request.config.name, &environment.container_id, &environment.ifname);
    errors.keep(detach(&config, &names, store));
    errors.into_result()
}

/// Removes the wiring and then the lease of one attachment. The lease stays if the wiring could not be removed: its
/// address is still in use.
pub(super) fn detach(config: &Config, names: &Names, lease: Option<(&Store, &Owner)>) -> Result<(), CniError> {
    let mut errors = Errors::default();
    // An ADD may still be at work, of a runtime that was killed.
    let _held = lease.and_then(|(store, owner)| errors.keep(store.hold(owner)));
    let addresses: Vec<IpAddr> = match lease {
        Some((store, owner)) => errors.keep(store.addresses_of(owner)).unwrap_or_default(),
        None => Vec::new(),
    };
    errors.keep(unwire(&config.state, names, &addresses, Some(&config.pins)));
    if let Some((store, owner)) = lease
        && errors.is_empty()
    {
        errors.keep(store.release(owner));
    }
    errors.into_result()
}
