//! What is never redirected, and what is dropped, by reason.

use std::cell::RefCell;

use minicni::datapath::{Constants, Pins, load};
use minicni_common::{Reason, Verdict, names};
use proptest::{prelude::*, test_runner::TestRunner};

use crate::{
    bench::{Bench, OK, REDIRECT, SHOT, patient, run},
    packets::Frame,
};

fn udp(bench: &Bench) -> Frame {
    Frame::udp(bench.a, 1000, bench.b, 53)
}

/// Puts the IP header's checksum right after a change.
fn checksummed(mut frame: Vec<u8>) -> Vec<u8> {
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
fn each_class_that_the_fast_path_must_not_take_goes_to_the_stack_for_its_own_reason() {
    run("classes", patient(), |bench| {
        let plain = udp(bench);
        let back = Frame::udp(bench.b, 53, bench.a, 1000);
        // Even as part of a flow that is promoted.
        bench.promote(&plain, &back);
        let cases: Vec<(&str, Vec<u8>, Reason)> = vec![
            ("ttl 1", Frame { ttl: 1, ..plain.clone() }.bytes(), Reason::Ttl),
            ("multicast", Frame { destination: ([224, 0, 0, 1], 53), ..plain.clone() }.bytes(), Reason::Destination),
            ("broadcast", Frame { destination: ([255; 4], 53), ..plain.clone() }.bytes(), Reason::Destination),
            ("loopback", Frame { destination: ([127, 0, 0, 1], 53), ..plain.clone() }.bytes(), Reason::Destination),
            ("itself", Frame { destination: (bench.a.address, 53), ..plain.clone() }.bytes(), Reason::Destination),
            ("icmp", edited(&plain, |bytes| bytes[23] = 1), Reason::Protocol),
            ("sctp", edited(&plain, |bytes| bytes[23] = 132), Reason::Protocol),
            ("first fragment", edited(&plain, |bytes| bytes[20] = 0x20), Reason::Fragment),
            ("last fragment", edited(&plain, |bytes| bytes[21] = 8), Reason::Fragment),
            ("ip version 5", edited(&plain, |bytes| bytes[14] = 0x55), Reason::Malformed),
            ("header of 16 bytes", edited(&plain, |bytes| bytes[14] = 0x44), Reason::Malformed),
            ("a length beyond the frame", edited(&plain, |bytes| bytes[17] += 1), Reason::Malformed),
            ("a length without ports", edited(&plain, |bytes| bytes[17] = 24), Reason::Malformed),
            ("vlan tag", edited(&plain, |bytes| drop(bytes.splice(12..12, [0x81, 0, 0, 5]))), Reason::NotIpv4),
            ("another destination MAC", Frame { destination_mac: [2; 6], ..plain.clone() }.bytes(), Reason::LinkLayer),
            ("broadcast MAC", Frame { destination_mac: [0xff; 6], ..plain.clone() }.bytes(), Reason::LinkLayer),
            ("arp", [&[0xff; 12][..], &[8, 6], &[0; 28]].concat(), Reason::NotIpv4),
        ];
        for (name, frame, reason) in cases {
            let from = bench.a;
            eprintln!("case: {name}");
            let frame = if name == "vlan tag" {
                edited(&plain, |bytes| bytes[12..14].copy_from_slice(&[0x81, 0]))
            } else {
                frame
            };
            let out = bench.expect(&[reason], OK, |bench| bench.ingress(from, &frame));
            assert_eq!(out.frame, frame, "{name}: the frame was changed");
        }
        // Options push the ports back; the same tuple with them is still not taken.
        let mut with_options = plain.bytes();
        with_options[14] = 0x46;
        with_options[17] += 4;
        with_options.splice(34..34, [1, 1, 1, 0]);
        let with_options = checksummed(with_options);
        let from = bench.a;
        bench.expect(&[Reason::Options], OK, |bench| bench.ingress(from, &with_options));
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(from, &plain.bytes()));
    });
}

#[test]
fn a_pod_sends_with_its_own_address_or_not_at_all() {
    run("spoofing", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let plain = udp(bench);
        let spoofed = Frame { source: ([10, 9, 9, 9], 1000), ..plain.clone() };
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
        let dhcp = Frame { source: ([0; 4], 68), destination: ([255; 4], 67), ..plain };
        bench.expect(&[Reason::Destination], OK, |bench| bench.ingress(a, &dhcp.bytes()));
        let no_one = Frame { source: ([0; 4], 68), ..Frame::udp(a, 1, b, 2) };
        bench.expect(&[Reason::SpoofedSource], SHOT, |bench| bench.ingress(a, &no_one.bytes()));
    });
}

#[test]
fn an_interface_that_nobody_entered_in_the_endpoint_map_is_left_to_the_stack() {
    run("unknown_interface", patient(), |bench| {
        let plain = udp(bench);
        let stranger = crate::bench::Pod { ifindex: 1, ..bench.a };
        let host = Frame { destination_mac: [0; 6], ..plain };
        bench.expect(&[Reason::UnknownInterface], OK, |bench| bench.ingress(stranger, &host.bytes()));
    });
}

#[test]
fn a_frame_cut_at_any_byte_is_never_redirected_and_never_changed() {
    run("truncation", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        for (there, back) in [
            (Frame::udp(a, 1000, b, 53), Frame::udp(b, 53, a, 1000)),
            (Frame::tcp(a, 1000, b, 80), Frame::tcp(b, 80, a, 1000)),
        ] {
            bench.promote(&there, &back);
            let whole = there.bytes();
            // The kernel itself refuses to make a test packet of an IPv4 frame without a whole IP header.
            for length in 34..whole.len() {
                let out = bench.ingress(a, &whole[..length]);
                assert_eq!((out.action, out.frame.as_slice()), (OK, &whole[..length]), "cut to {length} bytes");
            }
            bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &whole));
        }
    });
}

#[test]
fn a_mutated_packet_is_redirected_only_if_every_field_that_was_proven_is_as_it_was() {
    run("fuzz", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = (Frame::tcp(a, 1000, b, 80), Frame::tcp(b, 80, a, 1000));
        bench.promote(&there, &back);
        let whole = there.bytes();
        let mutation = (0..whole.len(), any::<u8>());
        let mut runner =
            TestRunner::new(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() });
        let bench = RefCell::new(bench);
        runner
            .run(&prop::collection::vec(mutation, 1..4), |mutations| {
                let mut bench = bench.borrow_mut();
                let mut frame = whole.clone();
                for (offset, value) in &mutations {
                    frame[*offset] = *value;
                }
                let out = bench.ingress(a, &frame);
                let no_control = frame[47].trailing_zeros() >= 3;
                // Of the headers: MACs' source, TOS, identification, don't-fragment, TTL above one, the checksum,
                // and TCP's fields but ports and SYN, FIN, RST may differ; what is compared is what was proven.
                let proven = frame[..6] == whole[..6]
                    && frame[12..15] == whole[12..15]
                    && u16::from_be_bytes([frame[16], frame[17]]) >= 40
                    && usize::from(u16::from_be_bytes([frame[16], frame[17]])) <= frame.len() - 14
                    && frame[20] & 0xbf == 0
                    && frame[21] == 0
                    && frame[22] > 1
                    && frame[23] == whole[23]
                    && frame[26..38] == whole[26..38]
                    && no_control;
                prop_assert_eq!(out.action == REDIRECT, proven, "{:?}", mutations);
                if !no_control && frame[23] == 6 {
                    // The flow may be gone now, by right.
                    bench.generations().bump_all().unwrap();
                    let flows = minicni::datapath::Flows::open(&bench.pins).unwrap();
                    let keys: Vec<_> = flows.all().unwrap().into_iter().map(|(key, _)| key).collect();
                    let mut flows = flows;
                    for key in keys {
                        flows.remove(&key).unwrap();
                    }
                    bench.promote(&there, &back);
                }
                Ok(())
            })
            .unwrap();
    });
}

#[test]
fn random_bytes_are_never_redirected() {
    run("random", patient(), |bench| {
        let a = bench.a;
        let mut runner =
            TestRunner::new(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() });
        let bench = RefCell::new(bench);
        runner
            .run(&prop::collection::vec(any::<u8>(), 34..200), |frame| {
                let mut bench = bench.borrow_mut();
                let b = bench.b;
                prop_assert_ne!(bench.ingress(a, &frame).action, REDIRECT);
                prop_assert_eq!(bench.egress_untagged(a.ifindex, b, &frame).action, OK);
                Ok(())
            })
            .unwrap();
    });
}

#[test]
fn a_second_load_keeps_the_maps_and_what_they_remember() {
    run("reload", patient(), |bench| {
        let (there, back) = (udp(bench), Frame::udp(bench.b, 53, bench.a, 1000));
        bench.promote(&there, &back);
        let before = bench.pins.open_programs().unwrap().ids();
        load(&bench.pins, minicni::datapath::OBJECT, &Constants { proofs: 9, ..patient() }, 0).unwrap();
        assert_ne!(bench.pins.open_programs().unwrap().ids(), before);
        let a = bench.a;
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &there.bytes()));
    });
}

#[test]
fn a_pinned_map_of_another_shape_is_refused_by_name() {
    run("shape", patient(), |bench| {
        let strangers = Pins::new(std::path::Path::new("/mnt/strangers"));
        std::fs::create_dir_all(strangers.dir()).unwrap();
        aya::maps::MapData::from_pin(bench.pins.map(names::GENERATIONS))
            .unwrap()
            .pin(strangers.map(names::ENDPOINTS))
            .unwrap();
        let error = load(&strangers, minicni::datapath::OBJECT, &patient(), 0).unwrap_err().to_string();
        assert!(error.contains("/mnt/strangers/v1/endpoints has type 2, not 1"), "{error}");
    });
}

#[test]
fn the_maps_have_btf_so_that_bpftool_prints_named_fields() {
    run("btf", patient(), |bench| {
        for map in names::MAPS.iter().filter(|map| **map != names::LOGS) {
            let output = std::process::Command::new("bpftool")
                .args(["-j", "map", "show", "pinned"])
                .arg(bench.pins.map(*map))
                .output()
                .unwrap();
            assert!(String::from_utf8_lossy(&output.stdout).contains("btf_id"), "{map:?}: {output:?}");
        }
    });
}

#[test]
fn every_reason_has_a_name_and_a_verdict_and_only_one_is_fast() {
    let fast: Vec<_> = Reason::ALL.iter().filter(|reason| reason.verdict() == Verdict::Fast).collect();
    assert_eq!(fast, [&Reason::Redirected]);
}
