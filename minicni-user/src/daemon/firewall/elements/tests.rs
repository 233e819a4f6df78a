use proptest::prelude::*;

use super::*;

fn prefixes(texts: &[&str]) -> BTreeSet<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn change(set: &'static str, removed: &[&str], added: &[&str]) -> Change {
    Change { set, removed: prefixes(removed), added: prefixes(added) }
}

/// Bytes as `nft --debug=mnl` shows them, on a little-endian machine.
fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

const BEGIN: &str = "14000000 1000 0100 00000000 00000000 00 00 000a";
const END: &str = "14000000 1100 0100 00000000 00000000 00 00 000a";
/// The family, the table and the set `c4`, as attributes.
const C4: &str = "00000000 00000000 01 00 0000  0c000100 6d696e69636e6900  07000200 63340000";

#[test]
fn the_messages_are_those_that_nft_sends() {
    let expected = [
        BEGIN,
        // What goes, goes first.
        "54000000 0e0a 0504",
        C4,
        "2c000380  10000180 0c000180 08000100 0a000000  18000180 0c000180 08000100 0a000100 08000300 00000001",
        "48000000 0c0a 0504",
        C4,
        // The last address of all: no end, but nft's note that there is none.
        "20000380  1c000180 0c000180 08000100 ffffff00  0a000600 0104 01000000 0000",
        END,
    ];
    // nft sets the flags of the end behind its key or before it, as its version likes; the kernel takes both.
    assert_eq!(batch(&[change("c4", &["10.0.0.0/24"], &["255.255.255.0/24"])]), bytes(&expected.concat()));
}

#[test]
fn what_does_not_change_is_not_in_a_message() {
    assert_eq!(batch(&[change("c4", &[], &[])]), bytes(&[BEGIN, END].concat()));
}

#[test]
fn an_interval_ends_behind_its_last_address_or_not_at_all() {
    for (prefix, end) in [
        ("10.0.0.255/32", Some("10.0.1.0")),
        ("255.255.255.254/32", Some("255.255.255.255")),
        ("255.255.255.255/32", None),
        ("0.0.0.0/0", None),
        ("fd44::/64", Some("fd44:0:0:1::")),
        ("ff00::/8", None),
    ] {
        assert_eq!(behind(&prefix.parse().unwrap()), end.map(|end| end.parse().unwrap()), "{prefix}");
    }
}

#[test]
fn the_most_that_is_written_at_once_fits_an_attribute() {
    let of = |number: usize| {
        let bits = 0xfd44_u128 << 112 | (u128::try_from(number).unwrap()) << 65;
        IpNet::new(Ipv6Addr::from_bits(bits).into(), 64).unwrap()
    };
    let change = Change { set: "cluster6", removed: BTreeSet::new(), added: (0..MOST).map(of).collect() };
    assert_eq!(count(std::slice::from_ref(&change)), MOST);
    assert!(batch(&[change]).len() < usize::from(u16::MAX));
}

#[test]
fn nft_is_told_to_delete_first() {
    let changes = [change("a4", &["10.0.0.0/24"], &["10.0.0.0/23"]), change("b6", &["fd44::/64"], &[])];
    assert_eq!(
        script(&changes),
        "delete element inet minicni a4 { 10.0.0.0/24 }\ndelete element inet minicni b6 { fd44::/64 }\n\
         add element inet minicni a4 { 10.0.0.0/23 }\n"
    );
}

proptest! {
    #[test]
    fn an_answer_is_read_whatever_it_is(answer: Vec<u8>) {
        let is_error = answer.len() >= 20 && answer[4..6] == 2_u16.to_ne_bytes();
        prop_assert_eq!(code(&answer).is_some(), is_error);
    }

    #[test]
    fn every_length_is_that_of_what_follows(addresses: BTreeSet<u32>) {
        let added = addresses.iter().map(|bits| IpNet::from(IpAddr::from(Ipv4Addr::from_bits(*bits)))).collect();
        let bytes = batch(&[Change { set: "pods4", removed: BTreeSet::new(), added }]);
        let (mut rest, mut messages) = (&bytes[..], 0);
        while let Some(length) = rest.first_chunk() {
            let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap();
            prop_assert!(length >= 20 && length.is_multiple_of(4));
            rest = rest.get(length..).unwrap();
            messages += 1;
        }
        prop_assert_eq!(messages, if addresses.is_empty() { 2 } else { 3 });
    }
}
