//! What no ADD or DEL does, because it takes as long as there are leases.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::error::comma_separated;
use super::{LeaseState, Owner, Result, Store, files};

/// What a sweep found and put right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Addresses whose cooldown is over; their files are gone.
    pub cooled: Vec<IpAddr>,
    /// Addresses with an unreadable lease that nobody claims; they cool now.
    pub reclaimed: Vec<IpAddr>,
    /// Owners whose symlink named nothing they hold, left by an ADD or DEL that was killed; it is gone.
    pub dangling: Vec<Owner>,
    /// Owners of a lease that their symlink did not name; it does now, so that a DEL finds it.
    pub reindexed: Vec<Owner>,
}

impl Store {
    /// Removes what is over and repairs what is damaged. No lease of anybody ends by it. For a garbage collection to
    /// call, before it asks for the [`owners`](Self::owners): a large pool otherwise collects a file for every address
    /// it ever handed out.
    pub fn sweep(&self) -> Result<Swept> {
        let _lock = self.lock()?;
        for dir in [self.leases(), self.owners_dir()] {
            files::make_dir(&dir)?;
        }
        let mut swept = Swept::default();
        let mut claims = BTreeMap::new();
        for owner in self.owners()? {
            let indexed = self.indexed(&owner)?.unwrap_or_default();
            if self.held(&owner, indexed.clone()).is_empty() {
                files::remove(&self.owner_path(&owner))?;
                swept.dangling.push(owner);
            } else {
                claims.insert(owner, indexed);
            }
        }
        let claimed: BTreeSet<IpAddr> = claims.values().flatten().copied().collect();
        let mut orphans: BTreeMap<Owner, Vec<IpAddr>> = BTreeMap::new();
        let now = (self.clock)();
        for lease in self.list()? {
            let address = lease.address;
            match lease.state {
                LeaseState::Cooling { since } if self.has_cooled(since, now) => {
                    files::remove(&self.lease_path(address))?;
                    swept.cooled.push(address);
                }
                LeaseState::Unreadable { .. } if !claimed.contains(&address) => {
                    self.cool(address)?;
                    swept.reclaimed.push(address);
                }
                LeaseState::Leased { owner, .. } if !claims.get(&owner).is_some_and(|own| own.contains(&address)) => {
                    orphans.entry(owner).or_default().push(address);
                }
                LeaseState::Cooling { .. } | LeaseState::Unreadable { .. } | LeaseState::Leased { .. } => {}
            }
        }
        for (owner, lost) in orphans {
            let mut addresses = claims.remove(&owner).unwrap_or_default();
            addresses.extend(lost);
            files::replace_link(&self.owner_path(&owner), &comma_separated(&addresses))?;
            swept.reindexed.push(owner);
        }
        Ok(swept)
    }
}
