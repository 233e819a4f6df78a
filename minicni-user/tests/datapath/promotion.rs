//! When a flow gets on the fast path, and what takes it off again.

use std::{thread::sleep, time::Duration};

use minicni::datapath::Constants;
use minicni_common::{Reason, names::GENERATION_SLOTS};

use crate::{
    bench::{BEYOND, Bench, LIMIT, OK, REDIRECT, jiffies, patient, run},
    packets::{Frame, Tcp, inspect},
};

fn udp(bench: &Bench) -> (Frame, Frame) {
    let (a, b) = (bench.a, bench.b);
    (Frame::udp(a, 1000, b, 53), Frame::udp(b, 53, a, 1000))
}

fn tcp(bench: &Bench) -> (Frame, Frame) {
    let (a, b) = (bench.a, bench.b);
    (Frame::tcp(a, 1000, b, 80), Frame::tcp(b, 80, a, 1000))
}

#[track_caller]
fn assert_redirected(bench: &mut Bench, there: &Frame, back: &Frame) {
    let (a, b) = (bench.a, bench.b);
    let out = bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &there.bytes()));
    assert_eq!(inspect(&out.frame), (b.mac, b.host_mac, there.ttl - 1));
    let out = bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(b, &back.bytes()));
    assert_eq!(inspect(&out.frame), (a.mac, a.host_mac, back.ttl - 1));
}

#[test]
fn after_eight_proofs_each_way_both_directions_are_redirected_with_the_stacks_macs_and_one_ttl_less() {
    run("promotion", patient(), |bench| {
        for (there, back) in [udp(bench), tcp(bench)] {
            bench.promote(&there, &back);
            assert_redirected(bench, &there, &back);
            // The checksum's carry, too.
            for ttl in [2, 3, 128, 255] {
                let there = Frame { ttl, ..there.clone() };
                assert_redirected(bench, &there, &Frame { ttl, ..back.clone() });
            }
            bench.forget();
        }
    });
}

#[test]
fn proofs_of_one_direction_alone_promote_nothing() {
    run("one_direction", patient(), |bench| {
        let (there, _) = udp(bench);
        for _ in 0..40 {
            bench.through_the_stack(bench.a, bench.b, &there, Reason::Learning, &[Reason::Proof]);
        }
    });
}

#[test]
fn a_flow_whose_replies_are_translated_is_never_promoted() {
    run("cluster_ip", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let virtual_ip = bench.virtual_address;
        let request = Frame { destination: (virtual_ip, 80), ..Frame::tcp(a, 1000, b, 8080) };
        let reply = Frame::tcp(b, 8080, a, 1000);
        for _ in 0..100 {
            bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &request.bytes()));
            let translated = Frame { destination: (b.address, 8080), ..request.routed(b.mac, b.host_mac) };
            bench.expect(&[], OK, |bench| bench.egress(a.ifindex, &request, b, &translated.bytes()));
            bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(b, &reply.bytes()));
            let translated = Frame { source: (virtual_ip, 80), ..reply.routed(a.mac, a.host_mac) };
            bench.expect(&[], OK, |bench| bench.egress(b.ifindex, &reply, a, &translated.bytes()));
        }
    });
}

#[test]
fn a_flow_of_which_a_rule_changes_the_hop_limit_or_the_class_is_never_promoted() {
    type Edit = fn(&mut Frame, &mut Vec<u8>);
    let edits: [(&str, Edit); 2] = [
        ("ttl", |frame, bytes| *bytes = Frame { ttl: 9, ..frame.clone() }.bytes()),
        ("class", |_, bytes| bytes[15] ^= 0x10),
    ];
    for (name, edit) in edits {
        run(name, patient(), |bench| {
            let (there, back) = udp(bench);
            let (a, b) = (bench.a, bench.b);
            for _ in 0..20 {
                bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &there.bytes()));
                let mut routed = there.routed(b.mac, b.host_mac);
                let mut bytes = routed.bytes();
                edit(&mut routed, &mut bytes);
                bench.egress(a.ifindex, &there, b, &bytes);
                bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(b, &back.bytes()));
                bench.egress(b.ifindex, &back, a, &back.routed(a.mac, a.host_mac).bytes());
            }
            assert_eq!(bench.counters().promoted, 0);
        });
    }
}

#[test]
fn packets_that_the_stack_drops_promote_nothing() {
    run("policy_drop", patient(), |bench| {
        let (there, back) = udp(bench);
        let (a, b) = (bench.a, bench.b);
        for _ in 0..100 {
            bench.through_the_stack(a, b, &there, Reason::Learning, &[Reason::Proof]);
            bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(b, &back.bytes()));
        }
    });
}

#[test]
fn fin_and_rst_demote_a_flow_and_leave_it_to_the_stack_until_a_syn() {
    for (name, end) in [("fin", Tcp::Fin), ("rst", Tcp::Rst)] {
        run(name, patient(), |bench| {
            let (there, back) = tcp(bench);
            let (a, b) = (bench.a, bench.b);
            bench.promote(&there, &back);
            bench.expect(&[Reason::TcpControl, Reason::Demoted], OK, |bench| {
                bench.ingress(a, &there.flags(end).bytes())
            });
            for _ in 0..20 {
                bench.through_the_stack(b, a, &back, Reason::Closing, &[]);
                bench.through_the_stack(a, b, &there, Reason::Closing, &[]);
            }
            bench.expect(&[Reason::TcpControl], OK, |bench| bench.ingress(a, &there.flags(Tcp::Syn).bytes()));
            bench.promote(&there, &back);
            assert_redirected(bench, &there, &back);
        });
    }
}

#[test]
fn a_syn_on_either_hook_demotes_a_promoted_flow() {
    run("syn", patient(), |bench| {
        let (there, back) = tcp(bench);
        let (a, b) = (bench.a, bench.b);
        bench.promote(&there, &back);
        bench.expect(&[Reason::TcpControl, Reason::Demoted], OK, |bench| {
            bench.ingress(a, &there.flags(Tcp::Syn).bytes())
        });
        bench.promote(&there, &back);
        bench.expect(&[Reason::Demoted], OK, |bench| bench.egress_untagged(7, b, &there.flags(Tcp::Syn).bytes()));
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &there.bytes()));
    });
}

#[test]
fn a_promoted_tuple_that_the_stack_delivers_is_a_twin_and_demotes_the_flow() {
    run("twin", patient(), |bench| {
        let (there, back) = udp(bench);
        let (a, b) = (bench.a, bench.b);
        bench.promote(&there, &back);
        // Translated from something else that entered at the same interface.
        let other = Frame { destination: (bench.virtual_address, 80), ..there.clone() };
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &other.bytes()));
        let twin = there.routed(b.mac, b.host_mac);
        bench.expect(&[Reason::Demoted, Reason::Twin], OK, |bench| bench.egress(a.ifindex, &other, b, &twin.bytes()));
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &there.bytes()));
    });
}

/// What conntrack makes of one socket that talks to a pod and to a virtual address of the same pod, when the virtual
/// address came first: the direct flow's port is changed, and each flow leaves as the other entered.
#[test]
fn two_flows_that_leave_as_each_other_entered_prove_nothing() {
    run("crossed_twins", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let (direct, back) = udp(bench);
        let virtual_end = (bench.virtual_address, 80);
        let translated = Frame { destination: virtual_end, ..direct.clone() };
        let remapped = Frame { source: (a.address, 5866), ..direct.clone() };
        let remapped_back = Frame { destination: (a.address, 5866), ..back.clone() };
        let deliver =
            |bench: &mut Bench, entered: &Frame, from: crate::bench::Pod, to: crate::bench::Pod, left: &Frame| {
                bench.ingress(from, &entered.bytes());
                bench.egress(from.ifindex, entered, to, &left.routed(to.mac, to.host_mac).bytes());
            };
        for _ in 0..40 {
            deliver(bench, &direct, a, b, &remapped);
            deliver(bench, &remapped_back, b, a, &back);
            deliver(bench, &translated, a, b, &direct);
            deliver(bench, &back, b, a, &Frame { source: virtual_end, ..back.clone() });
        }
        let counters = bench.counters();
        assert_eq!((counters.proof, counters.promoted, counters.redirected), (0, 0, 0));
    });
}

#[test]
fn a_flow_with_a_packet_on_the_way_is_not_promoted_before_that_one_is_proven() {
    run("pending", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &there.bytes()));
        for _ in 0..20 {
            bench.through_the_stack(b, a, &back, Reason::Learning, &[Reason::Proof]);
            bench.through_the_stack(a, b, &there, Reason::Learning, &[Reason::Proof]);
        }
        let late = there.routed(b.mac, b.host_mac).bytes();
        bench.expect(&[Reason::Proof, Reason::Promoted], OK, |bench| bench.egress(a.ifindex, &there, b, &late));
    });
}

#[test]
fn a_busy_flow_that_lost_a_packet_in_the_stack_is_promoted_all_the_same() {
    run("lost", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &there.bytes()));
        for _ in 0..100 {
            for (frame, from, to) in [(&there, a, b), (&back, b, a)] {
                if bench.ingress(from, &frame.bytes()).action == OK {
                    bench.egress(from.ifindex, frame, to, &frame.routed(to.mac, to.host_mac).bytes());
                }
            }
        }
        assert_redirected(bench, &there, &back);
    });
}

#[test]
fn a_delivery_from_another_interface_is_no_proof() {
    run("other_interface", patient(), |bench| {
        let (there, _) = udp(bench);
        let (a, b) = (bench.a, bench.b);
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &there.bytes()));
        let routed = there.routed(b.mac, b.host_mac).bytes();
        bench.expect(&[], OK, |bench| bench.egress(b.ifindex + 100, &there, b, &routed));
        bench.expect(&[], OK, |bench| bench.egress(0, &there, b, &routed));
        // Hairpin: out where it came in.
        bench.expect(&[], OK, |bench| bench.egress(a.ifindex, &there, a, &routed));
        assert_eq!(bench.direction_from(a).proofs, 0);
    });
}

#[test]
fn a_promoted_tuple_that_enters_at_another_interface_is_not_redirected() {
    run("other_entry", patient(), |bench| {
        let (there, back) = udp(bench);
        let b = bench.b;
        bench.promote(&there, &back);
        // Pod B sends with pod A's address, straight into A's promoted flow.
        let forged = Frame { source_mac: b.mac, destination_mac: b.host_mac, ..there.clone() };
        bench.expect(&[Reason::SpoofedSource], crate::bench::SHOT, |bench| bench.ingress(b, &forged.bytes()));
        assert_redirected(bench, &there, &back);
    });
}

#[test]
fn a_bump_of_either_pods_generation_or_of_the_global_one_makes_the_flow_prove_itself_again() {
    run("generation", patient(), |bench| {
        let (there, back) = udp(bench);
        let (a, b) = (bench.a, bench.b);
        let bumps: [&dyn Fn(&Bench); 4] = [
            &|bench| bench.generations().bump(a.ifindex).unwrap(),
            &|bench| bench.generations().bump(b.ifindex).unwrap(),
            &|bench| bench.generations().bump(b.ifindex + GENERATION_SLOTS).unwrap(),
            &|bench| bench.generations().bump_all().unwrap(),
        ];
        for bump in bumps {
            bench.promote(&there, &back);
            assert_redirected(bench, &there, &back);
            bump(bench);
            bench.expect(&[Reason::Stale, Reason::Demoted], OK, |bench| bench.ingress(a, &there.bytes()));
            bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(b, &back.bytes()));
            bench.forget();
        }
    });
}

#[test]
fn a_promoted_direction_sends_a_packet_through_the_stack_at_every_refresh_and_stays_promoted() {
    let refresh = Constants { refresh: jiffies(LIMIT), grace: jiffies(LIMIT), ..patient() };
    run("refresh", refresh, |bench| {
        let (there, back) = udp(bench);
        let (a, b) = (bench.a, bench.b);
        bench.promote(&there, &back);
        sleep(BEYOND);
        bench.through_the_stack(a, b, &there, Reason::Refresh, &[Reason::Proof]);
        bench.through_the_stack(b, a, &back, Reason::Refresh, &[Reason::Proof]);
        assert_redirected(bench, &there, &back);
    });
}

#[test]
fn a_refresh_that_the_stack_swallows_demotes_the_flow_after_the_grace_time() {
    let refresh = Constants { refresh: jiffies(LIMIT), grace: jiffies(LIMIT), ..patient() };
    run("swallowed", refresh, |bench| {
        let (there, back) = udp(bench);
        let a = bench.a;
        bench.promote(&there, &back);
        sleep(BEYOND);
        bench.expect(&[Reason::Refresh], OK, |bench| bench.ingress(a, &there.bytes()));
        sleep(BEYOND);
        bench.expect(&[Reason::Stale, Reason::Demoted], OK, |bench| bench.ingress(a, &there.bytes()));
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &there.bytes()));
    });
}

#[test]
fn longer_frames_do_not_put_off_the_verdict_on_one_that_was_swallowed() {
    let refresh = Constants { grace: jiffies(Duration::from_millis(500)), ..patient() };
    run("put_off", refresh, |bench| {
        let (there, back) = udp(bench);
        let a = bench.a;
        bench.promote(&there, &back);
        let mut stale = Vec::new();
        for length in 100..110 {
            let before = bench.counters();
            bench.ingress(a, &Frame { payload: vec![0; length], ..there.clone() }.bytes());
            stale.push(bench.counters().stale - before.stale);
            sleep(Duration::from_millis(100));
        }
        assert_eq!(stale.iter().sum::<u64>(), 1, "{stale:?}");
    });
}

#[test]
fn a_direction_idle_for_longer_than_the_limit_starts_from_nothing() {
    let short = Constants { refresh: jiffies(LIMIT / 4), idle: jiffies(LIMIT), grace: jiffies(LIMIT / 4), ..patient() };
    run("idle", short, |bench| {
        let (there, back) = udp(bench);
        let a = bench.a;
        bench.promote(&there, &back);
        sleep(BEYOND);
        bench.expect(&[Reason::Stale, Reason::Demoted], OK, |bench| bench.ingress(a, &there.bytes()));
        assert_eq!(bench.direction_from(a).noted, 1);
    });
}

#[test]
fn a_frame_longer_than_any_that_the_stack_delivered_goes_through_the_stack_first() {
    run("length", patient(), |bench| {
        let (there, back) = udp(bench);
        let (a, b) = (bench.a, bench.b);
        bench.promote(&there, &back);
        let longer = Frame { payload: vec![0; 1000], ..there.clone() };
        bench.through_the_stack(a, b, &longer, Reason::Refresh, &[Reason::Proof]);
        assert_redirected(bench, &longer, &back);
        // Of a GSO packet, the segments count.
        let giant = Frame { payload: vec![0; 2000], ..there };
        let out = bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress_gso(a, 500, &giant.bytes()));
        assert_eq!(inspect(&out.frame).2, 63);
        bench.expect(&[Reason::Refresh], OK, |bench| bench.ingress_gso(a, 1400, &giant.bytes()));
    });
}

#[test]
fn after_a_refresh_by_a_short_frame_longer_ones_go_through_the_stack_first_again() {
    let refresh = Constants { refresh: jiffies(LIMIT), grace: jiffies(LIMIT), ..patient() };
    run("shorter", refresh, |bench| {
        let (there, back) = udp(bench);
        let (a, b) = (bench.a, bench.b);
        bench.promote(&there, &back);
        let longer = Frame { payload: vec![0; 1000], ..there.clone() };
        bench.through_the_stack(a, b, &longer, Reason::Refresh, &[Reason::Proof]);
        assert_redirected(bench, &longer, &back);
        sleep(BEYOND);
        bench.through_the_stack(a, b, &there, Reason::Refresh, &[Reason::Proof]);
        // The path's MTU may be another one by now. If it is, this one does not arrive, and the stack says so to its sender.
        bench.expect(&[Reason::Refresh], OK, |bench| bench.ingress(a, &longer.bytes()));
        // Of several on their way the longest counts.
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &there.bytes()));
        let middle = Frame { payload: vec![0; 500], ..there.clone() };
        bench.expect(&[Reason::Refresh], OK, |bench| bench.ingress(a, &middle.bytes()));
        for frame in [&longer, &middle] {
            let routed = frame.routed(b.mac, b.host_mac).bytes();
            bench.expect(&[Reason::Proof], OK, |bench| bench.egress(a.ifindex, frame, b, &routed));
        }
        bench.through_the_stack(b, a, &back, Reason::Refresh, &[Reason::Proof]);
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &middle.bytes()));
    });
}

#[test]
fn tcp_stays_in_the_stack_where_conntrack_would_reject_its_end() {
    run("tcp_disabled", Constants { tcp: false, ..patient() }, |bench| {
        let (there, _) = tcp(bench);
        for _ in 0..20 {
            bench.through_the_stack(bench.a, bench.b, &there, Reason::TcpDisabled, &[]);
        }
        let (there, back) = udp(bench);
        bench.promote(&there, &back);
    });
}

#[test]
fn an_endpoint_that_opted_out_keeps_the_flows_of_both_sides_in_the_stack() {
    run("opted_out", patient(), |bench| {
        let (there, back) = udp(bench);
        let (a, b) = (bench.a, bench.b);
        bench.enter(b, minicni_common::Endpoint::NO_FAST_PATH);
        for _ in 0..20 {
            bench.through_the_stack(a, b, &there, Reason::Learning, &[Reason::Proof]);
            bench.through_the_stack(b, a, &back, Reason::OptedOut, &[]);
        }
    });
}
