//! The addresses of each network.

use std::{collections::BTreeMap, fmt};

use prometheus_client::encoding::DescriptorEncoder;

use super::encode::gauges;
use crate::{
    cni::CniError,
    ipam::{LeaseState, Pool},
    node::StateDir,
    plugin::reclaim,
};

type Labels = [(&'static str, String); 3];

/// The addresses of all networks that ever had a lease here.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    by_state: BTreeMap<Labels, u128>,
    pools: Vec<([(&'static str, String); 2], u128)>,
}

impl Addresses {
    /// Reads every lease. Takes no lock.
    pub(super) fn read(state: &StateDir) -> Result<Self, CniError> {
        let mut this = Self::default();
        for network in reclaim::networks(state)? {
            let Some(store) = reclaim::leases(state, &network)? else { continue };
            let mut taken = Pool::default();
            for lease in store.list()? {
                let (family, of_family) =
                    if lease.address.is_ipv6() { ("ipv6", &mut taken.ipv6) } else { ("ipv4", &mut taken.ipv4) };
                *of_family += 1;
                *this.of(&network, family, name(&lease.state)) += 1;
            }
            let Some(pool) = store.recorded_pool() else { continue };
            for (family, size, taken) in [("ipv4", pool.ipv4, taken.ipv4), ("ipv6", pool.ipv6, taken.ipv6)] {
                if size > 0 {
                    *this.of(&network, family, "free") = size.saturating_sub(taken);
                    this.pools.push(([("network", network.clone()), ("family", family.to_owned())], size));
                }
            }
        }
        Ok(this)
    }

    /// A counter, and those beside it, so that each begins with 0.
    fn of(&mut self, network: &str, family: &str, state: &str) -> &mut u128 {
        let labels =
            |state: &str| [("network", network.to_owned()), ("family", family.to_owned()), ("state", state.to_owned())];
        for state in ["leased", "cooling"] {
            self.by_state.entry(labels(state)).or_default();
        }
        self.by_state.entry(labels(state)).or_default()
    }

    pub(super) fn encode(self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let by_state = self.by_state.into_iter().map(|(labels, count)| (labels, float(count)));
        gauges(encoder, "minicni_addresses", "Addresses of a network for pods, by state", by_state)?;
        let pools = self.pools.into_iter().map(|(labels, size)| (labels, float(size)));
        gauges(encoder, "minicni_pool_addresses", "Addresses that a network hands out, as of its last ADD", pools)
    }
}

fn name(state: &LeaseState) -> &'static str {
    match state {
        LeaseState::Leased { .. } => "leased",
        LeaseState::Cooling { .. } => "cooling",
        LeaseState::Unreadable { .. } => "unreadable",
    }
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts the addresses of a /64 one by one")]
fn float(count: u128) -> f64 {
    count as f64
}
