//! A pool: the ranges of one family, out of which an attachment gets one address.

use std::fmt;
use std::net::IpAddr;

use super::{IpamError, Range, Result};

/// Ranges of one family that share no address. An attachment gets one address out of every set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet(Vec<Range>);

impl RangeSet {
    /// A set of at least one range; [`IpamError::MixedFamilies`] or [`IpamError::Overlap`] where two do not fit.
    pub fn new(ranges: Vec<Range>) -> Result<Self> {
        let first = ranges.first().ok_or(IpamError::NoRanges)?;
        if let Some(second) = ranges.iter().find(|range| range.start().is_ipv4() != first.start().is_ipv4()) {
            return Err(IpamError::MixedFamilies { first: first.to_string(), second: second.to_string() });
        }
        disjoint(&ranges.iter().collect::<Vec<_>>())?;
        Ok(Self(ranges))
    }

    /// Refuses sets of which two share an address: [`IpamError::Overlap`].
    pub fn check_disjoint(sets: &[Self]) -> Result<()> {
        disjoint(&sets.iter().flat_map(|set| &set.0).collect::<Vec<_>>())
    }

    /// The ranges, at least one.
    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    /// Whether its addresses are IPv6's; they are IPv4's otherwise.
    pub fn is_ipv6(&self) -> bool {
        self.0.first().is_some_and(|range| range.start().is_ipv6())
    }

    /// How many addresses the set hands out.
    pub fn size(&self) -> u128 {
        self.0.iter().map(Range::size).fold(0, u128::saturating_add)
    }

    /// Whether the set hands out this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.contains(address))
    }

    /// Every address of the set once, beginning behind `cursor` and wrapping around; from the beginning if the cursor
    /// is not in the set.
    pub(super) fn addresses_after(&self, cursor: Option<IpAddr>) -> impl Iterator<Item = IpAddr> {
        let found = cursor.and_then(|address| Some((self.0.iter().position(|range| range.spans(address))?, address)));
        let (before, behind) = self.0.split_at(found.map_or(0, |(position, _)| position));
        // The range of the cursor is walked in two parts: behind the cursor first, up to the cursor last.
        let (own, behind) = match found {
            Some((_, cursor)) => (behind.first().map(|range| (range, cursor)), behind.get(1..).unwrap_or_default()),
            None => (None, behind),
        };
        let head = own
            .into_iter()
            .flat_map(|(range, cursor)| range.walk(cursor, range.end()).skip_while(move |address| *address == cursor));
        let whole = behind.iter().chain(before).flat_map(|range| range.walk(range.start(), range.end()));
        let tail = own.into_iter().flat_map(|(range, cursor)| range.walk(range.start(), cursor));
        head.chain(whole).chain(tail)
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(Range::to_string).collect::<Vec<_>>().join(", "))
    }
}

fn disjoint(ranges: &[&Range]) -> Result<()> {
    for (position, first) in ranges.iter().enumerate() {
        if let Some(second) = ranges.iter().skip(position + 1).find(|second| first.overlaps(second)) {
            return Err(IpamError::Overlap { first: first.to_string(), second: second.to_string() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range(subnet: &str, start: &str, end: &str) -> Range {
        Range::new(subnet.parse().unwrap(), start.parse().ok(), end.parse().ok(), None).unwrap()
    }

    #[test]
    fn overlapping_ranges_are_refused_within_a_set_and_between_sets() {
        let low = range("10.0.0.0/24", "", "10.0.0.99");
        let high = range("10.0.0.0/24", "10.0.0.100", "");
        let middle = range("10.0.0.0/24", "10.0.0.50", "10.0.0.150");
        let inner = range("10.0.0.0/24", "10.0.0.5", "10.0.0.6");
        assert!(RangeSet::new(vec![low.clone(), high.clone()]).is_ok());
        for overlapping in [&middle, &inner, &low] {
            assert!(matches!(RangeSet::new(vec![low.clone(), overlapping.clone()]), Err(IpamError::Overlap { .. })));
            assert!(matches!(RangeSet::new(vec![overlapping.clone(), low.clone()]), Err(IpamError::Overlap { .. })));
        }
        let set = |range: &Range| RangeSet::new(vec![range.clone()]).unwrap();
        assert!(RangeSet::check_disjoint(&[set(&low), set(&high)]).is_ok());
        assert!(matches!(
            RangeSet::check_disjoint(&[set(&low), set(&high), set(&middle)]),
            Err(IpamError::Overlap { .. })
        ));
    }

    #[test]
    fn a_set_is_of_one_family_and_not_empty() {
        let mixed = vec![range("10.0.0.0/24", "", ""), range("fd00::/64", "", "")];
        assert!(matches!(RangeSet::new(mixed), Err(IpamError::MixedFamilies { .. })));
        assert!(matches!(RangeSet::new(vec![]), Err(IpamError::NoRanges)));
    }

    #[test]
    fn the_walk_of_a_64_begins_at_once_wherever_the_cursor_is() {
        let set = RangeSet::new(vec![range("fd00::/64", "", "")]).unwrap();
        for (cursor, next) in
            [("", "fd00::1"), ("fd00::7", "fd00::8"), ("fd00::ffff:ffff:ffff:ffff", "fd00::1"), ("10.0.0.1", "fd00::1")]
        {
            assert_eq!(set.addresses_after(cursor.parse().ok()).next().unwrap().to_string(), next, "{cursor}");
        }
        let all = RangeSet::new(vec![range("::/0", "", "")]).unwrap();
        let last = all.ranges()[0].end();
        assert_eq!(all.addresses_after(Some(last)).next().unwrap().to_string(), "::1");
    }

    proptest! {
        #[test]
        fn wherever_the_cursor_is_every_address_comes_once_and_the_cursor_last(
            cursor in 0u8..=255, low_end in 1u8..40, high_start in 40u8..255, gateway in 0u8..=255,
        ) {
            let address = |last: u8| IpAddr::from([10, 0, 0, last]);
            let subnet = "10.0.0.0/24".parse().unwrap();
            let range = |start: u8, end: u8| {
                Range::new(subnet, Some(address(start)), Some(address(end)), Some(address(gateway)))
            };
            let (Ok(high), Ok(low)) = (range(high_start, 254), range(1, low_end)) else { return Ok(()) };
            let set = RangeSet::new(vec![high, low]).unwrap();
            let walked: Vec<IpAddr> = set.addresses_after(Some(address(cursor))).collect();
            let expected: BTreeSet<IpAddr> =
                (1..=low_end).chain(high_start..=254).filter(|last| *last != gateway).map(address).collect();
            prop_assert_eq!(walked.len(), expected.len());
            prop_assert_eq!(u128::try_from(walked.len()).unwrap(), set.size());
            if set.contains(address(cursor)) {
                prop_assert_eq!(*walked.last().unwrap(), address(cursor));
            }
            prop_assert_eq!(walked.into_iter().collect::<BTreeSet<_>>(), expected);
        }
    }
}
