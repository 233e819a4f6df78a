//! Prefixes that were this node's, and that pods still have addresses of.

use ipnet::IpNet;

use crate::{
    cni::CniError,
    ipam::LeaseState,
    node::{Facts, StateDir},
    plugin::reclaim,
};

/// The prefixes that `node.json` names and that are not among `current`, as far as a pod has an address of them. Where
/// the leases cannot be read, all of them stay.
pub(in crate::daemon) fn prefixes(state: &StateDir, current: &[IpNet]) -> Vec<IpNet> {
    let Some(facts) = Facts::read(state).ok().flatten() else { return Vec::new() };
    let mut former: Vec<IpNet> = Vec::new();
    for prefix in facts.pod_cidrs.into_iter().chain(facts.former_pod_cidrs) {
        if !current.iter().chain(&former).any(|other| other.contains(&prefix)) {
            former.push(prefix);
        }
    }
    former.retain(|prefix| is_in_use(state, *prefix).unwrap_or(true));
    former
}

fn is_in_use(state: &StateDir, prefix: IpNet) -> Result<bool, CniError> {
    for network in reclaim::networks(state)? {
        let Some(store) = reclaim::leases(state, &network)? else { continue };
        let used = |lease: &crate::ipam::Lease| {
            prefix.contains(&lease.address) && !matches!(lease.state, LeaseState::Cooling { .. })
        };
        if store.list()?.iter().any(used) {
            return Ok(true);
        }
    }
    Ok(false)
}
