//! What a flow's shortcuts do for it, and what takes them away. The flow is evicted in these tests, so that nothing else redirects.

use std::thread::sleep;

use aya::maps::{Array, Map, MapData};
use minicni::datapath::Constants;
use minicni_common::{
    Bucket4, EndpointKind, Reason, Shortcut4,
    names::{BUCKETS4, bucket},
};

use crate::{
    bench::{BEYOND, Bench, Family, LIMIT, OK, Pod, REDIRECT, jiffies, patient, run, run_with},
    classes::{EXPEDITED, classed},
    packets::{Frame, Tcp},
};

fn udp(bench: &Bench) -> (Frame, Frame) {
    (Frame::udp(bench.a, 1000, bench.b, 53), Frame::udp(bench.b, 53, bench.a, 1000))
}

fn tcp(bench: &Bench) -> (Frame, Frame) {
    (Frame::tcp(bench.a, 1000, bench.b, 80), Frame::tcp(bench.b, 80, bench.a, 1000))
}

/// A flow with both of its shortcuts, which is not in the cache.
fn shortened(bench: &mut Bench, there: &Frame, back: &Frame) {
    bench.forget();
    bench.promote(there, back);
    bench.shorten(there, back);
    bench.evict();
    let (a, b) = (bench.a, bench.b);
    for (from, frame) in [(a, there), (b, back)] {
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(from, &frame.bytes()));
    }
}

/// Neither direction is redirected.
#[track_caller]
fn expect_none(bench: &mut Bench, there: &Frame, back: &Frame) {
    bench.evict();
    let (a, b) = (bench.a, bench.b);
    for (from, frame) in [(a, there), (b, back)] {
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(from, &frame.bytes()));
    }
}

#[test]
fn a_flow_is_redirected_without_its_entry_until_it_is_due_to_go_through_the_stack() {
    let limit = jiffies(LIMIT);
    run("shortcut", Constants { refresh: limit, grace: limit, ..patient() }, |bench| {
        for (there, back) in [udp(bench), tcp(bench)] {
            shortened(bench, &there, &back);
            sleep(BEYOND);
            expect_none(bench, &there, &back);
        }
    });
}

#[test]
fn the_end_and_the_beginning_of_a_connection_take_its_shortcuts_away_at_either_hook() {
    run("shortcut_control", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = tcp(bench);
        for flags in [Tcp::Syn, Tcp::Fin, Tcp::Rst] {
            shortened(bench, &there, &back);
            bench.expect(&[Reason::TcpControl], OK, |bench| bench.ingress(b, &back.flags(flags).bytes()));
            expect_none(bench, &there, &back);
            shortened(bench, &there, &back);
            let leaving = there.flags(flags).routed(b.mac, b.host_mac).bytes();
            bench.expect(&[], OK, |bench| bench.egress_untagged(a.ifindex, b, &leaving));
            expect_none(bench, &there, &back);
        }
    });
}

#[test]
fn the_end_of_a_connection_that_enters_at_an_uplink_takes_its_shortcuts_away_too() {
    run("shortcut_uplink", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = tcp(bench);
        shortened(bench, &there, &back);
        // The interface is one now of which nobody's packets begin flows.
        bench.enter_as(EndpointKind::Uplink, b, 0);
        bench.expect(&[Reason::NotOfPod], OK, |bench| bench.ingress(b, &back.flags(Tcp::Rst).bytes()));
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &there.bytes()));
        bench.expect(&[Reason::NotOfPod], OK, |bench| {
            bench.evict();
            bench.ingress(b, &back.bytes())
        });
    });
}

#[test]
fn a_shortcut_is_for_packets_like_those_that_proved_it() {
    run("shortcut_like", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        shortened(bench, &there, &back);
        let longer = Frame { payload: vec![0; 100], ..there.clone() };
        let last_hop = Frame { ttl: 1, ..there.clone() };
        for other in [&longer, &last_hop] {
            assert_ne!(bench.ingress(a, &other.bytes()).action, REDIRECT);
            bench.evict();
        }
        assert_ne!(bench.ingress(a, &classed(&there, EXPEDITED)).action, REDIRECT);
        bench.evict();
        // The tuple at another interface.
        assert_ne!(bench.ingress(b, &there.bytes()).action, REDIRECT);
        bench.evict();
        for ecn in 0..4 {
            bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &classed(&there, ecn)));
        }
    });
}

#[test]
fn of_two_flows_that_take_turns_in_one_place_one_has_a_shortcut() {
    run("shortcut_turns", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        let mut ports = (2000..=u16::MAX).map(|port| (Frame::udp(a, port, b, 53), Frame::udp(b, 53, a, port)));
        let other = ports.find(|(other, _)| bucket(other.hash()) == bucket(there.hash())).unwrap();
        bench.promote(&there, &back);
        bench.promote(&other.0, &other.1);
        for _ in 0..10 {
            for frame in [&there, &other.0] {
                bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &frame.bytes()));
            }
        }
        bench.evict();
        let redirected = [&there, &other.0].map(|frame| bench.ingress(a, &frame.bytes()).action == REDIRECT);
        assert_eq!(redirected.iter().filter(|it| **it).count(), 1, "{redirected:?}");
    });
}

#[test]
fn a_twin_takes_the_shortcuts_of_both_directions_away() {
    run("shortcut_twin", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        for (there, back) in [udp(bench), tcp(bench)] {
            for (from, frame, to) in [(a, &there, b), (b, &back, a)] {
                shortened(bench, &there, &back);
                let twin = frame.routed(to.mac, to.host_mac).bytes();
                bench.expect(&[], OK, |bench| bench.egress_untagged(from.ifindex, to, &twin));
                expect_none(bench, &there, &back);
            }
        }
    });
}

#[test]
fn another_flow_of_the_same_bucket_takes_no_shortcut_away() {
    run("shortcut_neighbour", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        let other = (2000..=u16::MAX)
            .map(|port| Frame::udp(a, port, b, 53))
            .find(|other| bucket(other.hash()) == bucket(there.hash()))
            .unwrap();
        shortened(bench, &there, &back);
        let leaving = other.routed(b.mac, b.host_mac).bytes();
        bench.expect(&[], OK, |bench| bench.egress_untagged(a.ifindex, b, &leaving));
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &other.bytes()));
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &there.bytes()));
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(b, &back.bytes()));
    });
}

#[test]
fn a_flow_that_begins_again_and_leaves_elsewhere_takes_the_shortcuts_of_before_away() {
    run("shortcut_moved", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let moved = Pod { mac: [2, 0, 0, 0, 0, 99], ..b };
        let (there, back) = udp(bench);
        shortened(bench, &there, &back);
        // It is longer than what the shortcut is for.
        let longer = Frame { payload: vec![0; 100], ..there.clone() };
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &longer.bytes()));
        let leaving = longer.routed(moved.mac, moved.host_mac).bytes();
        bench.expect(&[Reason::Proof], OK, |bench| bench.egress(a.ifindex, &longer, moved, &leaving));
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &there.bytes()));
    });
}

#[test]
fn whatever_generation_is_bumped_no_shortcut_counts_any_more() {
    run("shortcut_epoch", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        for interface in [Some(a.ifindex), Some(b.ifindex), None] {
            shortened(bench, &there, &back);
            match interface {
                Some(ifindex) => bench.generations().bump(ifindex),
                None => bench.generations().bump_all(),
            }
            .unwrap();
            expect_none(bench, &there, &back);
        }
    });
}

#[test]
fn a_packet_that_has_to_go_through_the_stack_has_its_shortcut_made_anew() {
    run("shortcut_longer", patient(), |bench| {
        let a = bench.a;
        let (there, back) = udp(bench);
        bench.promote(&there, &back);
        bench.shorten(&there, &back);
        let longer = Frame { payload: vec![0; 100], ..there.clone() };
        bench.through_the_stack(a, bench.b, &longer, Reason::Refresh, &[Reason::Proof]);
        for _ in 0..3 {
            bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &longer.bytes()));
        }
        bench.evict();
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &longer.bytes()));
    });
}

/// A bucket as words: three of its sketch, then eight of each shortcut.
type Words = [u64; size_of::<Bucket4>() / size_of::<u64>()];

const SKETCH: usize = 3;
const SHORTCUT: usize = size_of::<Shortcut4>() / size_of::<u64>();

fn buckets(bench: &Bench) -> Array<MapData, Words> {
    Map::Array(MapData::from_pin(bench.pins.map(BUCKETS4)).unwrap()).try_into().unwrap()
}

#[test]
fn one_packet_writes_a_shortcut_and_the_next_declares_it_valid() {
    run_with(Family::V4, "shortcut_writing", patient(), |bench| {
        let a = bench.a;
        let (there, back) = udp(bench);
        bench.forget();
        bench.promote(&there, &back);
        let index = bucket(there.hash());
        let mut buckets = buckets(bench);
        buckets.set(index, [0; SKETCH + 2 * SHORTCUT], 0).unwrap();
        // The sketch is empty now, too, and the cache is not asked before the tuple is due.
        bench.forget();
        bench.promote(&there, &back);
        buckets.set(index, without_shortcuts(buckets.get(&index, 0).unwrap()), 0).unwrap();
        let sum = |buckets: &Array<MapData, Words>| {
            let words = buckets.get(&index, 0).unwrap();
            (words[SKETCH + SHORTCUT - 1] | words[SKETCH + 2 * SHORTCUT - 1]) >> 32
        };
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &there.bytes()));
        assert_eq!(sum(&buckets), 0);
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &there.bytes()));
        assert_ne!(sum(&buckets), 0);
    });
}

fn without_shortcuts(words: Words) -> Words {
    std::array::from_fn(|index| if index < SKETCH { words[index] } else { 0 })
}

#[test]
fn a_mixture_of_two_shortcuts_is_never_followed() {
    run_with(Family::V4, "shortcut_mixture", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        let index = bucket(there.hash());
        let mut buckets = buckets(bench);
        let mut versions = Vec::new();
        for (mac, length) in [(b.mac, 1), ([2, 9, 9, 9, 9, 9], 300)] {
            bench.b.mac = mac;
            let longer = Frame { payload: vec![0; length], ..there.clone() };
            bench.forget();
            bench.promote(&longer, &back);
            bench.shorten(&longer, &back);
            versions.push(buckets.get(&index, 0).unwrap());
            sleep(std::time::Duration::from_millis(20));
        }
        // Both in one epoch, the second's.
        let [mut first, second] = [versions[0], versions[1]];
        let place = if first[SKETCH] == second[SKETCH] && first[SKETCH + 2] != second[SKETCH + 2] {
            SKETCH
        } else {
            SKETCH + SHORTCUT
        };
        assert!((0..SHORTCUT).filter(|word| first[place + word] != second[place + word]).count() >= 4);
        first[..SKETCH].copy_from_slice(&second[..SKETCH]);
        for subset in 0..1_u32 << SHORTCUT {
            let mut mixture = second;
            for word in (0..SHORTCUT).filter(|word| subset >> word & 1 != 0) {
                mixture[place + word] = first[place + word];
            }
            bench.evict();
            buckets.set(index, mixture, 0).unwrap();
            let out = bench.ingress(a, &there.bytes());
            let is_second = mixture[place..place + SHORTCUT] == second[place..place + SHORTCUT];
            assert_eq!(out.action == REDIRECT, is_second, "{subset:#b} of {first:x?} in {second:x?}");
        }
    });
}
