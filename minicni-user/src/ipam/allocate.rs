//! Handing out addresses.

use std::net::IpAddr;

use super::error::comma_separated;
use super::store::addresses;
use super::{IpamError, LeaseState, Owner, RangeSet, Result, Store, files};

impl Store {
    /// Leases one address out of every set to the owner, all or none, in the order of the sets. `pod`
    /// (`namespace/name`) is for people.
    ///
    /// Addresses are handed out round robin, and those that cool only when nothing else is left, the longest cooled
    /// first. [`IpamError::AlreadyLeased`] if the owner holds a complete lease; what an ADD that was killed left is
    /// cleaned up. [`IpamError::Exhausted`] if a set has nothing left.
    pub fn allocate(&self, owner: &Owner, pod: Option<&str>, sets: &[RangeSet]) -> Result<Vec<IpAddr>> {
        if sets.is_empty() {
            return Err(IpamError::NoRanges);
        }
        RangeSet::check_disjoint(sets)?;
        let _lock = self.lock()?;
        if let Some(indexed) = self.indexed(owner)? {
            let named = indexed.len();
            let held = self.held(owner, indexed);
            if !held.is_empty() && held.len() == named {
                return Err(IpamError::AlreadyLeased { owner: owner.clone(), addresses: held });
            }
            self.release_locked(owner)?;
        }
        let cursors = self.cursors();
        let now = (self.clock)();
        let picked = sets.iter().map(|set| self.pick(set, &cursors, now)).collect::<Result<Vec<_>>>()?;
        if let Err(error) = self.write_leases(owner, pod, &picked, now) {
            // What this can not undo either, the DEL that follows a failed ADD will, or the next ADD.
            let _ = self.release_locked(owner);
            return Err(error);
        }
        // Without the cursor the search begins elsewhere, nothing more.
        let _ = files::replace_link(&self.dir.join("last"), &comma_separated(&picked));
        Ok(picked)
    }

    fn cursors(&self) -> Vec<IpAddr> {
        let text = files::read_link(&self.dir.join("last")).ok().flatten();
        text.and_then(|text| addresses(&text).ok()).unwrap_or_default()
    }

    fn pick(&self, set: &RangeSet, cursors: &[IpAddr], now: u64) -> Result<IpAddr> {
        let cursor = cursors.iter().copied().find(|address| set.contains(*address));
        let (mut leased, mut unreadable) = (0, 0);
        let mut longest_cooled: Option<(u64, IpAddr)> = None;
        for address in set.addresses_after(cursor) {
            match self.lease(address) {
                None => return Ok(address),
                Some(LeaseState::Cooling { since }) if self.has_cooled(since, now) => return Ok(address),
                Some(LeaseState::Cooling { since }) => {
                    if longest_cooled.is_none_or(|(longest, _)| since < longest) {
                        longest_cooled = Some((since, address));
                    }
                }
                Some(LeaseState::Leased { .. }) => leased += 1,
                Some(LeaseState::Unreadable { .. }) => unreadable += 1,
            }
        }
        longest_cooled.map(|(_, address)| address).ok_or_else(|| IpamError::Exhausted {
            set: set.to_string(),
            size: set.size(),
            leased,
            unreadable,
        })
    }

    fn write_leases(&self, owner: &Owner, pod: Option<&str>, picked: &[IpAddr], since: u64) -> Result<()> {
        files::make_link(&self.owner_path(owner), &comma_separated(picked))?;
        let state = LeaseState::Leased { owner: owner.clone(), pod: pod.map(str::to_owned), since };
        picked.iter().try_for_each(|address| self.write_lease(*address, &state))
    }

    pub(super) fn write_lease(&self, address: IpAddr, state: &LeaseState) -> Result<()> {
        let path = self.lease_path(address);
        let text = serde_json::to_vec(state).map_err(|error| IpamError::Io {
            action: "encode",
            path: path.clone(),
            source: error.into(),
        })?;
        files::replace(&path, &text)
    }
}
