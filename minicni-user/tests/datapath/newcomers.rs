//! When a flow begins, and when noting it rests.

use std::{cell::RefCell, thread::sleep, time::Duration};

use aya::maps::{HashMap, Map, MapData};
use bytemuck::Zeroable as _;
use minicni::datapath::{Constants, Flows};
use minicni_common::{
    Endpoint, Flow, FlowKey4, FlowKey6, FlowState, Reason,
    names::{FLOWS4, FLOWS6, MAX_FLOWS, bucket},
};
use proptest::prelude::*;

use crate::{
    bench::{BEYOND, Bench, LIMIT, OK, Pod, REDIRECT, SHOT, jiffies, patient, run},
    fuzz::runner,
    packets::{Frame, Tcp},
};

/// As the daemon has it.
const SKIPPED: u32 = 8;

fn real() -> Constants {
    Constants { skipped: SKIPPED, idle: jiffies(Duration::from_secs(20)), ..patient() }
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

/// Enters as many flows as there is room for, of strangers.
fn fill(bench: &Bench) {
    let map = |name| Map::LruHashMap(MapData::from_pin(bench.pins.map(name)).unwrap());
    let ports = (0..MAX_FLOWS).map(|number| [number, number >> 16].map(|port| u16::try_from(port & 0xffff).unwrap()));
    if bench.a.address.is_ipv4() {
        let mut flows = HashMap::<_, FlowKey4, Flow>::try_from(map(FLOWS4)).unwrap();
        for ports in ports {
            flows.insert(FlowKey4 { addresses: [[10; 4], [11; 4]], ports, protocol: 17 }, Flow::zeroed(), 0).unwrap();
        }
    } else {
        let mut flows = HashMap::<_, FlowKey6, Flow>::try_from(map(FLOWS6)).unwrap();
        for ports in ports {
            flows.insert(FlowKey6 { addresses: [[10; 16], [11; 16]], ports, protocol: 17 }, Flow::zeroed(), 0).unwrap();
        }
    }
}

#[test]
fn a_full_cache_makes_room_and_redirects_nothing_that_was_not_proven() {
    run("full", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        bench.promote(&there, &back);
        fill(bench);
        let before = bench.counters().redirected;
        for port in 10_000..12_000 {
            bench.ingress(a, &Frame::udp(a, port, b, 53).bytes());
        }
        assert_eq!(bench.counters().redirected, before);
        let kept = flows(bench);
        assert!((MAX_FLOWS as usize / 2..=MAX_FLOWS as usize).contains(&kept), "{kept} flows are in the cache");
        // What it forgot proves itself again; what it did not is redirected.
        exchange(bench, &there, a, b);
        let (there, back) = pair(bench, 999);
        bench.promote(&there, &back);
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &there.bytes()));
    });
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
        // Each in a bucket of its own, because where they meet each 255th begins at once.
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

#[test]
fn connections_of_a_few_packets_leave_the_cache_empty_though_their_ports_come_back() {
    run("reused", real(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let [(there, back), (other, other_back)] = colliding(bench, Frame::tcp, 2).try_into().unwrap();
        let short = |bench: &mut Bench| {
            exchange(bench, &there.flags(Tcp::Syn), a, b);
            exchange(bench, &back.flags(Tcp::Syn), b, a);
            for _ in 0..SKIPPED / 2 {
                exchange(bench, &there, a, b);
                exchange(bench, &back, b, a);
            }
            exchange(bench, &there.flags(Tcp::Fin), a, b);
        };
        for _ in 0..4 {
            short(bench);
        }
        assert_eq!(flows(bench), 0);
        // Also where the cache is asked, because their bucket has a flow.
        for _ in 0..SKIPPED {
            exchange(bench, &other, a, b);
            exchange(bench, &other_back, b, a);
        }
        assert_eq!(flows(bench), 1);
        for _ in 0..4 {
            short(bench);
        }
        assert_eq!(flows(bench), 1);
    });
}

/// As [`pair`], of flows that share a bucket, and of frames that are made like this.
fn colliding(bench: &Bench, frame: fn(Pod, u16, Pod, u16) -> Frame, count: usize) -> Vec<(Frame, Frame)> {
    let (a, b) = (bench.a, bench.b);
    let wanted = bucket(frame(a, 1000, b, 53).hash());
    let ports = (1000..).flat_map(|port| [(port, 53), (port, 54), (port, 55)]);
    let pairs = ports.map(|(from, to)| (frame(a, from, b, to), frame(b, to, a, from)));
    pairs.filter(|(there, _)| bucket(there.hash()) == wanted).take(count).collect()
}

#[test]
fn flows_that_share_a_bucket_are_all_promoted_though_their_packets_take_turns() {
    run("bucket", real(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let pairs = colliding(bench, Frame::udp, 3);
        for _ in 0..300 {
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
        let pairs = colliding(bench, Frame::udp, 4);
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
fn what_is_no_flow_yet_and_what_rests_still_has_to_come_from_its_pod() {
    run("newcomer_spoofed", real(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let young = Frame::tcp(a, 1000, b, 80);
        let resting = Frame::tcp(a, 1001, b, 80);
        for _ in 0..SKIPPED + 80 {
            bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &resting.bytes()));
        }
        for honest in [young, resting] {
            let forged = Frame { source_mac: [2, 0, 0, 0, 0, 99], ..honest.clone() };
            bench.expect(&[Reason::SpoofedMac], SHOT, |bench| bench.ingress(a, &forged.bytes()));
            let forged = Frame { source_mac: b.mac, ..honest.clone() };
            bench.expect(&[Reason::SpoofedSource], SHOT, |bench| bench.ingress(b, &forged.bytes()));
            let forged = Frame { source: (bench.virtual_address, honest.source.1), ..honest.clone() };
            bench.expect(&[Reason::SpoofedSource], SHOT, |bench| bench.ingress(a, &forged.bytes()));
            bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &honest.bytes()));
        }
    });
}

#[test]
fn what_a_pod_that_opted_out_sends_is_counted_as_such_from_its_first_packet_on() {
    run("newcomer_opted_out", real(), |bench| {
        let (a, frame) = (bench.a, udp(bench).0.bytes());
        for flag in [Endpoint::NO_FAST_PATH, Endpoint::NO_SPOOF_CHECK] {
            bench.enter(a, flag);
            for _ in 0..2 * SKIPPED {
                bench.expect(&[Reason::OptedOut], OK, |bench| bench.ingress(a, &frame));
            }
        }
    });
}

#[test]
fn the_end_of_a_connection_that_rests_is_seen() {
    run("rest_end", real(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let frame = Frame::tcp(a, 1000, b, 80);
        for _ in 0..SKIPPED + 80 {
            bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &frame.bytes()));
        }
        assert!(bench.direction_from(a).noted != 0);
        let fin = frame.flags(Tcp::Fin).bytes();
        bench.expect(&[Reason::TcpControl], OK, |bench| bench.ingress(a, &fin));
        assert_eq!(bench.flow().state, FlowState::Closing as u32);
    });
}

#[test]
fn what_is_silent_for_the_idle_limit_after_its_end_begins_anew_without_a_syn_and_no_sooner() {
    run("silent", Constants { idle: jiffies(LIMIT), ..patient() }, |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = (Frame::tcp(a, 1000, b, 80), Frame::tcp(b, 80, a, 1000));
        bench.promote(&there, &back);
        let fin = there.flags(Tcp::Fin).bytes();
        bench.expect(&[Reason::TcpControl, Reason::Demoted], OK, |bench| bench.ingress(a, &fin));
        // The other end still has something to say, with pauses.
        for _ in 0..4 {
            bench.through_the_stack(b, a, &back, Reason::Closing, &[]);
            sleep(LIMIT / 3);
        }
        bench.through_the_stack(b, a, &back, Reason::Closing, &[]);
        sleep(BEYOND);
        bench.promote(&there, &back);
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &there.bytes()));
    });
}

#[test]
fn a_connection_whose_syn_nobody_looked_at_is_promoted_whoever_is_noted_in_its_bucket() {
    run("unseen_syn", Constants { idle: jiffies(LIMIT), ..real() }, |bench| {
        let (a, b) = (bench.a, bench.b);
        let [(there, back), (other, other_back)] = colliding(bench, Frame::tcp, 2).try_into().unwrap();
        let learn = |bench: &mut Bench, there: &Frame, back: &Frame| {
            for _ in 0..SKIPPED / 2 {
                bench.through_the_stack(a, b, there, Reason::Learning, &[]);
                bench.through_the_stack(b, a, back, Reason::Learning, &[]);
            }
        };
        learn(bench, &there, &back);
        bench.promote(&there, &back);
        let (syn, fin) = (there.flags(Tcp::Syn).bytes(), there.flags(Tcp::Fin).bytes());
        bench.expect(&[Reason::TcpControl, Reason::Demoted], OK, |bench| bench.ingress(a, &fin));
        bench.through_the_stack(b, a, &back, Reason::Closing, &[]);
        sleep(BEYOND + Duration::from_millis(300));
        bench.expect(&[Reason::TcpControl], OK, |bench| bench.ingress(a, &syn));
        // The cache has to be asked about this bucket from now on, and still has the end of the connection before.
        learn(bench, &other, &other_back);
        bench.promote(&other, &other_back);
        bench.promote(&there, &back);
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &there.bytes()));
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &other.bytes()));
    });
}

#[test]
fn a_flow_that_goes_on_after_the_idle_limit_is_not_taken_for_its_own_twin() {
    let limit = jiffies(LIMIT);
    run("resumed", Constants { refresh: limit, idle: limit, ..real() }, |bench| {
        let (a, b) = (bench.a, bench.b);
        let [(there, back), (other, _)] = colliding(bench, Frame::udp, 2).try_into().unwrap();
        for _ in 0..SKIPPED / 2 {
            bench.through_the_stack(a, b, &there, Reason::Learning, &[]);
            bench.through_the_stack(b, a, &back, Reason::Learning, &[]);
        }
        bench.promote(&there, &back);
        sleep(LIMIT * 3 / 2);
        // A short connection is the newcomer in its bucket.
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &other.bytes()));
        let routed = there.routed(b.mac, b.host_mac).bytes();
        for _ in 0..SKIPPED {
            bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &there.bytes()));
            bench.expect(&[], OK, |bench| bench.egress_untagged(a.ifindex, b, &routed));
        }
        bench.expect(&[Reason::Stale, Reason::Demoted], OK, |bench| bench.ingress(a, &there.bytes()));
        bench.expect(&[Reason::Proof], OK, |bench| bench.egress(a.ifindex, &there, b, &routed));
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
