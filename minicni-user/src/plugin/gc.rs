use std::collections::HashSet;

use super::{
    config::Config,
    del::detach,
    error::Errors,
    names::Names,
    reclaim::{UNFINISHED_ADD, dead, reclaim},
};
use crate::{
    cni::{Attachment, CniError, Request, ValidAttachments},
    ipam::{Owner, Store},
    node::Facts,
};

/// Removes the attachments of the network that the runtime does not list as valid.
pub(super) fn gc(request: &Request) -> Result<(), CniError> {
    let config = Config::lenient(&request.config);
    let Some(store) = config.existing_store()? else { return Ok(()) };
    // Elsewhere no device would be found, and the addresses of living pods be released.
    Facts::check_home(&config.state)?;
    let mut errors = Errors::default();
    errors.keep(store.sweep());
    let network = &request.config.name;
    match &request.config.valid_attachments {
        ValidAttachments::Listed(valid) => {
            for owner in errors.keep(unlisted(&store, valid)).unwrap_or_default() {
                let names = Names::new(network, owner.container_id(), owner.ifname());
                errors.keep(detach(&config, &names, Some((&store, &owner))));
            }
        }
        ValidAttachments::Absent => {
            for dead in errors.keep(dead(&config.state, network, UNFINISHED_ADD)).unwrap_or_default() {
                errors.keep(reclaim(&config.state, &config.pins, &dead));
            }
        }
    }
    errors.into_result()
}

fn unlisted(store: &Store, valid: &[Attachment]) -> Result<Vec<Owner>, CniError> {
    let valid: HashSet<_> = valid.iter().map(|one| (one.container_id.as_str(), one.ifname.as_str())).collect();
    let owners = store.owners()?.into_iter();
    Ok(owners.filter(|owner| !valid.contains(&(owner.container_id(), owner.ifname()))).collect())
}
