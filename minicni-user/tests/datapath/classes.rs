//! Packets of a flow that the stack may treat otherwise than those that proved it.

use aya::maps::{HashMap, Map, MapData};
use bytemuck::Zeroable;
use minicni::datapath::FlowKey;
use minicni_common::{
    Flow, Reason,
    names::{FLOWS4, FLOWS6, MapName},
};

use crate::{
    bench::{Bench, OK, REDIRECT, patient, run, run_without_shortcuts},
    packets::Frame,
};

/// Expedited forwarding, a DSCP, in the six upper bits of the class.
pub(crate) const EXPEDITED: u8 = 0xb8;

fn udp(bench: &Bench) -> (Frame, Frame) {
    (Frame::udp(bench.a, 1000, bench.b, 53), Frame::udp(bench.b, 53, bench.a, 1000))
}

/// The frame's bytes with another class; IPv4's checksum is put right.
pub(crate) fn classed(frame: &Frame, class: u8) -> Vec<u8> {
    let mut bytes = frame.bytes();
    if frame.source.0.is_ipv4() {
        bytes[15] = class;
        crate::ipv4::checksummed(bytes)
    } else {
        bytes[14] = 0x60 | class >> 4;
        bytes[15] = class << 4;
        bytes
    }
}

/// A frame of this class goes through the stack.
#[track_caller]
fn through_the_stack(bench: &mut Bench, frame: &Frame, class: u8, reason: Reason, events: &[Reason]) {
    let (a, b) = (bench.a, bench.b);
    bench.expect(&[reason], OK, |bench| bench.ingress(a, &classed(frame, class)));
    let routed = classed(&frame.routed(b.mac, b.host_mac), class);
    bench.expect(events, OK, |bench| bench.egress(a.ifindex, frame, b, &routed));
}

#[test]
fn another_dscp_than_that_of_the_proofs_goes_through_the_stack_and_leaves_the_flow_promoted() {
    run("other_class", patient(), |bench| {
        let (there, back) = udp(bench);
        let (a, b) = (bench.a, bench.b);
        bench.promote(&there, &back);
        for _ in 0..100 {
            through_the_stack(bench, &there, EXPEDITED, Reason::Class, &[]);
        }
        for (from, frame) in [(a, &there), (b, &back)] {
            bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(from, &frame.bytes()));
        }
        // What queues say of congestion is no other class.
        for ecn in 0..4 {
            bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &classed(&there, ecn)));
        }
    });
}

#[test]
fn a_translated_packet_of_another_class_is_a_twin_all_the_same() {
    run("twin_of_class", patient(), |bench| {
        let (there, back) = udp(bench);
        let (a, b) = (bench.a, bench.b);
        bench.promote(&there, &back);
        let other = Frame { destination: (bench.virtual_address, 80), ..there.clone() };
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &classed(&other, EXPEDITED)));
        let twin = classed(&there.routed(b.mac, b.host_mac), EXPEDITED);
        bench.expect(&[Reason::Demoted, Reason::Twin], OK, |bench| bench.egress(a.ifindex, &other, b, &twin));
    });
}

#[test]
fn only_packets_of_one_class_prove_a_direction() {
    run("mixed_classes", patient(), |bench| {
        let (there, back) = udp(bench);
        let (a, b) = (bench.a, bench.b);
        for round in 0..40 {
            let class = if round % 4 == 3 { EXPEDITED } else { 0 };
            bench.ingress(a, &classed(&there, class));
            bench.egress(a.ifindex, &there, b, &classed(&there.routed(b.mac, b.host_mac), class));
            bench.through_the_stack(b, a, &back, Reason::Learning, &[Reason::Proof]);
        }
        assert_eq!(bench.counters().promoted, 0);
    });
}

#[test]
fn a_flow_of_which_a_rule_shifts_the_sequence_numbers_is_never_promoted() {
    run("sequence", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = (Frame::tcp(a, 1000, b, 80), Frame::tcp(b, 80, a, 1000));
        let sequence = if a.address.is_ipv4() { 38 } else { 58 };
        for _ in 0..40 {
            bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &there.bytes()));
            let mut shifted = there.routed(b.mac, b.host_mac).bytes();
            shifted[sequence] ^= 0x5a;
            bench.egress(a.ifindex, &there, b, &shifted);
            // What the rule shifts in these, the acknowledgement, need not be looked at, too.
            bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(b, &back.bytes()));
            bench.egress(b.ifindex, &back, a, &back.routed(a.mac, a.host_mac).bytes());
        }
        assert_eq!((bench.counters().promoted, bench.counters().redirected), (0, 0));
    });
}

#[test]
fn ports_of_protocols_that_conntrack_may_read_begin_no_flow() {
    run("helpers", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let frames = [
            Frame::tcp(a, 1000, b, 21),
            Frame::tcp(a, 1000, b, 5060),
            Frame::udp(a, 1000, b, 5060),
            Frame::udp(a, 69, b, 1000),
        ];
        for frame in frames {
            for _ in 0..20 {
                bench.through_the_stack(a, b, &frame, Reason::Helper, &[]);
            }
        }
        let (there, back) = (Frame::udp(a, 1000, b, 21), Frame::udp(b, 21, a, 1000));
        bench.promote(&there, &back);
    });
}

fn write<K: aya::Pod>(bench: &Bench, cache: MapName, key: K, flow: Flow) {
    let map = Map::LruHashMap(MapData::from_pin(bench.pins.map(cache)).unwrap());
    HashMap::<_, K, Flow>::try_from(map).unwrap().insert(key, flow, 0).unwrap();
}

/// Gives the one flow in the cache another value.
fn overwrite(bench: &Bench, flow: Flow) {
    match minicni::datapath::Flows::open(&bench.pins).unwrap().all().unwrap()[0].0 {
        FlowKey::V4(key) => write(bench, FLOWS4, key, flow),
        FlowKey::V6(key) => write(bench, FLOWS6, key, flow),
    }
}

#[test]
fn a_promoted_flow_that_another_cpu_cleared_meanwhile_starts_anew() {
    run_without_shortcuts("cleared", patient(), |bench| {
        let (there, back) = udp(bench);
        let a = bench.a;
        bench.promote(&there, &back);
        let flow = Flow { directions: Zeroable::zeroed(), ..bench.flow() };
        overwrite(bench, flow);
        bench.expect(&[Reason::Stale, Reason::Demoted], OK, |bench| bench.ingress(a, &there.bytes()));
        let flow = bench.flow();
        assert_eq!((flow.state, flow.directions.map(|direction| direction.proofs)), (0, [0, 0]));
    });
}

#[test]
fn an_entry_that_became_another_flows_while_it_was_read_redirects_nothing() {
    run_without_shortcuts("renamed", patient(), |bench| {
        let (there, back) = udp(bench);
        let a = bench.a;
        bench.promote(&there, &back);
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &there.bytes()));
        let flow = bench.flow();
        overwrite(bench, Flow { fingerprint: !flow.fingerprint, ..flow });
        bench.expect(&[Reason::Refresh], OK, |bench| bench.ingress(a, &there.bytes()));
    });
}

#[test]
fn the_longest_segment_of_a_gso_packet_is_counted_with_the_header_of_its_own_protocol() {
    run("segments", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        bench.promote(&there, &back);
        let headers = there.bytes().len() - there.payload.len();
        let of = |length: usize| Frame { payload: vec![0; length], ..there.clone() };
        bench.expect(&[Reason::Refresh], OK, |bench| bench.ingress_gso(a, 500, &of(2000).bytes()));
        let routed = of(2000).routed(b.mac, b.host_mac).bytes();
        bench.expect(&[Reason::Proof], OK, |bench| bench.egress_gso(a.ifindex, &there, b, 500, &routed));
        assert_eq!(bench.direction_from(a).length as usize, headers + 500);
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &of(500).bytes()));
        bench.expect(&[Reason::Refresh], OK, |bench| bench.ingress(a, &of(501).bytes()));
    });
}

#[test]
fn a_frame_that_was_padded_on_the_wire_is_no_longer_than_what_the_stack_delivers_of_it() {
    run("padded", patient(), |bench| {
        let (there, back) = udp(bench);
        let a = bench.a;
        bench.promote(&there, &back);
        let mut padded = there.bytes();
        let whole = padded.len();
        padded.resize(whole.max(60), 0);
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &padded));
    });
}
