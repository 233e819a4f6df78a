use std::{collections::HashSet, time::Duration};

use super::{config::Config, del::detach, error::Errors, names::Names};
use crate::{
    cni::{Attachment, CniError, Request, ValidAttachments},
    ipam::{LeaseState, Owner, Store, boottime},
    link::Socket,
};

/// How old the lease of a missing device must be to count as dead where the runtime does not say what is valid: an ADD
/// takes its lease before it makes the device.
const UNFINISHED_ADD: Duration = Duration::from_mins(1);

/// Removes the attachments of the network that the runtime does not list as valid.
pub(super) fn gc(request: &Request) -> Result<(), CniError> {
    let config = Config::lenient(&request.config);
    let Some(store) = config.existing_store()? else { return Ok(()) };
    let mut errors = Errors::default();
    errors.keep(store.sweep());
    let stale = match &request.config.valid_attachments {
        ValidAttachments::Listed(valid) => errors.keep(unlisted(&store, valid)),
        ValidAttachments::Absent => errors.keep(dead(&store, &request.config.name)),
    };
    for owner in stale.unwrap_or_default() {
        let names = Names::new(&request.config.name, owner.container_id(), owner.ifname());
        errors.keep(detach(&config, &names, Some((&store, &owner))));
    }
    errors.into_result()
}

fn unlisted(store: &Store, valid: &[Attachment]) -> Result<Vec<Owner>, CniError> {
    let valid: HashSet<_> = valid.iter().map(|one| (one.container_id.as_str(), one.ifname.as_str())).collect();
    let owners = store.owners()?.into_iter();
    Ok(owners.filter(|owner| !valid.contains(&(owner.container_id(), owner.ifname()))).collect())
}

/// Owners whose device is gone, and with it the namespace it led into.
fn dead(store: &Store, network: &str) -> Result<Vec<Owner>, CniError> {
    let mut socket = Socket::open()?;
    let mut dead = Vec::new();
    for lease in store.list()? {
        let LeaseState::Leased { owner, since, .. } = lease.state else { continue };
        let host = Names::new(network, owner.container_id(), owner.ifname()).host;
        let age = boottime().saturating_sub(since);
        if age >= UNFINISHED_ADD.as_secs() && socket.link_by_name(&host)?.is_none() {
            dead.push(owner);
        }
    }
    Ok(dead)
}
