//! What is never redirected, and what is dropped, by reason.

use std::{net::IpAddr, path::Path, process::Command};

use minicni::datapath::{Constants, Flows, Pins, load};
use minicni_common::{Reason, Verdict, names};

use crate::{
    bench::{Bench, Family, OK, REDIRECT, SHOT, patient, run, run_with},
    packets::{Frame, Tcp},
};

fn udp(bench: &Bench) -> Frame {
    Frame::udp(bench.a, 1000, bench.b, 53)
}

#[test]
fn each_class_that_the_fast_path_must_not_take_goes_to_the_stack_for_its_own_reason() {
    run("classes", patient(), |bench| {
        let plain = udp(bench);
        let back = Frame::udp(bench.b, 53, bench.a, 1000);
        // Even as part of a flow that is promoted.
        bench.promote(&plain, &back);
        let ether_type = |high, low| {
            let mut bytes = plain.bytes();
            bytes[12..14].copy_from_slice(&[high, low]);
            bytes
        };
        let to = |address| Frame { destination: (address, 53), ..plain.clone() }.bytes();
        let cases: Vec<(&str, Vec<u8>, Reason)> = vec![
            ("ttl 1", Frame { ttl: 1, ..plain.clone() }.bytes(), Reason::Ttl),
            ("ttl 0", Frame { ttl: 0, ..plain.clone() }.bytes(), Reason::Ttl),
            ("itself", to(bench.a.address), Reason::Destination),
            ("another destination MAC", Frame { destination_mac: [2; 6], ..plain.clone() }.bytes(), Reason::LinkLayer),
            ("broadcast MAC", Frame { destination_mac: [0xff; 6], ..plain.clone() }.bytes(), Reason::LinkLayer),
            ("profinet", ether_type(0x88, 0x92), Reason::NotIp),
            ("arp", ether_type(8, 6), Reason::NotIp),
        ];
        bench.expect_in_the_stack(&cases);
        let from = bench.a;
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(from, &plain.bytes()));
    });
}

#[test]
fn a_pod_cannot_hide_its_source_address_behind_a_second_vlan_tag() {
    run("vlan", patient(), |bench| {
        // The kernel takes the first tag off before the programs see the frame.
        let (a, plain) = (bench.a, udp(bench).bytes());
        for tag in [[0x81, 0, 0, 0], [0x88, 0xa8, 0, 0], [0x81, 0, 0, 5]] {
            let tagged = [&plain[..12], &tag, &plain[12..]].concat();
            bench.expect(&[Reason::SpoofedSource], SHOT, |bench| bench.ingress(a, &tagged));
        }
    });
}

#[test]
fn flows_of_both_families_between_the_same_ports_do_not_disturb_each_other() {
    run("both_families", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let pair = |a, b| (Frame::tcp(a, 1000, b, 80), Frame::tcp(b, 80, a, 1000));
        let flows = [pair(a.with(a.ipv4), b.with(b.ipv4)), pair(a.with(a.ipv6), b.with(b.ipv6))];
        for (there, back) in &flows {
            bench.promote(there, back);
        }
        let [(there, _), (other, _)] = &flows;
        bench.expect(&[Reason::TcpControl, Reason::Demoted], OK, |bench| {
            bench.ingress(a, &there.flags(Tcp::Fin).bytes())
        });
        bench.expect(&[Reason::Closing], OK, |bench| bench.ingress(a, &there.bytes()));
        bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &other.bytes()));
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
fn a_flow_that_is_gone_already_is_no_error_to_whoever_removes_it() {
    run("remove", patient(), |bench| {
        let (there, back) = (udp(bench), Frame::udp(bench.b, 53, bench.a, 1000));
        bench.promote(&there, &back);
        let mut flows = Flows::open(&bench.pins).unwrap();
        let (key, _) = flows.all().unwrap()[0];
        assert_eq!(key.ends().map(|end| end.port()).iter().sum::<u16>(), 1053, "{key}");
        flows.remove(&key).unwrap();
        flows.remove(&key).unwrap();
        assert!(flows.all().unwrap().is_empty());
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
    run_with(Family::V4, "shape", patient(), |bench| {
        let strangers = Pins::new(Path::new("/mnt/strangers"));
        std::fs::create_dir_all(strangers.dir()).unwrap();
        aya::maps::MapData::from_pin(bench.pins.map(names::GENERATIONS))
            .unwrap()
            .pin(strangers.map(names::ENDPOINTS))
            .unwrap();
        let error = load(&strangers, minicni::datapath::OBJECT, &patient(), 0).unwrap_err().to_string();
        let endpoints = strangers.map(names::ENDPOINTS);
        assert!(error.contains(&format!("{} has type 2, not 1", endpoints.display())), "{error}");
    });
}

fn bpftool(arguments: &[&str], pin: &Path) -> String {
    let output = Command::new("bpftool").args(arguments).arg(pin).output().unwrap();
    assert!(output.status.success(), "{}: {output:?}", pin.display());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_maps_have_btf_so_that_bpftool_prints_named_fields() {
    run("btf", patient(), |bench| {
        for map in names::MAPS.iter().filter(|map| **map != names::LOGS) {
            let shown = bpftool(&["-j", "map", "show", "pinned"], &bench.pins.map(*map));
            assert!(shown.contains("btf_id"), "{map:?}: {shown}");
        }
        let (there, back) = (udp(bench), Frame::udp(bench.b, 53, bench.a, 1000));
        bench.promote(&there, &back);
        let (flows, notes) = match bench.a.address {
            IpAddr::V4(_) => (names::FLOWS4, names::NOTES4),
            IpAddr::V6(_) => (names::FLOWS6, names::NOTES6),
        };
        let dumped = bpftool(&["map", "dump", "pinned"], &bench.pins.map(flows));
        let compact = dumped.split_whitespace().collect::<String>();
        assert!(compact.contains("\"ports\":[1000,53]") || compact.contains("\"ports\":[53,1000]"), "{dumped}");
        assert!(compact.contains("\"protocol\":17") && compact.contains("\"proofs\":8"), "{dumped}");
        let dumped = bpftool(&["map", "dump", "pinned"], &bench.pins.map(notes));
        assert!(dumped.contains("\"direction\": 1"), "no note of the second direction");
    });
}

#[test]
fn the_programs_load_where_the_kernel_has_no_btf_of_its_own() {
    // Who verifies a function by itself, as the kernel does with global ones, looks the type of its context up there.
    run("functions", patient(), |bench| {
        for program in [names::INGRESS, names::EGRESS] {
            let dumped = bpftool(&["btf", "dump", "prog", "pinned"], &bench.pins.program(program));
            let functions: Vec<_> = dumped.lines().filter(|line| line.contains(" FUNC ")).collect();
            assert!(functions.iter().any(|line| line.contains(&format!("'{program}'"))), "{dumped}");
            let global: Vec<_> = functions.into_iter().filter(|line| !line.contains("linkage=static")).collect();
            let is_program =
                |line: &&str| [names::INGRESS, names::EGRESS].iter().any(|it| line.contains(&format!("'{it}'")));
            assert!(global.iter().all(is_program), "{global:?}");
        }
    });
}

#[test]
fn every_reason_has_a_name_and_a_verdict_and_only_one_is_fast() {
    let fast: Vec<_> = Reason::ALL.iter().filter(|reason| reason.verdict() == Verdict::Fast).collect();
    assert_eq!(fast, [&Reason::Redirected]);
}
