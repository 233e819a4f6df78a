//! The keys of flows, and the tags of packets.

use std::collections::HashSet;

use minicni_common::{FlowKey4, FlowKey6, fingerprint, names::NOTE_ENTRIES, tag};
use proptest::prelude::*;

fn word6(text: &str) -> u128 {
    u128::from_ne_bytes(text.parse::<std::net::Ipv6Addr>().unwrap().octets())
}

fn word4(octets: [u8; 4]) -> u32 {
    u32::from_ne_bytes(octets)
}

/// Ends as flows have them: some alike, some far apart.
fn addresses6() -> impl Strategy<Value = u128> {
    prop_oneof![any::<u128>(), (0..3_u128).prop_map(u128::to_be), (0..3_u128)]
}

proptest! {
    #[test]
    fn both_directions_of_an_ipv4_flow_have_one_key(one: (u32, u16), other: (u32, u16), tcp: bool) {
        prop_assume!(one != other);
        let protocol = if tcp { 6 } else { 17 };
        let (there, back) = (FlowKey4::new(one, other, protocol), FlowKey4::new(other, one, protocol));
        prop_assert_eq!(there.0, back.0);
        prop_assert_eq!(there.1 + back.1, 1);
        let (first, second) = if there.1 == 0 { (one, other) } else { (other, one) };
        prop_assert_eq!(there.0.addresses, [first.0.to_ne_bytes(), second.0.to_ne_bytes()]);
        prop_assert_eq!(there.0.ports, [first.1, second.1]);
        prop_assert_eq!(FlowKey4::hash(one, other, protocol), FlowKey4::hash(other, one, protocol));
        prop_assert_eq!(FlowKey4::side(one, other) + FlowKey4::side(other, one), 1);
    }

    #[test]
    fn both_directions_of_an_ipv6_flow_have_one_key(
        one in (addresses6(), 0..3_u16),
        other in (addresses6(), 0..3_u16),
        tcp: bool,
    ) {
        prop_assume!(one != other);
        let protocol = if tcp { 6 } else { 17 };
        let (there, back) = (FlowKey6::new(one, other, protocol), FlowKey6::new(other, one, protocol));
        prop_assert_eq!(there.0, back.0);
        prop_assert_eq!(there.1 + back.1, 1);
        let (first, second) = if there.1 == 0 { (one, other) } else { (other, one) };
        prop_assert_eq!(there.0.addresses, [first.0.to_ne_bytes(), second.0.to_ne_bytes()]);
        prop_assert_eq!(there.0.ports, [first.1, second.1]);
        prop_assert_eq!(FlowKey6::hash(one, other, protocol), FlowKey6::hash(other, one, protocol));
        prop_assert!(one.0 == other.0 || FlowKey6::side(one, other) + FlowKey6::side(other, one) == 1);
    }

    #[test]
    fn of_one_end_flows_to_different_ends_have_different_hashes(
        one: (u32, u16),
        other: (u32, u16),
        third: (u32, u16),
        tcp: bool,
    ) {
        prop_assume!(other != third);
        let protocol = if tcp { 6 } else { 17 };
        prop_assert_ne!(FlowKey4::hash(one, other, protocol), FlowKey4::hash(one, third, protocol));
    }

    #[test]
    fn a_tag_is_never_0_and_always_in_the_map(
        four: ((u32, u16), (u32, u16)),
        six: ((u128, u16), (u128, u16)),
        protocol: u8,
        direction in 0..2_u32,
    ) {
        let tags = [
            tag(FlowKey4::hash(four.0, four.1, protocol), direction),
            tag(FlowKey6::hash(six.0, six.1, protocol), direction),
        ];
        for tag in tags {
            prop_assert!((1..NOTE_ENTRIES).contains(&u32::from(tag)));
        }
    }
}

/// By chance alone, `count` of the tags would be met by about 63 of 100 when as many packets as there are tags are given one. The
/// bits by which flows of one bucket are told apart are spread over more values, and as good as all differ.
#[track_caller]
fn assert_spread(hashes: impl Iterator<Item = u64>) {
    let count = usize::try_from(NOTE_ENTRIES).unwrap() - 1;
    let hashes: Vec<_> = hashes.take(count).collect();
    let tags: HashSet<_> = hashes.iter().map(|hash| tag(*hash, 0)).collect();
    assert!(tags.len() * 2 > count, "{} of {count} tags", tags.len());
    let fingerprints: HashSet<_> = hashes.iter().map(|hash| fingerprint(*hash)).collect();
    assert!(fingerprints.len() * 10 > count * 9, "{} of {count}", fingerprints.len());
}

#[test]
fn the_hashes_of_flows_that_differ_by_a_port_alone_are_spread() {
    let (one, other) = (word4([10, 1, 0, 2]), word4([10, 1, 0, 3]));
    assert_spread((1024..).map(|port| FlowKey4::hash((one, port), (other, 80), 6)));
    assert_spread((1024..).map(|port| FlowKey4::hash((one, port), (other, port), 17)));
    let (one, other) = (word6("fd00::2"), word6("fd00::3"));
    assert_spread((1024..).map(|port| FlowKey6::hash((one, port), (other, 80), 6)));
    assert_spread((1024..).map(|port| FlowKey6::hash((one, port), (other, port), 17)));
}

#[test]
fn the_hashes_of_flows_that_differ_by_an_address_alone_are_spread() {
    assert_spread((0..=u16::MAX).map(|host| {
        let [high, low] = host.to_be_bytes();
        FlowKey4::hash((word4([10, 1, high, low]), 1000), (word4([10, 2, 0, 3]), 80), 6)
    }));
    assert_spread(
        (0..=u16::MAX)
            .map(|host| FlowKey6::hash((word6(&format!("fd00:1::{host:x}")), 1000), (word6("fd00:2::3"), 80), 6)),
    );
    // Addresses may differ anywhere, at both ends at once, too.
    assert_spread((0..=u16::MAX).map(|net| {
        let (source, destination) = (word6(&format!("fd00:{net:x}::2")), word6(&format!("fd00:{net:x}::3")));
        FlowKey6::hash((source, 1000), (destination, 80), 6)
    }));
    assert_spread((0..=u16::MAX).map(|host| {
        let [high, low] = host.to_be_bytes();
        FlowKey4::hash((word4([10, 1, high, low]), 1000), (word4([10, 2, high, low]), 80), 6)
    }));
}

#[test]
fn the_directions_of_a_flow_have_sides_of_their_own_also_where_addresses_and_ports_make_up_for_each_other() {
    let (one, other) = ((word6("fd00:10:244:100::5"), 80), (word6("fd00:10:244:200::5"), 83));
    assert_eq!(FlowKey6::side(one, other) + FlowKey6::side(other, one), 1);
}

#[test]
fn no_end_is_so_that_the_flows_to_it_from_many_others_have_one_hash() {
    for (port, end) in (0..=u16::MAX).flat_map(|port| [(port, [10, 244, 0, 7]), (port, [192, 168, 1, 5])]) {
        let hash = |last: u8| FlowKey4::hash((word4(end), port), (word4([10, 244, 1, last]), 7946), 17);
        let hashes: HashSet<_> = [5, 9, 13, 69, 133].map(hash).into();
        assert_eq!(hashes.len(), 5, "{end:?}:{port}");
    }
}

#[test]
fn an_ipv6_end_that_differs_in_one_bit_has_another_hash_but_for_the_first_of_its_third_and_fifth_group() {
    let (one, other) = ((word6("fd00:10:244:100::5"), 1000), (word6("fd00:10:244:200::5"), 80));
    let hash = |one| FlowKey6::hash(one, other, 6);
    let same = (0..128).filter(|bit| hash((one.0 ^ (1_u128 << bit).to_be(), one.1)) == hash(one));
    assert_eq!(same.collect::<Vec<_>>(), [63, 95]);
    assert!((0..16).all(|bit| hash((one.0, one.1 ^ 1 << bit)) != hash(one)));
}
