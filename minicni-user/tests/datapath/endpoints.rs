//! Where the programs find out what an interface is.

use std::{os::fd::AsFd as _, thread};

use aya::maps::{Array, Map, MapData};
use minicni::{
    datapath::Endpoints,
    link::{MacAddress, Netns, Socket, VethEnd, veth},
};
use minicni_common::{
    Endpoint, EndpointKind, EndpointSlot, Reason,
    names::{ENDPOINT_SLOT_ENTRIES, ENDPOINT_SLOTS, endpoint_slot},
};

use crate::{
    bench::{Bench, OK, Pod, SHOT, patient, run},
    packets::Frame,
};

/// A third pod, whose interface wants the slot that pod A's has.
fn rival(bench: &Bench) -> Pod {
    let ifindex = bench.a.ifindex + ENDPOINT_SLOT_ENTRIES;
    let mac = [2, 0, 0, 0, 0, 9];
    let end = |name, ifindex, mac| VethEnd { name, ifindex, mac: MacAddress(mac), mtu: 1500 };
    let netns = Netns::open("/proc/thread-self/ns/net").unwrap();
    let pair = veth(&end("pod9", Some(ifindex), bench.a.host_mac), &end("peer9", None, mac), netns.as_fd()).unwrap();
    Socket::open().unwrap().batch(vec![pair]).unwrap();
    Pod { ifindex, mac, ..bench.a }.with(bench.virtual_address)
}

fn slot(bench: &Bench, ifindex: u32) -> EndpointSlot {
    let map = MapData::from_pin(bench.pins.map(ENDPOINT_SLOTS)).and_then(Map::from_map_data).unwrap();
    Array::<_, EndpointSlot>::try_from(map).unwrap().get(&endpoint_slot(ifindex), 0).unwrap()
}

/// A pod sends with its own MAC address and with another's.
#[track_caller]
fn assert_known(bench: &mut Bench, pod: Pod) {
    let honest = Frame {
        source: (pod.ipv4.into(), 1000),
        destination: (bench.b.ipv4.into(), 53),
        ..Frame::udp(pod, 1000, bench.b, 53)
    };
    bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(pod, &honest.bytes()));
    let forged = Frame { source_mac: [2, 0, 0, 0, 0, 99], ..honest };
    bench.expect(&[Reason::SpoofedMac], SHOT, |bench| bench.ingress(pod, &forged.bytes()));
}

#[test]
fn two_interfaces_that_want_one_slot_are_both_known_and_the_second_gets_it_when_it_is_free() {
    run("slots", patient(), |bench| {
        let (a, rival) = (bench.a, rival(bench));
        bench.enter(rival, 0);
        assert_eq!(slot(bench, a.ifindex).ifindex, a.ifindex);
        assert_known(bench, a);
        assert_known(bench, rival);
        assert!(Endpoints::open(&bench.pins).unwrap().remove(a.ifindex).unwrap());
        assert_eq!(slot(bench, a.ifindex).ifindex, 0);
        let frame = Frame::udp(a, 1000, bench.b, 53).bytes();
        bench.expect(&[Reason::UnknownInterface], OK, |bench| bench.ingress(a, &frame));
        assert_known(bench, rival);
        bench.enter(rival, 0);
        assert_eq!(slot(bench, a.ifindex).ifindex, rival.ifindex);
        assert_known(bench, rival);
        // Who has no slot leaves the other's alone.
        bench.enter(a, 0);
        assert!(Endpoints::open(&bench.pins).unwrap().remove(a.ifindex).unwrap());
        assert_known(bench, rival);
        assert_eq!(slot(bench, a.ifindex).ifindex, rival.ifindex);
    });
}

#[test]
fn what_changes_of_an_interface_counts_from_its_next_packet_on() {
    run("slot_change", patient(), |bench| {
        let a = bench.a;
        bench.enter(a, Endpoint::NO_SPOOF_CHECK);
        let frame = Frame::udp(a, 1000, bench.b, 53).bytes();
        bench.expect(&[Reason::OptedOut], OK, |bench| bench.ingress(a, &frame));
        bench.enter(a, 0);
        assert_known(bench, a);
        let moved = Pod { mac: [2, 0, 0, 0, 0, 7], ..a };
        bench.enter(moved, 0);
        bench.expect(&[Reason::SpoofedMac], SHOT, |bench| bench.ingress(a, &frame));
        assert_known(bench, moved);
    });
}

#[test]
fn a_slot_agrees_with_the_endpoint_map_whoever_enters_and_removes_at_once() {
    run("slot_race", patient(), |bench| {
        let first = bench.a.ifindex;
        let endpoint = |number: u8| Endpoint {
            kind: EndpointKind::Pod as u32,
            flags: 0,
            ipv4: [number; 4],
            mac: [number; 6],
            reserved: [0; 2],
            ipv6: [number; 16],
        };
        let pins = &bench.pins;
        thread::scope(|scope| {
            for number in 1..=3_u8 {
                scope.spawn(move || {
                    let mut endpoints = Endpoints::open(pins).unwrap();
                    let ifindex = first + u32::from(number % 3) * ENDPOINT_SLOT_ENTRIES;
                    for _ in 0..500 {
                        endpoints.insert(ifindex, &endpoint(number)).unwrap();
                        assert!(endpoints.remove(ifindex).unwrap());
                    }
                    endpoints.insert(ifindex, &endpoint(number)).unwrap();
                });
            }
        });
        let slot = slot(bench, first);
        assert_eq!(Endpoints::open(pins).unwrap().get(slot.ifindex).unwrap(), Some(slot.endpoint));
    });
}
