//! Handing out addresses.

use std::net::IpAddr;

use super::error::comma_separated;
use super::store::addresses;
use super::{IpamError, LeaseState, Owner, RangeSet, Result, Store, files};

/// How many lease files are opened one by one until the directory is listed instead.
pub(super) const PROBES: usize = 8;

impl Store {
    /// Leases one address out of every set to the owner, all or none, in the order of the sets. `pod`
    /// (`namespace/name`) is for people.
    ///
    /// A set that hands out one of the `requested` addresses gives that one, even while it cools. It is an error if no set
    /// hands it out ([`IpamError::NotInRanges`]), if it is the second of its set ([`IpamError::TwoRequested`]) or in use
    /// ([`IpamError::Taken`]). From the other sets addresses are handed out round robin, and those that cool only when
    /// nothing else is left, the longest cooled first; [`IpamError::Exhausted`] if nothing is.
    /// [`IpamError::AlreadyLeased`] if the owner holds a complete lease; what an ADD that was killed left is cleaned up.
    pub fn allocate(
        &self,
        owner: &Owner,
        pod: Option<&str>,
        sets: &[RangeSet],
        requested: &[IpAddr],
    ) -> Result<Vec<IpAddr>> {
        if sets.is_empty() {
            return Err(IpamError::NoRanges);
        }
        RangeSet::check_disjoint(sets)?;
        let requested = by_set(sets, requested)?;
        let _lock = self.lock()?;
        if let Some(indexed) = self.indexed(owner)? {
            let named = indexed.len();
            let held = self.held(owner, indexed);
            if !held.is_empty() && held.len() == named {
                return Err(IpamError::AlreadyLeased { owner: owner.clone(), addresses: held });
            }
            self.release_locked(owner)?;
        }
        let now = (self.clock)();
        let mut cursors = self.cursors(sets);
        let mut picked = Vec::with_capacity(sets.len());
        for ((set, requested), cursor) in sets.iter().zip(requested).zip(&mut cursors) {
            picked.push(match requested {
                Some(address) => self.unless_taken(address)?,
                None => *cursor.insert(self.pick(set, *cursor, now)?),
            });
        }
        if let Err(error) = self.write_leases(owner, pod, &picked, now) {
            // What this can not undo either, the DEL that follows a failed ADD will, or the next ADD.
            let _ = self.release_locked(owner);
            return Err(error);
        }
        let cursors: Vec<IpAddr> = cursors.into_iter().flatten().collect();
        if !cursors.is_empty() {
            // Without the cursor the search begins elsewhere, nothing more.
            let _ = files::replace_link(&self.dir.join("last"), &comma_separated(&cursors));
        }
        Ok(picked)
    }

    /// The address last picked out of each set.
    pub(super) fn cursors(&self, sets: &[RangeSet]) -> Vec<Option<IpAddr>> {
        let text = files::read_link(&self.dir.join("last")).ok().flatten();
        let last = text.and_then(|text| addresses(&text).ok()).unwrap_or_default();
        sets.iter().map(|set| last.iter().copied().find(|address| set.contains(*address))).collect()
    }

    fn unless_taken(&self, address: IpAddr) -> Result<IpAddr> {
        let holder = match self.lease(address) {
            None | Some(LeaseState::Cooling { .. }) => return Ok(address),
            Some(LeaseState::Leased { owner, pod: Some(pod), .. }) => format!("{owner} ({pod}) holds it"),
            Some(LeaseState::Leased { owner, pod: None, .. }) => format!("{owner} holds it"),
            Some(LeaseState::Unreadable { reason }) => format!("its lease cannot be read ({reason})"),
        };
        Err(IpamError::Taken { address, holder })
    }

    fn pick(&self, set: &RangeSet, cursor: Option<IpAddr>, now: u64) -> Result<IpAddr> {
        for address in set.addresses_after(cursor).take(PROBES) {
            match self.lease(address) {
                None => return Ok(address),
                Some(LeaseState::Cooling { since }) if self.has_cooled(since, now) => return Ok(address),
                Some(_) => {}
            }
        }
        // Pods that live long lie in a row. To open their files takes longer than to list them all.
        let named = self.named()?;
        match set.addresses_after(cursor).find(|address| !named.contains(address)) {
            Some(address) => Ok(address),
            None => self.pick_cooled(set, cursor, now),
        }
    }

    /// Picks out of a set all of whose addresses have a lease file: the first that has cooled, or else the longest cooled.
    fn pick_cooled(&self, set: &RangeSet, cursor: Option<IpAddr>, now: u64) -> Result<IpAddr> {
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

/// The requested address of each set.
fn by_set(sets: &[RangeSet], requested: &[IpAddr]) -> Result<Vec<Option<IpAddr>>> {
    let mut of_sets = vec![None; sets.len()];
    for address in requested {
        let found = sets.iter().zip(&mut of_sets).find(|(set, _)| set.contains(*address));
        let Some((set, slot)) = found else {
            let sets: Vec<_> = sets.iter().map(RangeSet::to_string).collect();
            return Err(IpamError::NotInRanges { address: *address, sets: sets.join("; ") });
        };
        if let Some(first) = slot.replace(*address) {
            return Err(IpamError::TwoRequested { first, second: *address, set: set.to_string() });
        }
    }
    Ok(of_sets)
}
