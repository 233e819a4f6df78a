use std::{fmt, net::IpAddr};

use clap::Args;
use serde::Serialize;

use super::{Answer, Entry, Failure, Scope, stores};
use crate::{
    ipam::{LeaseState, Store},
    node::StateDir,
    plugin::reclaim::{self, Dead},
};

/// `minicnid ipam release`.
#[derive(Args, Debug)]
pub(super) struct Release {
    /// The address
    address: IpAddr,
    /// Release it even if the pod's device is there: the pod is detached and has no network any more
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    scope: Scope,
}

/// What was released.
#[derive(Debug, Serialize)]
pub(super) struct Released {
    network: String,
    addresses: Vec<IpAddr>,
    holder: String,
}

impl Release {
    pub(super) fn run(&self) -> Result<Released, Failure> {
        let state = self.scope.directories.state();
        let stores = stores(&state, self.scope.network.as_deref())?;
        let entry = self.held(&state, &stores)?;
        // What nobody claims is released by it, and a lease that its owner does not name is found again.
        if let Some((network, store)) = stores.iter().find(|(network, _)| *network == entry.network)
            && store.sweep()?.reclaimed.contains(&self.address)
        {
            return Ok(Released { network: network.clone(), addresses: vec![self.address], holder: entry.holder() });
        }
        let Entry { network, lease, .. } = &entry;
        let changed = || Failure::Changed { address: self.address, holder: entry.holder() };
        let Some(owner) = &entry.owner else { return Err(changed()) };
        if !self.force && reclaim::has_device(network, owner)? {
            let device = reclaim::device(network, owner);
            return Err(Failure::InUse { address: self.address, holder: entry.holder(), device });
        }
        let pins = self.scope.directories.pins();
        let addresses = match &lease.state {
            LeaseState::Leased { since, .. } if !self.force => {
                let dead = Dead { network: network.clone(), owner: owner.clone(), since: *since };
                reclaim::reclaim(&state, &pins, &dead)?
            }
            _ => reclaim::detach(&state, &pins, network, owner)?,
        };
        if !addresses.contains(&self.address) {
            return Err(changed());
        }
        Ok(Released { network: network.clone(), addresses, holder: entry.holder() })
    }

    /// The one lease of the address.
    fn held(&self, state: &StateDir, stores: &[(String, Store)]) -> Result<Entry, Failure> {
        let (mut held, mut note) = (Vec::new(), String::new());
        for (network, store) in stores {
            for entry in Entry::all(network, store)?.into_iter().filter(|entry| entry.lease.address == self.address) {
                match entry.lease.state {
                    LeaseState::Cooling { .. } => note = format!(" (in {network} it was released already, and cools)"),
                    _ => held.push(entry),
                }
            }
        }
        match held.len() {
            0 | 1 => held.pop().ok_or_else(|| Failure::UnknownAddress {
                address: self.address,
                state: state.root().to_owned(),
                searched: stores.iter().map(|(network, _)| network.clone()).collect(),
                note,
            }),
            _ => Err(Failure::Ambiguous {
                address: self.address,
                networks: held.into_iter().map(|entry| entry.network).collect(),
            }),
        }
    }
}

impl Answer for Released {}

impl fmt::Display for Released {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        write!(f, "released {} of network {}, which {} held", addresses.join(" and "), self.network, self.holder)
    }
}
