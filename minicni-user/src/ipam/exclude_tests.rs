use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::store_tests::{open, owner, tempdir};
use super::{IpamError, Range, RangeSet};

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn excluding(subnet: &str, excluded: &[&str]) -> Result<Range, IpamError> {
    let range = Range::new(subnet.parse().unwrap(), None, None, None).unwrap();
    range.excluding(excluded.iter().map(|prefix| prefix.parse().unwrap()).collect())
}

#[test]
fn a_prefix_that_cannot_be_excluded_is_refused_by_name_value_and_subnet() {
    for (subnet, excluded, words) in [
        ("10.0.0.0/24", "10.0.1.0/28", "exclude 10.0.1.0/28 is not inside subnet 10.0.0.0/24"),
        ("10.0.0.0/24", "10.0.0.0/23", "exclude 10.0.0.0/23 is not inside subnet 10.0.0.0/24"),
        ("10.0.0.0/24", "fd00::/64", "exclude fd00::/64 is not inside subnet 10.0.0.0/24"),
        ("fd00::/64", "10.0.0.1/32", "exclude 10.0.0.1/32 is not inside subnet fd00::/64"),
        ("10.0.0.0/24", "10.0.0.5/28", "exclude 10.0.0.5/28 has host bits set; the prefix is 10.0.0.0/28, the address"),
        ("10.0.0.0/24", "10.0.0.5/28", "alone is 10.0.0.5/32"),
        ("10.0.0.0/24", "10.0.0.0/24", "exclude leaves no address of 10.0.0.0/24 (10.0.0.1 to 10.0.0.254 without"),
        ("fd00::/64", "fd00::/64", "exclude leaves no address of fd00::/64"),
    ] {
        let error = excluding(subnet, &[excluded]).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_range_says_what_it_is_without() {
    let range = excluding("10.0.0.0/24", &["10.0.0.16/28", "10.0.0.200/32"]).unwrap();
    assert_eq!(range.to_string(), "10.0.0.0/24 (10.0.0.1 to 10.0.0.254 without 10.0.0.16/28, 10.0.0.200/32)");
}

#[test]
fn a_65_excluded_out_of_a_64_is_skipped_at_once_and_the_ends_of_the_address_space_are_no_trap() {
    let set = |range: Range| RangeSet::new(vec![range]).unwrap();
    let low = set(excluding("fd00::/64", &["fd00::/65"]).unwrap());
    assert_eq!(low.size(), 1 << 63);
    let mut walk = low.addresses_after(None).map(|address| address.to_string());
    assert_eq!(walk.next().unwrap(), "fd00::8000:0:0:0");
    let high = set(excluding("fd00::/64", &["fd00::8000:0:0:0/65"]).unwrap());
    let end = "fd00::7fff:ffff:ffff:ffff".parse().unwrap();
    assert_eq!(high.addresses_after(Some(end)).next().unwrap().to_string(), "fd00::1");
    let all = set(excluding("::/0", &["8000::/1"]).unwrap());
    assert_eq!(all.size(), (1 << 127) - 1);
    let end = "7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
    assert_eq!(all.addresses_after(Some(end)).next().unwrap().to_string(), "::1");
    let v4 = set(excluding("0.0.0.0/0", &["128.0.0.0/1"]).unwrap());
    assert_eq!(v4.addresses_after("127.255.255.255".parse().ok()).next().unwrap().to_string(), "0.0.0.1");
}

#[test]
fn a_pool_hands_out_what_is_left_and_nothing_else() {
    let dir = tempdir();
    let store = open(dir.path());
    let range = Range::new("10.0.0.0/28".parse().unwrap(), None, None, Some(address(1))).unwrap();
    let range = range.excluding(vec!["10.0.0.4/30".parse().unwrap(), "10.0.0.14/32".parse().unwrap()]).unwrap();
    let sets = [RangeSet::new(vec![range]).unwrap()];
    let got: Vec<_> = (0..8).map(|n| store.allocate(&owner(&format!("c{n}")), None, &sets, &[]).unwrap()[0]).collect();
    assert_eq!(got, [2, 3, 8, 9, 10, 11, 12, 13].map(address));
    let error = store.allocate(&owner("o"), None, &sets, &[]).unwrap_err();
    assert!(matches!(error, IpamError::Exhausted { size: 8, leased: 8, .. }), "{error}");
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (0..64u8, 26..=32u8).prop_map(|(last, length)| IpNet::new(address(last), length).unwrap().trunc())
}

proptest! {
    #[test]
    fn what_a_range_hands_out_is_what_a_set_of_addresses_would(
        excluded in proptest::collection::vec(prefix(), 0..5),
        start in 1..63u8, end in 1..63u8, gateway in 0..=70u8, cursor in 0..64u8,
    ) {
        let subnet = "10.0.0.0/26".parse().unwrap();
        let Ok(range) = Range::new(subnet, Some(address(start)), Some(address(end)), Some(address(gateway))) else {
            return Ok(());
        };
        let naive: BTreeSet<IpAddr> = (start..=end)
            .filter(|last| *last != gateway)
            .map(address)
            .filter(|address| !excluded.iter().any(|prefix| prefix.contains(address)))
            .collect();
        let range = match range.excluding(excluded) {
            Ok(range) => range,
            Err(error) => {
                prop_assert!(matches!(error, IpamError::AllExcluded { .. }) && naive.is_empty(), "{}", error);
                return Ok(());
            }
        };
        prop_assert_eq!(range.size(), u128::try_from(naive.len()).unwrap());
        for last in 0..=255 {
            prop_assert_eq!(range.contains(address(last)), naive.contains(&address(last)), "{}", last);
        }
        let set = RangeSet::new(vec![range]).unwrap();
        let walked: Vec<IpAddr> = set.addresses_after(Some(address(cursor))).collect();
        prop_assert_eq!(walked.len(), naive.len());
        prop_assert_eq!(walked.into_iter().collect::<BTreeSet<_>>(), naive);
    }

    #[test]
    fn the_same_holds_at_the_end_of_an_ipv6_subnet(
        excluded in proptest::collection::vec((0..64u8, 122..=128u8), 0..5), gateway in 0..64u8,
    ) {
        let address = |last: u8| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 0xffc0 | u16::from(last)]);
        let subnet = "fd00::ffc0/122".parse().unwrap();
        let excluded: Vec<IpNet> =
            excluded.into_iter().map(|(last, length)| IpNet::new(address(last), length).unwrap().trunc()).collect();
        let naive: Vec<IpAddr> = (1..64)
            .filter(|last| *last != gateway)
            .map(address)
            .filter(|address| !excluded.iter().any(|prefix| prefix.contains(address)))
            .collect();
        let range = Range::new(subnet, None, None, Some(address(gateway))).unwrap();
        let Ok(range) = range.excluding(excluded) else {
            prop_assert!(naive.is_empty());
            return Ok(());
        };
        prop_assert_eq!(range.size(), u128::try_from(naive.len()).unwrap());
        prop_assert_eq!(RangeSet::new(vec![range]).unwrap().addresses_after(None).collect::<Vec<_>>(), naive);
    }
}
