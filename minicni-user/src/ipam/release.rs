//! Taking addresses back.

use std::io::ErrorKind;
use std::net::IpAddr;

use super::{IpamError, LeaseState, Owner, Result, Store, files};

impl Store {
    /// Releases what the owner holds and says what that was; its cooldown begins. Nothing is done and nothing is
    /// wrong if the owner is unknown, so it may be repeated.
    pub fn release(&self, owner: &Owner) -> Result<Vec<IpAddr>> {
        let _lock = self.lock()?;
        self.release_locked(owner)
    }

    pub(super) fn release_locked(&self, owner: &Owner) -> Result<Vec<IpAddr>> {
        let mut released = Vec::new();
        let Some(indexed) = self.indexed(owner)? else { return Ok(released) };
        for address in indexed {
            // The symlink of an ADD that was killed may name what somebody else was given since.
            let own = match self.lease(address) {
                Some(LeaseState::Unreadable { .. }) => !self.is_indexed_by_another(owner, address)?,
                Some(state) => state.is_leased_by(owner),
                None => false,
            };
            if own {
                self.cool(address)?;
                released.push(address);
            }
        }
        files::remove(&self.owner_path(owner))?;
        Ok(released)
    }

    pub(super) fn cool(&self, address: IpAddr) -> Result<()> {
        match self.write_lease(address, &LeaseState::Cooling { since: (self.clock)() }) {
            // A full disk must not keep a pod from being deleted: better no cooldown than no release.
            Err(IpamError::Io { source, .. }) if source.kind() == ErrorKind::StorageFull => {
                files::remove(&self.lease_path(address))
            }
            done => done,
        }
    }

    fn is_indexed_by_another(&self, owner: &Owner, address: IpAddr) -> Result<bool> {
        for other in self.owners()?.iter().filter(|other| *other != owner) {
            if self.indexed(other)?.is_some_and(|addresses| addresses.contains(&address)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
