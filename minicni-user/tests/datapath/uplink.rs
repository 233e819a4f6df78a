//! Flows between a pod and another host, through an uplink.

use std::net::{Ipv4Addr, Ipv6Addr};

use minicni::link::MacAddress;
use minicni_common::{EndpointKind, Reason, names::REDIRECTED_TAG};
use nix::net::if_::if_nametoindex;

use crate::{
    bench::{Bench, OK, Pod, REDIRECT, Treatment, patient, run},
    packets::{Frame, Tcp, inspect},
    traffic::shell,
};

const ROUTER: [u8; 6] = [2, 0, 0, 0, 1, 0xfe];
const OTHER_ROUTER: [u8; 6] = [2, 0, 0, 0, 1, 0xfd];

/// Makes an uplink with two routers behind it, of which the first leads to a remote host, and gives that host: it is spoken
/// to through the router, and heard through the uplink.
fn uplink(bench: &mut Bench, number: u8) -> Pod {
    let host_mac = [2, 0, 0, 0, 2, number];
    let device = format!("up{number}");
    shell(&format!(
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0
         ip link set pod2 up
         ip link set peer2 up
         ip link add {device} address {mac} type veth peer name {device}peer
         ip link set {device} up
         ip link set {device}peer up
         ip addr add 192.0.{number}.1/24 dev {device}
         ip -6 addr add fd02:{number}::1/64 dev {device} nodad
         ip route add 10.2.{number}.0/24 via 192.0.{number}.254
         ip -6 route add fd10:{number}::/64 via fd02:{number}::fe
         for last in 254:fe 253:fd; do
           ip neigh add 192.0.{number}.${{last%:*}} lladdr 02:00:00:00:01:${{last#*:}} dev {device}
           ip neigh add fd02:{number}::${{last#*:}} lladdr 02:00:00:00:01:${{last#*:}} dev {device}
         done",
        mac = MacAddress(host_mac),
    ));
    let (ipv4, ipv6) = (Ipv4Addr::new(10, 2, number, 5), Ipv6Addr::new(0xfd10, number.into(), 0, 0, 0, 0, 0, 5));
    let address = if bench.a.address.is_ipv4() { ipv4.into() } else { ipv6.into() };
    let ifindex = if_nametoindex(device.as_str()).unwrap();
    let remote = Pod { ifindex, address, ipv4, ipv6, mac: ROUTER, host_mac };
    bench.enter_as(EndpointKind::Uplink, remote, 0);
    remote
}

/// Runs a test in which `bench.b` is a remote host behind an uplink.
fn run_remote(name: &str, test: impl Fn(&mut Bench) + Sync) {
    run(name, patient(), |bench| {
        bench.b = uplink(bench, 1);
        test(bench);
    });
}

fn udp(bench: &Bench) -> (Frame, Frame) {
    (Frame::udp(bench.a, 1000, bench.b, 53), Frame::udp(bench.b, 53, bench.a, 1000))
}

/// Makes the second router the way to the remote host.
fn change_next_hop() {
    shell("ip route replace 10.2.1.0/24 via 192.0.1.253\nip -6 route replace fd10:1::/64 via fd02:1::fd");
}

#[track_caller]
fn assert_redirected(bench: &mut Bench, there: &Frame, back: &Frame) {
    let (a, b) = (bench.a, bench.b);
    // Out: the kernel writes the neighbour's MAC later.
    let out = bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &there.bytes()));
    assert_eq!(inspect(&out.frame), (a.host_mac, a.mac, there.ttl - 1));
    // In: as between pods.
    let out = bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(b, &back.bytes()));
    assert_eq!(inspect(&out.frame), (a.mac, a.host_mac, back.ttl - 1));
}

#[test]
fn a_flow_between_a_pod_and_a_remote_host_is_promoted_by_the_same_proofs() {
    run_remote("uplink", |bench| {
        let (a, b) = (bench.a, bench.b);
        for (there, back) in [udp(bench), (Frame::tcp(a, 1000, b, 80), Frame::tcp(b, 80, a, 1000))] {
            bench.promote(&there, &back);
            assert_redirected(bench, &there, &back);
            let (out, back_in) = (bench.direction_from(a), bench.direction_from(b));
            assert_eq!((out.out_ifindex, back_in.out_ifindex), (b.ifindex, a.ifindex));
            let (family, router): (u16, &[u8]) = if b.address.is_ipv4() {
                (2, &[192, 0, 1, 254])
            } else {
                (10, &[0xfd, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe])
            };
            assert_eq!((out.next_hop_family, &out.exit[..router.len()]), (family, router));
            assert_eq!(back_in.next_hop_family, 0);
            bench.forget();
        }
    });
}

#[test]
fn what_is_redirected_to_a_neighbour_passes_the_uplinks_egress_hook_without_demoting_its_flow() {
    run_remote("second_pass", |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        bench.promote(&there, &back);
        let again = there.routed(b.mac, b.host_mac).bytes();
        bench.expect(&[], OK, |bench| bench.egress_tagged(REDIRECTED_TAG, a.ifindex, b, &again));
        assert_redirected(bench, &there, &back);
        // The same packet from the stack would be a twin.
        bench.expect(&[Reason::Demoted, Reason::Twin], OK, |bench| bench.egress_untagged(a.ifindex, b, &again));
    });
}

#[test]
fn an_end_that_enters_where_its_flow_does_not_has_the_flow_prove_itself_again_and_no_more() {
    for (name, end) in [("foreign_fin", Tcp::Fin), ("foreign_rst", Tcp::Rst)] {
        run(name, patient(), |bench| {
            let (a, b, elsewhere) = (bench.a, bench.b, uplink(bench, 1));
            let (there, back) = (Frame::tcp(a, 1000, b, 80), Frame::tcp(b, 80, a, 1000));
            let end = |from: Pod, frame: &Frame| {
                Frame { source_mac: from.mac, destination_mac: from.host_mac, ..frame.flags(end) }.bytes()
            };
            bench.promote(&there, &back);
            for (frame, out) in [(&there, b), (&back, a)] {
                let forged = end(elsewhere, frame);
                bench.expect(&[Reason::TcpControl, Reason::Demoted], OK, |bench| bench.ingress(elsewhere, &forged));
                bench.expect(&[Reason::TcpControl], OK, |bench| bench.ingress(elsewhere, &forged));
                bench.promote(&there, &back);
                // As where nobody looks at what enters.
                bench.expect(&[Reason::Demoted], OK, |bench| bench.egress_untagged(elsewhere.ifindex, out, &forged));
                bench.promote(&there, &back);
                bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &there.bytes()));
            }
            // A flow that closes is not brought back by it.
            bench.expect(&[Reason::TcpControl, Reason::Demoted], OK, |bench| bench.ingress(a, &end(a, &there)));
            bench.expect(&[Reason::TcpControl], OK, |bench| bench.ingress(elsewhere, &end(elsewhere, &there)));
            bench.through_the_stack(b, a, &back, Reason::Closing, &[]);
        });
    }
}

#[test]
fn what_enters_at_an_uplink_begins_no_flow() {
    run_remote("not_of_pod", |bench| {
        let (a, b) = (bench.a, bench.b);
        let (_, back) = udp(bench);
        let to_host = Frame { destination: (bench.virtual_address, 22), ..Frame::tcp(b, 5000, a, 22) };
        for frame in [&back, &to_host, &to_host.flags(Tcp::Syn)] {
            bench.expect(&[Reason::NotOfPod], OK, |bench| bench.ingress(b, &frame.bytes()));
        }
        assert!(minicni::datapath::Flows::open(&bench.pins).unwrap().all().unwrap().is_empty());
    });
}

#[test]
fn a_flow_from_one_uplink_to_another_is_never_promoted() {
    run_remote("transit", |bench| {
        let (pod, one) = (bench.a, bench.b);
        let other = uplink(bench, 3);
        let (there, back) = (Frame::udp(one, 1000, other, 53), Frame::udp(other, 53, one, 1000));
        bench.through_the_stack(one, other, &there, Reason::NotOfPod, &[]);
        // Not even where the cache has such a flow, because a pod that had this address once began it.
        bench.enter(Pod { ifindex: pod.ifindex, mac: one.mac, ..one }, 0);
        let begun = Frame { destination_mac: pod.host_mac, ..there.clone() };
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(pod, &begun.bytes()));
        for _ in 0..40 {
            bench.through_the_stack(one, other, &there, Reason::Learning, &[]);
            bench.through_the_stack(other, one, &back, Reason::Learning, &[]);
        }
    });
}

#[test]
fn a_delivery_at_an_interface_that_nobody_entered_is_no_proof() {
    run_remote("unknown_exit", |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        let mut endpoints = minicni::datapath::Endpoints::open(&bench.pins).unwrap();
        endpoints.remove(b.ifindex).unwrap();
        for _ in 0..40 {
            bench.through_the_stack(a, b, &there, Reason::Learning, &[]);
            bench.through_the_stack(b, a, &back, Reason::UnknownInterface, &[]);
        }
    });
}

#[test]
fn a_next_hop_that_is_not_what_the_routes_say_is_no_proof() {
    run_remote("by_mark", |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        // As a rule that goes by a mark would send it.
        let marked = Pod { mac: OTHER_ROUTER, ..b };
        for _ in 0..40 {
            bench.through_the_stack(a, marked, &there, Reason::Learning, &[]);
            bench.through_the_stack(b, a, &back, Reason::Learning, &[Reason::Proof]);
        }
    });
}

#[test]
fn a_rule_that_goes_by_the_interface_at_which_a_packet_entered_is_followed() {
    run_remote("by_iif", |bench| {
        let (a, b) = (bench.a, bench.b);
        shell(
            "ip rule add iif pod2 table 77
             ip route add default via 192.0.1.253 table 77
             ip -6 rule add iif pod2 table 77
             ip -6 route add default via fd02:1::fd table 77",
        );
        bench.b = Pod { mac: OTHER_ROUTER, ..b };
        let (there, back) = udp(bench);
        bench.promote(&there, &back);
        assert_redirected(bench, &there, &back);
        assert!(matches!(bench.direction_from(a).exit, [.., 0xfd] | [192, 0, 1, 253, ..]));
    });
}

#[test]
fn a_flow_whose_next_hop_changed_starts_anew_at_its_next_packet_through_the_stack() {
    run_remote("next_hop", |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        bench.promote(&there, &back);
        change_next_hop();
        let refresh = Frame { payload: vec![0; 900], ..there.clone() };
        bench.expect(&[Reason::Refresh], OK, |bench| bench.ingress(a, &refresh.bytes()));
        let routed = refresh.routed(OTHER_ROUTER, b.host_mac).bytes();
        bench.expect(&[Reason::Demoted], OK, |bench| bench.egress(a.ifindex, &refresh, b, &routed));
        bench.b = Pod { mac: OTHER_ROUTER, ..b };
        bench.promote(&there, &back);
        assert_redirected(bench, &there, &back);
    });
}

#[test]
fn a_bump_of_the_uplinks_generation_makes_its_flows_prove_themselves_again() {
    run_remote("uplink_generation", |bench| {
        let (there, back) = udp(bench);
        let (a, b) = (bench.a, bench.b);
        bench.promote(&there, &back);
        bench.generations().bump(b.ifindex).unwrap();
        bench.expect(&[Reason::Stale, Reason::Demoted], OK, |bench| bench.ingress(a, &there.bytes()));
    });
}

#[test]
fn mark_and_priority_that_the_stack_gave_the_packets_of_a_flow_are_given_to_what_is_redirected() {
    run_remote("treated", |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = udp(bench);
        let routed = there.routed(b.mac, b.host_mac).bytes();
        let treatment = Treatment { mark: 10, priority: 0x0001_0020 };
        for _ in 0..7 {
            bench.ingress(a, &there.bytes());
            bench.egress_treated(treatment, a.ifindex, &there, b, &routed);
            bench.through_the_stack(b, a, &back, Reason::Learning, &[Reason::Proof]);
        }
        bench.ingress(a, &there.bytes());
        bench.egress_treated(treatment, a.ifindex, &there, b, &routed);
        bench.through_the_stack(b, a, &back, Reason::Learning, &[Reason::Proof, Reason::Promoted]);
        let out = bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &there.bytes()));
        assert_eq!(out.treatment, treatment);
        // Those for the pod lose both on their way through its veth pair, whoever sends them there.
        let out = bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(b, &back.bytes()));
        assert_eq!(out.treatment, Treatment::default());
        // A rule that comes later and marks otherwise is seen by the next packet through the stack.
        let longer = Frame { payload: vec![0; 900], ..there.clone() };
        bench.expect(&[Reason::Refresh], OK, |bench| bench.ingress(a, &longer.bytes()));
        let routed = longer.routed(b.mac, b.host_mac).bytes();
        bench.expect(&[Reason::Demoted], OK, |bench| {
            bench.egress_treated(Treatment { mark: 11, ..treatment }, a.ifindex, &longer, b, &routed)
        });
    });
}

#[test]
fn frames_at_an_uplink_that_are_not_for_the_host_and_merged_ones_follow_the_rules_of_pods() {
    run_remote("uplink_classes", |bench| {
        let (there, back) = udp(bench);
        let b = bench.b;
        bench.promote(&there, &back);
        for destination_mac in [[2; 6], [0xff; 6]] {
            let other = Frame { destination_mac, ..back.clone() };
            bench.expect(&[Reason::LinkLayer], OK, |bench| bench.ingress(b, &other.bytes()));
        }
        // Merged by the receiver out of segments no longer than what the stack delivered, and longer.
        let longer = Frame { payload: vec![0; 1000], ..back.clone() };
        bench.through_the_stack(b, bench.a, &longer, Reason::Refresh, &[Reason::Proof]);
        let merged = Frame { payload: vec![0; 2000], ..back.clone() };
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress_gso(b, 500, &merged.bytes()));
        bench.expect(&[Reason::Refresh], OK, |bench| bench.ingress_gso(b, 1400, &merged.bytes()));
        // A host on the wire sends with whatever MAC address it has.
        let rerouted = Frame { source_mac: OTHER_ROUTER, ..back };
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(b, &rerouted.bytes()));
    });
}
