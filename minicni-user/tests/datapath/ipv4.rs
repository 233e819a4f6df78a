//! What only IPv4 has: options, fragments, its addresses.

use std::net::Ipv4Addr;

use minicni_common::Reason;

use crate::{
    bench::{Bench, Family, OK, REDIRECT, SHOT, patient, run_with},
    packets::Frame,
};

fn udp(bench: &Bench) -> Frame {
    Frame::udp(bench.a, 1000, bench.b, 53)
}

/// Puts the IP header's checksum right after a change.
pub(crate) fn checksummed(mut frame: Vec<u8>) -> Vec<u8> {
    frame[24..26].fill(0);
    let end = 14 + usize::from(frame[14] & 0xf) * 4;
    let sum: u32 = frame[14..end].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    frame[24..26].copy_from_slice(&folded.to_be_bytes());
    frame
}

fn edited(frame: &Frame, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = frame.bytes();
    edit(&mut bytes);
    checksummed(bytes)
}

#[test]
fn each_class_of_ipv4_that_the_fast_path_must_not_take_goes_to_the_stack_for_its_own_reason() {
    run_with(Family::V4, "ipv4_classes", patient(), |bench| {
        let plain = udp(bench);
        bench.promote(&plain, &Frame::udp(bench.b, 53, bench.a, 1000));
        let to = |address: [u8; 4]| Frame { destination: (address.into(), 53), ..plain.clone() }.bytes();
        // Options push the ports back; the same tuple with them is still not taken.
        let options = |bytes: &mut Vec<u8>| {
            bytes[14] = 0x46;
            bytes[17] += 4;
            bytes.splice(34..34, [1, 1, 1, 0]);
        };
        let cases: Vec<(&str, Vec<u8>, Reason)> = vec![
            ("multicast", to([224, 0, 0, 1]), Reason::Destination),
            ("broadcast", to([255; 4]), Reason::Destination),
            ("loopback", to([127, 0, 0, 1]), Reason::Destination),
            ("icmp", edited(&plain, |bytes| bytes[23] = 1), Reason::Protocol),
            ("sctp", edited(&plain, |bytes| bytes[23] = 132), Reason::Protocol),
            ("first fragment", edited(&plain, |bytes| bytes[20] = 0x20), Reason::Fragment),
            ("last fragment", edited(&plain, |bytes| bytes[21] = 8), Reason::Fragment),
            ("options", edited(&plain, options), Reason::Options),
            ("ip version 5", edited(&plain, |bytes| bytes[14] = 0x55), Reason::Malformed),
            ("ip version 6", edited(&plain, |bytes| bytes[14] = 0x65), Reason::Malformed),
            ("header of 16 bytes", edited(&plain, |bytes| bytes[14] = 0x44), Reason::Malformed),
            ("a length beyond the frame", edited(&plain, |bytes| bytes[17] += 1), Reason::Malformed),
            ("a length without ports", edited(&plain, |bytes| bytes[17] = 24), Reason::Malformed),
        ];
        bench.expect_in_the_stack(&cases);
        let from = bench.a;
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(from, &plain.bytes()));
    });
}

#[test]
fn a_pod_sends_ipv4_with_its_own_address_or_not_at_all() {
    run_with(Family::V4, "ipv4_spoofing", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let plain = udp(bench);
        let spoofed = Frame { source: ([10, 9, 9, 9].into(), 1000), ..plain.clone() };
        bench.expect(&[Reason::SpoofedSource], SHOT, |bench| bench.ingress(a, &spoofed.bytes()));
        // Not by a fragment, nor ICMP, nor options, nor a short packet either.
        let disguises = [
            edited(&spoofed, |bytes| bytes[20] = 0x20),
            edited(&spoofed, |bytes| bytes[23] = 1),
            edited(&spoofed, |bytes| bytes[14] = 0x46),
            edited(&spoofed, |bytes| bytes.truncate(38)),
        ];
        for frame in disguises {
            bench.expect(&[Reason::SpoofedSource], SHOT, |bench| bench.ingress(a, &frame));
        }
        // A DHCP client has no address yet.
        let dhcp = Frame { source: ([0; 4].into(), 68), destination: ([255; 4].into(), 67), ..plain.clone() };
        bench.expect(&[Reason::Destination], OK, |bench| bench.ingress(a, &dhcp.bytes()));
        let no_one = Frame { source: ([0; 4].into(), 68), ..Frame::udp(a, 1, b, 2) };
        bench.expect(&[Reason::SpoofedSource], SHOT, |bench| bench.ingress(a, &no_one.bytes()));
        // Nor does a pod without IPv4 have 0.0.0.0 for an address of its own.
        bench.enter(crate::bench::Pod { ipv4: Ipv4Addr::UNSPECIFIED, ..a }, 0);
        for frame in [&no_one, &plain] {
            bench.expect(&[Reason::SpoofedSource], SHOT, |bench| bench.ingress(a, &frame.bytes()));
        }
        bench.expect(&[Reason::Destination], OK, |bench| bench.ingress(a, &dhcp.bytes()));
    });
}
