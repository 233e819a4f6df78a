//! What only IPv6 has: extension headers, scopes of addresses, a header without a checksum.

use std::net::Ipv6Addr;

use minicni_common::Reason;

use crate::{
    bench::{Bench, Family, OK, Pod, REDIRECT, SHOT, patient, run_with},
    packets::Frame,
};

const NEXT_HEADER: usize = 20;
const ICMPV6: u8 = 58;

fn udp(bench: &Bench) -> Frame {
    Frame::udp(bench.a, 1000, bench.b, 53)
}

fn edited(frame: &Frame, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = frame.bytes();
    edit(&mut bytes);
    bytes
}

fn between(bench: &Bench, source: &str, destination: &str) -> Frame {
    let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().into();
    Frame { source: (address(source), 1000), destination: (address(destination), 53), ..udp(bench) }
}

#[test]
fn each_class_of_ipv6_that_the_fast_path_must_not_take_goes_to_the_stack_for_its_own_reason() {
    run_with(Family::V6, "ipv6_classes", patient(), |bench| {
        let plain = udp(bench);
        bench.promote(&plain, &Frame::udp(bench.b, 53, bench.a, 1000));
        let next_header = |number| edited(&plain, |bytes| bytes[NEXT_HEADER] = number);
        // An extension header of eight bytes, as long as UDP's: what follows is a whole packet of the promoted flow.
        let extended = |number| {
            edited(&plain, |bytes| {
                let length = u16::from_be_bytes([bytes[18], bytes[19]]) + 8;
                bytes[18..20].copy_from_slice(&length.to_be_bytes());
                bytes.splice(54..54, [bytes[NEXT_HEADER], 0, 1, 4, 0, 0, 0, 0]);
                bytes[NEXT_HEADER] = number;
            })
        };
        let length = |length: u16| edited(&plain, |bytes| bytes[18..20].copy_from_slice(&length.to_be_bytes()));
        let own = bench.a.ipv6.to_string();
        let to = |destination| between(bench, &own, destination).bytes();
        let cases: Vec<(&str, Vec<u8>, Reason)> = vec![
            ("hop-by-hop options", extended(0), Reason::Options),
            ("routing", extended(43), Reason::Options),
            ("authentication", extended(51), Reason::Options),
            ("destination options", extended(60), Reason::Options),
            ("mobility", extended(135), Reason::Options),
            ("host identity", extended(139), Reason::Options),
            ("shim6", extended(140), Reason::Options),
            ("fragment", extended(44), Reason::Fragment),
            ("esp", next_header(50), Reason::Protocol),
            ("icmpv6", next_header(ICMPV6), Reason::Protocol),
            ("icmp of ipv4", next_header(1), Reason::Protocol),
            ("sctp", next_header(132), Reason::Protocol),
            ("no next header", next_header(59), Reason::Protocol),
            ("no next header, and nothing behind", next_header(59)[..54].to_vec(), Reason::Protocol),
            ("hop-by-hop options, cut off", extended(0)[..58].to_vec(), Reason::Options),
            ("udp, cut off", plain.bytes()[..61].to_vec(), Reason::Malformed),
            ("ip version 4", edited(&plain, |bytes| bytes[14] = 0x45), Reason::Malformed),
            ("a length of 0, as of a jumbogram", length(0), Reason::Malformed),
            ("a length without ports", length(3), Reason::Malformed),
            ("a length of less than UDP's header", length(7), Reason::Malformed),
            ("a length beyond the frame", length(10), Reason::Malformed),
            ("the longest length", length(u16::MAX), Reason::Malformed),
            ("multicast", to("ff05::2"), Reason::Destination),
            ("all nodes", to("ff02::1"), Reason::Destination),
            ("loopback", to("::1"), Reason::Destination),
            ("unspecified", to("::"), Reason::Destination),
            ("link-local", to("fe80::1"), Reason::Destination),
            ("the end of link-local", to("febf::1"), Reason::Destination),
        ];
        bench.expect_in_the_stack(&cases);
        let from = bench.a;
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(from, &plain.bytes()));
    });
}

#[test]
fn ecn_and_flow_label_keep_no_packet_from_the_fast_path() {
    run_with(Family::V6, "flow_label", patient(), |bench| {
        let plain = udp(bench);
        bench.promote(&plain, &Frame::udp(bench.b, 53, bench.a, 1000));
        let labelled = edited(&plain, |bytes| bytes[14..18].copy_from_slice(&[0x60, 0x3f, 0xff, 0xff]));
        let from = bench.a;
        let out = bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(from, &labelled));
        assert_eq!(out.frame[14..18], labelled[14..18]);
    });
}

#[test]
fn what_a_pod_says_to_its_own_link_is_left_to_the_stack() {
    run_with(Family::V6, "link", patient(), |bench| {
        let a = bench.a;
        let own = a.ipv6.to_string();
        let cases = [
            ("duplicate address detection", "::", "ff02::1:ff00:2"),
            ("a listener report before there is an address", "::", "ff02::16"),
            ("router solicitation", "fe80::2", "ff02::2"),
            ("router solicitation without an address", "::", "ff02::2"),
            ("listener report", "fe80::2", "ff02::16"),
            ("neighbour solicitation", &own, "ff02::1:ff00:1"),
            ("neighbour advertisement", "fe80::2", "fe80::1"),
            ("neighbour advertisement of its address", &own, "fe80::1"),
            ("unsolicited advertisement", &own, "ff02::1"),
            ("a transient group of its link", "fe80::2", "ff12::8384"),
            ("a group of its link with a prefix", "fe80::2", "ff32::4242"),
        ];
        for without_address in [false, true] {
            if without_address {
                bench.enter(Pod { ipv6: Ipv6Addr::UNSPECIFIED, ..a }, 0);
            }
            for (name, source, destination) in cases {
                let frame = edited(&between(bench, source, destination), |bytes| bytes[NEXT_HEADER] = ICMPV6);
                let (reason, action) = if without_address && source == own {
                    (Reason::SpoofedSource, SHOT)
                } else {
                    (Reason::Protocol, OK)
                };
                eprintln!("case: {name}");
                bench.expect(&[reason], action, |bench| bench.ingress(a, &frame));
            }
        }
        // DHCPv6 is UDP.
        let dhcp = between(bench, "fe80::2", "ff02::1:2").bytes();
        bench.expect(&[Reason::Destination], OK, |bench| bench.ingress(a, &dhcp));
        let on_link = between(bench, "fe80::2", "fe80::1").bytes();
        bench.expect(&[Reason::Destination], OK, |bench| bench.ingress(a, &on_link));
    });
}

#[test]
fn a_pod_sends_ipv6_with_its_own_address_or_not_at_all() {
    run_with(Family::V6, "ipv6_spoofing", patient(), |bench| {
        let a = bench.a;
        let b = bench.b.ipv6.to_string();
        let own = a.ipv6.to_string();
        let sources = [
            ("a stranger", "fd00:9::9", b.as_str()),
            ("its neighbour", &b, "fd00:9::9"),
            ("another in the first half", "fd01::2", &b),
            ("another in the last byte", "fd00::1:2", &b),
            ("no one, to a pod", "::", &b),
            ("no one, to its link", "::", "fe80::1"),
            ("no one, to another scope", "::", "ff05::2"),
            ("no one, to its own loopback", "::", "::1"),
            ("loopback", "::1", &b),
            ("multicast", "ff02::1", &b),
            ("link-local, beyond the link", "fe80::2", &b),
            ("link-local, to another scope", "fe80::2", "ff05::2"),
            ("beside link-local", "fec0::2", "fe80::1"),
            ("an IPv4 address", "::ffff:10.1.0.2", &b),
        ];
        for without_address in [false, true] {
            if without_address {
                bench.enter(Pod { ipv6: Ipv6Addr::UNSPECIFIED, ..a }, 0);
            }
            for (name, source, destination) in sources {
                eprintln!("case: {name}");
                let frame = between(bench, source, destination);
                // Not by an extension header, nor a fragment, nor ICMPv6, nor a lying length, nor a short packet either.
                let disguises = [
                    frame.bytes(),
                    edited(&frame, |bytes| bytes[NEXT_HEADER] = 0),
                    edited(&frame, |bytes| bytes[NEXT_HEADER] = 44),
                    edited(&frame, |bytes| bytes[NEXT_HEADER] = ICMPV6),
                    edited(&frame, |bytes| bytes[19] = 0),
                    edited(&frame, |bytes| bytes.truncate(56)),
                    Frame { destination_mac: [0x33, 0x33, 0, 0, 0, 1], ..frame.clone() }.bytes(),
                ];
                for frame in disguises {
                    bench.expect(&[Reason::SpoofedSource], SHOT, |bench| bench.ingress(a, &frame));
                }
            }
        }
        let frame = between(bench, &own, &b).bytes();
        bench.expect(&[Reason::SpoofedSource], SHOT, |bench| bench.ingress(a, &frame));
        bench.enter(a, 0);
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &frame));
    });
}
