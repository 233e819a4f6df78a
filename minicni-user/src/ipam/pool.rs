//! How large a network's pool is, for whoever knows the network by its directory only.

use super::{RangeSet, Result, Store, files};

/// How many addresses a network hands out, of each family.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pool {
    /// Of IPv4.
    pub ipv4: u128,
    /// Of IPv6.
    pub ipv6: u128,
}

impl Pool {
    fn of(sets: &[RangeSet]) -> Self {
        let size = |ipv6| {
            let sets = sets.iter().filter(|set| set.is_ipv6() == ipv6);
            sets.map(RangeSet::size).fold(0, u128::saturating_add)
        };
        Self { ipv4: size(false), ipv6: size(true) }
    }
}

impl Store {
    /// Notes what the sets hand out, unless it is noted already.
    pub fn record_pool(&self, sets: &[RangeSet]) -> Result<()> {
        let pool = Pool::of(sets);
        if self.recorded_pool() == Some(pool) {
            return Ok(());
        }
        let _lock = self.lock()?;
        files::replace_link(&self.dir.join("pool"), &format!("{},{}", pool.ipv4, pool.ipv6))
    }

    /// What the last ADD noted, `None` where none did.
    pub fn recorded_pool(&self) -> Option<Pool> {
        let text = files::read_link(&self.dir.join("pool")).ok().flatten()?;
        let (ipv4, ipv6) = text.split_once(',')?;
        Some(Pool { ipv4: ipv4.parse().ok()?, ipv6: ipv6.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ipam::Range;

    #[test]
    fn the_size_of_the_pool_is_what_was_last_noted() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("pods"), "boot", Duration::ZERO).unwrap();
        assert_eq!(store.recorded_pool(), None);
        let set = |subnet: &str| {
            let range = Range::new(subnet.parse().unwrap(), None, None, None).unwrap();
            RangeSet::new(vec![range]).unwrap()
        };
        for (sets, pool) in [
            (vec![set("10.0.0.0/24")], Pool { ipv4: 254, ipv6: 0 }),
            (vec![set("10.0.0.0/28"), set("fd00::/112")], Pool { ipv4: 14, ipv6: 65_535 }),
        ] {
            store.record_pool(&sets).unwrap();
            assert_eq!(store.recorded_pool(), Some(pool));
        }
    }
}
