//! Frames that were cut, mutated, or made of random bytes.

use std::cell::RefCell;

use minicni_common::Reason;
use proptest::{prelude::*, test_runner::TestRunner};

use crate::{
    bench::{Bench, Family, OK, REDIRECT, patient, run, run_with},
    packets::Frame,
};

/// Makes so many cases, or as many as `PROPTEST_CASES` says.
pub(crate) fn runner(cases: u32) -> TestRunner {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = asked.unwrap_or(cases);
    TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() })
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
            // The kernel itself refuses to make a test packet of a frame without a whole IP header.
            let headers = if a.address.is_ipv4() { 34 } else { 54 };
            for length in headers..whole.len() {
                let out = bench.ingress(a, &whole[..length]);
                assert_eq!((out.action, out.frame.as_slice()), (OK, &whole[..length]), "cut to {length} bytes");
            }
            bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &whole));
        }
    });
}

/// Mutates packets of a promoted flow as they enter. `proven` says whether everything that was proven is as it was, but for TCP's
/// flags, which are at an offset if it is TCP.
fn mutate(
    bench: &mut Bench,
    [there, back]: [Frame; 2],
    tcp_flags: Option<usize>,
    proven: impl Fn(&[u8], &[u8]) -> bool,
) {
    let a = bench.a;
    bench.promote(&there, &back);
    let whole = there.bytes();
    let bench = RefCell::new(bench);
    runner(4_000)
        .run(&mutations(&whole), |mutations| {
            let mut bench = bench.borrow_mut();
            let frame = mutated(&whole, &mutations);
            let out = bench.ingress(a, &frame);
            let no_control = tcp_flags.is_none_or(|offset| frame[offset].trailing_zeros() >= 3);
            let expected = no_control && proven(&frame, &whole);
            prop_assert_eq!(out.action == REDIRECT, expected, "{:?}", mutations);
            if !no_control {
                // The flow may be gone now, by right.
                bench.forget();
                bench.promote(&there, &back);
            }
            Ok(())
        })
        .unwrap();
}

/// Some bytes of a frame, and what becomes of them.
fn mutations(whole: &[u8]) -> impl Strategy<Value = Vec<(usize, u8)>> + use<> {
    prop::collection::vec((0..whole.len(), any::<u8>()), 1..4)
}

fn mutated(whole: &[u8], mutations: &[(usize, u8)]) -> Vec<u8> {
    let mut frame = whole.to_vec();
    for (offset, value) in mutations {
        frame[*offset] = *value;
    }
    frame
}

fn tcp(bench: &Bench) -> [Frame; 2] {
    let (a, b) = (bench.a, bench.b);
    [Frame::tcp(a, 1000, b, 80), Frame::tcp(b, 80, a, 1000)]
}

fn udp(bench: &Bench) -> [Frame; 2] {
    let (a, b) = (bench.a, bench.b);
    [Frame::udp(a, 1000, b, 53), Frame::udp(b, 53, a, 1000)]
}

/// Whether an IPv4 header says what is left of a frame, or less, with at least so many bytes behind it.
fn is_length_of(frame: &[u8], least: usize) -> bool {
    (20 + least..=frame.len() - 14).contains(&usize::from(u16::from_be_bytes([frame[16], frame[17]])))
}

// Of the headers: MACs' source, ECN, identification, don't-fragment, TTL above one, the checksum, and TCP's fields but ports
// and SYN, FIN, RST may differ; what is compared is what was proven.
#[test]
fn a_mutated_ipv4_packet_is_redirected_only_if_every_field_that_was_proven_is_as_it_was() {
    run_with(Family::V4, "fuzz", patient(), |bench| {
        for (frames, tcp_flags, least) in [(tcp(bench), Some(47), 20), (udp(bench), None, 8)] {
            mutate(bench, frames, tcp_flags, |frame, whole| {
                frame[..6] == whole[..6]
                    && frame[12..15] == whole[12..15]
                    && (frame[15] ^ whole[15]) & 0xfc == 0
                    && is_length_of(frame, least)
                    && frame[20] & 0xbf == 0
                    && frame[21] == 0
                    && frame[22] > 1
                    && frame[23] == whole[23]
                    && frame[26..38] == whole[26..38]
            });
        }
    });
}

// Here: MACs' source, ECN, flow label, hop limit above one, and TCP's fields as above.
#[test]
fn a_mutated_ipv6_packet_is_redirected_only_if_every_field_that_was_proven_is_as_it_was() {
    run_with(Family::V6, "fuzz", patient(), |bench| {
        for (frames, tcp_flags, least) in [(tcp(bench), Some(67), 20), (udp(bench), None, 8)] {
            mutate(bench, frames, tcp_flags, |frame, whole| {
                let length = usize::from(u16::from_be_bytes([frame[18], frame[19]]));
                frame[..6] == whole[..6]
                    && frame[12..14] == whole[12..14]
                    && frame[14] == whole[14]
                    && (frame[15] ^ whole[15]) & 0xc0 == 0
                    && (least..=frame.len() - 54).contains(&length)
                    && frame[20] == whole[20]
                    && frame[21] > 1
                    && frame[22..58] == whole[22..58]
            });
        }
    });
}

// Of the headers: MACs, identification, don't-fragment and the checksum may differ.
#[test]
fn a_mutated_ipv4_packet_that_leaves_is_a_proof_only_if_it_is_the_one_that_entered() {
    run_with(Family::V4, "fuzz_leaving", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        for ([there, _], least) in [(tcp(bench), 20), (udp(bench), 8)] {
            let whole = there.routed(b.mac, b.host_mac).bytes();
            let bench = RefCell::new(&mut *bench);
            runner(1_000)
                .run(&mutations(&whole), |mutations| {
                    let mut bench = bench.borrow_mut();
                    bench.forget();
                    bench.ingress(a, &there.bytes());
                    let frame = mutated(&whole, &mutations);
                    let before = bench.counters().proof;
                    let out = bench.egress(a.ifindex, &there, b, &frame);
                    prop_assert_eq!((out.action, &out.frame), (OK, &frame));
                    let is_tcp = least == 20;
                    let expected = frame[12..16] == whole[12..16]
                        && is_length_of(&frame, least)
                        && frame[20] & 0xbf == 0
                        && frame[21] == 0
                        && frame[22..24] == whole[22..24]
                        && frame[26..38] == whole[26..38]
                        && (!is_tcp || frame[38..42] == whole[38..42] && frame[47].trailing_zeros() >= 3);
                    prop_assert_eq!(bench.counters().proof - before == 1, expected, "{:?}", mutations);
                    Ok(())
                })
                .unwrap();
        }
    });
}

#[test]
fn random_bytes_are_never_redirected() {
    run("random", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        // As many of them as may be are of this family, at least by what the Ethernet header says.
        let head = Frame::udp(a, 1, b, 2).bytes()[..15].to_vec();
        let bench = RefCell::new(bench);
        runner(2_000)
            .run(&(any::<bool>(), prop::collection::vec(any::<u8>(), 54..200)), |(announced, mut frame)| {
                if announced {
                    frame[..15].copy_from_slice(&head);
                }
                let mut bench = bench.borrow_mut();
                prop_assert_ne!(bench.ingress(a, &frame).action, REDIRECT);
                prop_assert_eq!(bench.egress_untagged(a.ifindex, b, &frame).action, OK);
                Ok(())
            })
            .unwrap();
    });
}
