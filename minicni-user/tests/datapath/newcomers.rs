//! When a flow begins, and when noting it rests.

use std::{cell::RefCell, thread::sleep};

use minicni::datapath::{Constants, Flows};
use minicni_common::{Reason, names::bucket};
use proptest::prelude::*;

use crate::{
    bench::{BEYOND, Bench, LIMIT, OK, Pod, REDIRECT, jiffies, patient, run},
    fuzz::runner,
    packets::Frame,
};

/// As the daemon has it.
const SKIPPED: u32 = 8;

fn real() -> Constants {
    Constants { skipped: SKIPPED, ..patient() }
}

fn udp(bench: &Bench) -> (Frame, Frame) {
    pair(bench, 1000)
}

/// Packets there and back between two sockets, of which the client's has this port.
fn pair(bench: &Bench, port: u16) -> (Frame, Frame) {
    let (a, b) = (bench.a, bench.b);
    (Frame::udp(a, port, b, 53), Frame::udp(b, 53, a, port))
}

fn flows(bench: &Bench) -> usize {
    Flows::open(&bench.pins).unwrap().all().unwrap().len()
}

/// A packet enters, and if the stack has it, it leaves as it entered. Says whether it was redirected.
fn exchange(bench: &mut Bench, frame: &Frame, from: Pod, to: Pod) -> bool {
    if bench.ingress(from, &frame.bytes()).action == REDIRECT {
        return true;
    }
    bench.egress(from.ifindex, frame, to, &frame.routed(to.mac, to.host_mac).bytes());
    false
}

#[test]
fn a_flow_begins_with_the_ninth_packet_of_its_tuple_and_needs_eight_proofs_each_way_from_then_on() {
    run("newcomer", real(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        for _ in 0..SKIPPED / 2 {
            bench.through_the_stack(a, b, &there, Reason::Learning, &[]);
            bench.through_the_stack(b, a, &back, Reason::Learning, &[]);
        }
        assert_eq!(flows(bench), 0);
        bench.promote(&there, &back);
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &there.bytes()));
    });
}

#[test]
fn connections_of_a_few_packets_leave_the_cache_empty() {
    run("short", real(), |bench| {
        let (a, b) = (bench.a, bench.b);
        // Each in a bucket of its own, because where they meet each sixteenth begins at once.
        let mut buckets = std::collections::HashSet::new();
        let pairs: Vec<_> = (1000..1400).map(|port| pair(bench, port)).collect();
        for (there, back) in pairs.iter().filter(|(there, _)| buckets.insert(bucket(there.hash()))) {
            for _ in 0..SKIPPED / 2 {
                exchange(bench, there, a, b);
                exchange(bench, back, b, a);
            }
        }
        assert!(buckets.len() > 300);
        assert_eq!(flows(bench), 0);
    });
}

/// Ports of which the flows share a bucket.
fn colliding(bench: &Bench, count: usize) -> Vec<u16> {
    let wanted = bucket(pair(bench, 1000).0.hash());
    (1000..).filter(|port| bucket(pair(bench, *port).0.hash()) == wanted).take(count).collect()
}

#[test]
fn flows_that_share_a_bucket_are_all_promoted_though_their_packets_take_turns() {
    run("bucket", real(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let pairs: Vec<_> = colliding(bench, 3).into_iter().map(|port| pair(bench, port)).collect();
        for _ in 0..100 {
            for (there, back) in &pairs {
                exchange(bench, there, a, b);
                exchange(bench, back, b, a);
            }
        }
        for (there, back) in &pairs {
            bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &there.bytes()));
            bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(b, &back.bytes()));
        }
    });
}

#[test]
fn whatever_shares_a_bucket_only_what_leaves_as_it_entered_is_ever_redirected() {
    run("bucket_fuzz", real(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let virtual_end = (bench.virtual_address, 80);
        let ports = colliding(bench, 4);
        let pairs: Vec<_> = ports.iter().map(|port| pair(bench, *port)).collect();
        let bench = RefCell::new(bench);
        // Which flow, which way, how often in a row.
        let step = (0..pairs.len(), any::<bool>(), 1..12_u32);
        runner(60)
            .run(&(prop::collection::vec(step, 1..60), 0..16_u8), |(steps, translated)| {
                let mut bench = bench.borrow_mut();
                bench.forget();
                for (flow, forth, count) in steps {
                    let (there, back) = &pairs[flow];
                    let (frame, from, to) = if forth { (there, a, b) } else { (back, b, a) };
                    for _ in 0..count {
                        if translated >> flow & 1 == 0 {
                            exchange(&mut bench, frame, from, to);
                            continue;
                        }
                        prop_assert_eq!(bench.ingress(from, &frame.bytes()).action, OK);
                        let routed = frame.routed(to.mac, to.host_mac);
                        let left = if forth {
                            Frame { destination: virtual_end, ..routed }
                        } else {
                            Frame { source: virtual_end, ..routed }
                        };
                        bench.egress(from.ifindex, frame, to, &left.bytes());
                    }
                }
                Ok(())
            })
            .unwrap();
    });
}

#[test]
fn a_direction_of_which_nothing_is_proven_rests_after_64_packets_and_is_tried_again_after_the_grace_time() {
    run("rest", Constants { grace: jiffies(LIMIT), ..patient() }, |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        for _ in 0..80 {
            bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &there.bytes()));
        }
        let noted = bench.direction_from(a).noted;
        assert!((1..=64).contains(&noted), "{noted}");
        sleep(BEYOND);
        bench.promote(&there, &back);
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &there.bytes()));
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(b, &back.bytes()));
    });
}

#[test]
fn what_a_direction_proved_before_the_idle_limit_does_not_count_when_the_other_one_begins() {
    run("forgotten", Constants { idle: jiffies(LIMIT), ..patient() }, |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        for _ in 0..8 {
            bench.through_the_stack(a, b, &there, Reason::Learning, &[Reason::Proof]);
        }
        sleep(BEYOND);
        bench.through_the_stack(b, a, &back, Reason::Learning, &[Reason::Proof]);
        assert_eq!(bench.flow().directions.iter().map(|direction| direction.proofs).sum::<u64>(), 1);
    });
}

#[test]
fn a_twin_ends_what_a_flow_proved_for_as_long_as_the_flow_may_be_redirected() {
    let limit = jiffies(LIMIT);
    let short = Constants { refresh: limit, idle: limit, grace: limit, ..patient() };
    run("late_twin", short, |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        bench.promote(&there, &back);
        let twin = there.routed(b.mac, b.host_mac).bytes();
        bench.expect(&[Reason::Demoted, Reason::Twin], OK, |bench| bench.egress_untagged(a.ifindex, b, &twin));
        bench.promote(&there, &back);
        sleep(2 * BEYOND);
        // Nothing is left to be ended: the next packet finds the flow void.
        bench.expect(&[], OK, |bench| bench.egress_untagged(a.ifindex, b, &twin));
        bench.expect(&[Reason::Stale, Reason::Demoted], OK, |bench| bench.ingress(b, &back.bytes()));
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &there.bytes()));
    });
}
