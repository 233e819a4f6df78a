//! The directory of one network: opening it, and what can be read without the lock.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::allocate::PROBES;
use super::clock::{Clock, boottime};
use super::{Lease, LeaseState, Owner, RangeSet, Result, files};

/// The leases of one network, on disk. Any number of processes may have it open; every change is made under a lock that
/// is held during one call.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) dir: PathBuf,
    pub(super) cooldown: Duration,
    pub(super) clock: Clock,
}

impl Store {
    /// Opens `dir` (`<stateDir>/ipam/<network>`), which is created if need be. `boot_id` is that of the running kernel;
    /// what an earlier boot left is dropped. A released address rests for `cooldown` while others are free.
    pub fn open(dir: &Path, boot_id: &str, cooldown: Duration) -> Result<Self> {
        let store = Self { dir: dir.to_owned(), cooldown, clock: boottime };
        if !store.is_of_boot(boot_id) {
            store.start_boot(boot_id)?;
        }
        store.record_cooldown()?;
        Ok(store)
    }

    /// The leases at `dir` if they are of this boot, else `None`: those of an earlier one mean nothing. Changes nothing.
    pub fn existing(dir: &Path, boot_id: &str, cooldown: Duration) -> Option<Self> {
        let store = Self { dir: dir.to_owned(), cooldown, clock: boottime };
        store.is_of_boot(boot_id).then_some(store)
    }

    /// As [`existing`](Self::existing), with the cooldown that the last ADD brought along, for whoever knows the network by
    /// its directory only. Where that cannot be read, no cooldown ever ends for this caller.
    pub fn recorded(dir: &Path, boot_id: &str) -> Option<Self> {
        let store = Self::existing(dir, boot_id, Duration::MAX)?;
        let cooldown = store.recorded_cooldown().unwrap_or(store.cooldown);
        Some(Self { cooldown, ..store })
    }

    fn recorded_cooldown(&self) -> Option<Duration> {
        let text = files::read_link(&self.dir.join("cooldown")).ok().flatten()?;
        text.parse().map(Duration::from_secs).ok()
    }

    fn record_cooldown(&self) -> Result<()> {
        if self.recorded_cooldown() == Some(self.cooldown) {
            return Ok(());
        }
        let _lock = self.lock()?;
        files::replace_link(&self.dir.join("cooldown"), &self.cooldown.as_secs().to_string())
    }

    /// Keeps other calls about the same attachment waiting until the file is dropped, so that a DEL finds all that an
    /// ADD makes, or nothing.
    pub fn hold(&self, owner: &Owner) -> Result<File> {
        files::lock_byte(&self.attachments(), byte_of(owner))
    }

    /// As [`hold`](Self::hold), but does not wait: `None` while an ADD or DEL of the attachment is at work.
    pub fn try_hold(&self, owner: &Owner) -> Result<Option<File>> {
        files::try_lock_byte(&self.attachments(), byte_of(owner))
    }

    fn attachments(&self) -> PathBuf {
        self.dir.join("attachments")
    }

    fn is_of_boot(&self, boot_id: &str) -> bool {
        // A file that can not be read is written anew, which tells what is wrong with it.
        matches!(files::read(&self.dir.join("boot_id")), Ok(Some(found)) if found == boot_id.as_bytes())
    }

    /// The boot id is written last: whoever is killed half way leaves the old one, and all of this is done again.
    fn start_boot(&self, boot_id: &str) -> Result<()> {
        files::make_dir(&self.dir)?;
        let _lock = self.lock()?;
        if self.is_of_boot(boot_id) {
            return Ok(());
        }
        for dir in [self.leases(), self.owners_dir()] {
            files::make_dir(&dir)?;
            for name in files::names(&dir)? {
                files::remove(&dir.join(name))?;
            }
        }
        files::replace(&self.dir.join("boot_id"), boot_id.as_bytes())
    }

    /// The addresses that are leased or cooling, in the order of addresses.
    pub fn list(&self) -> Result<Vec<Lease>> {
        let mut leases: Vec<Lease> = files::names(&self.leases())?
            .iter()
            .filter_map(|name| address_of(name))
            .filter_map(|address| Some(Lease { address, state: self.lease(address)? }))
            .collect();
        leases.sort_unstable_by_key(|lease| lease.address);
        Ok(leases)
    }

    /// Everybody who holds addresses. An owner whose ADD or DEL was killed may be among them; releasing it is right.
    pub fn owners(&self) -> Result<Vec<Owner>> {
        let names = files::names(&self.owners_dir())?;
        Ok(names.into_iter().filter_map(|name| Owner::try_from(name).ok()).collect())
    }

    /// Whether anybody holds addresses, as far as [`owners`](Self::owners) would tell, but without listing them.
    pub fn has_owners(&self) -> Result<bool> {
        files::any_name(&self.owners_dir())
    }

    /// The addresses of an owner, in the order of the range sets; none if it is unknown. One whose lease is unreadable
    /// is among them.
    pub fn addresses_of(&self, owner: &Owner) -> Result<Vec<IpAddr>> {
        Ok(self.held(owner, self.indexed(owner)?.unwrap_or_default()))
    }

    /// The leases of an owner, in the order of the range sets; none if it is unknown. An unreadable one is among them.
    pub fn leases_of(&self, owner: &Owner) -> Result<Vec<Lease>> {
        let addresses = self.addresses_of(owner)?.into_iter();
        Ok(addresses.filter_map(|address| Some(Lease { address, state: self.lease(address)? })).collect())
    }

    /// The first owner whose symlink names the address, which says who holds it where the lease is unreadable. Takes as
    /// long as there are owners.
    pub fn claimant(&self, address: IpAddr) -> Result<Option<Owner>> {
        for owner in self.owners()? {
            if self.indexed(&owner)?.is_some_and(|addresses| addresses.contains(&address)) {
                return Ok(Some(owner));
            }
        }
        Ok(None)
    }

    /// The addresses that have a lease file, which may say that they have cooled. Reads none of the files.
    pub(super) fn named(&self) -> Result<HashSet<IpAddr>> {
        let mut named = HashSet::new();
        files::each_name(&self.leases(), |name| named.extend(address_of(name)))?;
        Ok(named)
    }

    /// The first of the sets that an ADD would find exhausted. Mostly it looks where the next ADD will; leases are listed
    /// only where that says nothing, and files read only where every address of a set has one.
    pub fn exhausted<'a>(&self, sets: &'a [RangeSet]) -> Result<Option<&'a RangeSet>> {
        let has_next =
            |set: &RangeSet, cursor| set.addresses_after(cursor).take(PROBES).any(|next| self.is_to_be_had(next));
        if sets.iter().zip(self.cursors(sets)).all(|(set, cursor)| has_next(set, cursor)) {
            return Ok(None);
        }
        let named = self.named()?;
        Ok(sets.iter().find(|set| {
            let mut of_set = named.iter().filter(|address| set.contains(**address));
            u128::try_from(of_set.clone().count()).is_ok_and(|count| count >= set.size())
                && !of_set.any(|address| self.is_to_be_had(*address))
        }))
    }

    fn is_to_be_had(&self, address: IpAddr) -> bool {
        matches!(self.lease(address), None | Some(LeaseState::Cooling { .. }))
    }

    pub(super) fn lock(&self) -> Result<File> {
        files::lock(&self.dir.join("lock"))
    }

    pub(super) fn leases(&self) -> PathBuf {
        self.dir.join("leases")
    }

    pub(super) fn lease_path(&self, address: IpAddr) -> PathBuf {
        self.leases().join(address.to_string())
    }

    pub(super) fn owners_dir(&self) -> PathBuf {
        self.dir.join("owners")
    }

    pub(super) fn owner_path(&self, owner: &Owner) -> PathBuf {
        self.owners_dir().join(owner.to_string())
    }

    /// Why an address is not free, `None` if it is.
    pub(super) fn lease(&self, address: IpAddr) -> Option<LeaseState> {
        match files::read(&self.lease_path(address)) {
            Ok(contents) => Some(LeaseState::decode(&contents?)),
            Err(error) => Some(LeaseState::Unreadable { reason: error.to_string() }),
        }
    }

    /// Seconds are whole, so it must be more than the cooldown to be never less.
    pub(super) fn has_cooled(&self, since: u64, now: u64) -> bool {
        Duration::from_secs(now.saturating_sub(since)) > self.cooldown
    }

    /// The addresses that the owner's symlink names, `None` if there is none. A symlink that says nothing sensible is
    /// answered from the leases themselves, which takes as long as there are leases.
    pub(super) fn indexed(&self, owner: &Owner) -> Result<Option<Vec<IpAddr>>> {
        let Some(text) = files::read_link(&self.owner_path(owner))? else { return Ok(None) };
        if let Ok(addresses) = addresses(&text) {
            return Ok(Some(addresses));
        }
        let own = self.list()?.into_iter().filter(|lease| lease.state.is_leased_by(owner));
        Ok(Some(own.map(|lease| lease.address).collect()))
    }

    /// Those of the addresses its symlink names that the owner really has, or may have.
    pub(super) fn held(&self, owner: &Owner, indexed: Vec<IpAddr>) -> Vec<IpAddr> {
        let holds = |state: LeaseState| state.is_leased_by(owner) || matches!(state, LeaseState::Unreadable { .. });
        indexed.into_iter().filter(|address| self.lease(*address).is_some_and(holds)).collect()
    }
}

/// Which byte of the file of attachments is the owner's.
fn byte_of(owner: &Owner) -> u64 {
    let mut hasher = DefaultHasher::new();
    owner.hash(&mut hasher);
    hasher.finish() >> 1
}

/// The address whose lease a file of this name is; `None` for a foreign file.
fn address_of(name: &str) -> Option<IpAddr> {
    name.parse::<IpAddr>().ok().filter(|address| address.to_string() == *name)
}

/// The addresses in the text of a symlink.
pub(super) fn addresses(text: &str) -> std::result::Result<Vec<IpAddr>, std::net::AddrParseError> {
    text.split(',').map(str::parse).collect()
}
