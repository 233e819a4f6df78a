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

/// Where the IP header names the protocol, and where TCP has its flags.
struct Offsets {
    protocol: usize,
    tcp_flags: usize,
}

/// Mutates packets of a promoted TCP flow; `proven` says whether everything that was proven is as it was, but for TCP's
/// flags.
fn mutate(bench: &mut Bench, offsets: &Offsets, proven: impl Fn(&[u8], &[u8]) -> bool) {
    let (a, b) = (bench.a, bench.b);
    let (there, back) = (Frame::tcp(a, 1000, b, 80), Frame::tcp(b, 80, a, 1000));
    bench.promote(&there, &back);
    let whole = there.bytes();
    let mutation = (0..whole.len(), any::<u8>());
    let bench = RefCell::new(bench);
    runner(4_000)
        .run(&prop::collection::vec(mutation, 1..4), |mutations| {
            let mut bench = bench.borrow_mut();
            let mut frame = whole.clone();
            for (offset, value) in &mutations {
                frame[*offset] = *value;
            }
            let out = bench.ingress(a, &frame);
            let no_control = frame[offsets.tcp_flags].trailing_zeros() >= 3;
            let expected = no_control && proven(&frame, &whole);
            prop_assert_eq!(out.action == REDIRECT, expected, "{:?}", mutations);
            if !no_control && frame[offsets.protocol] == 6 {
                // The flow may be gone now, by right.
                bench.forget();
                bench.promote(&there, &back);
            }
            Ok(())
        })
        .unwrap();
}

// Of the headers: MACs' source, ECN, identification, don't-fragment, TTL above one, the checksum, and TCP's fields but ports
// and SYN, FIN, RST may differ; what is compared is what was proven.
#[test]
fn a_mutated_ipv4_packet_is_redirected_only_if_every_field_that_was_proven_is_as_it_was() {
    run_with(Family::V4, "fuzz", patient(), |bench| {
        mutate(bench, &Offsets { protocol: 23, tcp_flags: 47 }, |frame, whole| {
            let length = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
            frame[..6] == whole[..6]
                && frame[12..15] == whole[12..15]
                && (frame[15] ^ whole[15]) & 0xfc == 0
                && (40..=frame.len() - 14).contains(&length)
                && frame[20] & 0xbf == 0
                && frame[21] == 0
                && frame[22] > 1
                && frame[23] == whole[23]
                && frame[26..38] == whole[26..38]
        });
    });
}

// Here: MACs' source, ECN, flow label, hop limit above one, and TCP's fields as above.
#[test]
fn a_mutated_ipv6_packet_is_redirected_only_if_every_field_that_was_proven_is_as_it_was() {
    run_with(Family::V6, "fuzz", patient(), |bench| {
        mutate(bench, &Offsets { protocol: 20, tcp_flags: 67 }, |frame, whole| {
            let length = usize::from(u16::from_be_bytes([frame[18], frame[19]]));
            frame[..6] == whole[..6]
                && frame[12..14] == whole[12..14]
                && frame[14] == whole[14]
                && (frame[15] ^ whole[15]) & 0xc0 == 0
                && (20..=frame.len() - 54).contains(&length)
                && frame[20] == whole[20]
                && frame[21] > 1
                && frame[22..58] == whole[22..58]
        });
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
