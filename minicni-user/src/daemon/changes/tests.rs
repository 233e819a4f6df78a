use super::*;

/// What Linux 6.18 sent when what the second column says was done with the plugin and with `ip`; `voids` or `aside` is
/// what we make of it.
const CAPTURED: &str = include_str!("captured.txt");

#[test]
fn what_the_kernel_says_when_pods_come_and_go_is_told_from_what_voids_flows() {
    for line in CAPTURED.lines() {
        let mut columns = line.split(" | ");
        let mut column = || columns.next().unwrap();
        let (expected, what, hex) = (column(), column(), column());
        let digits = hex.as_bytes().chunks(2).map(|byte| std::str::from_utf8(byte).unwrap());
        let datagram: Vec<u8> = digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let found = if voids_flows(&datagram) { "voids" } else { "aside" };
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn what_cannot_be_parsed_counts() {
    for datagram in [&b""[..], b"x", &[0xff; 64]] {
        assert!(voids_flows(datagram), "{datagram:?}");
    }
}

mod arbitrary {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic(kind in 16..128_u16, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let length = u32::try_from(16 + body.len()).unwrap().to_ne_bytes();
            let datagram = [&length[..], &kind.to_ne_bytes(), &[0; 10], &body].concat();
            voids_flows(&datagram);
        }
    }
}
