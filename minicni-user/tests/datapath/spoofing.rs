//! Who may send with which addresses.

use minicni_common::{Endpoint, Reason};

use crate::{
    bench::{OK, REDIRECT, SHOT, patient, run},
    packets::{Frame, Tcp},
};

const FOREIGN: [u8; 6] = [2, 0, 0, 0, 0, 99];

#[test]
fn a_frame_with_a_foreign_source_mac_is_dropped_whatever_is_in_it() {
    run("spoofed_mac", patient(), |bench| {
        let a = bench.a;
        let honest = Frame::tcp(a, 1000, bench.b, 80);
        let plain = Frame { source_mac: FOREIGN, ..honest.clone() };
        let with_ether_type = |high, low| {
            let mut bytes = plain.bytes();
            bytes[12..14].copy_from_slice(&[high, low]);
            bytes
        };
        for (name, frame) in [
            ("data", plain.bytes()),
            ("syn", plain.flags(Tcp::Syn).bytes()),
            ("ttl 1", Frame { ttl: 1, ..plain.clone() }.bytes()),
            ("to another MAC", Frame { destination_mac: [0xff; 6], ..plain.clone() }.bytes()),
            ("cut short", plain.bytes()[..plain.bytes().len() - 1].to_vec()),
            ("arp", with_ether_type(8, 6)),
            ("vlan", with_ether_type(0x81, 0)),
        ] {
            eprintln!("case: {name}");
            bench.expect(&[Reason::SpoofedMac], SHOT, |bench| bench.ingress(a, &frame));
        }
        bench.expect(&[Reason::Learning], OK, |bench| bench.ingress(a, &honest.bytes()));
    });
}

#[test]
fn a_promoted_flow_does_not_carry_a_foreign_source_mac_on() {
    run("spoofed_mac_promoted", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        let (there, back) = (Frame::udp(a, 1000, b, 53), Frame::udp(b, 53, a, 1000));
        bench.promote(&there, &back);
        let forged = Frame { source_mac: FOREIGN, ..there };
        let out = bench.expect(&[Reason::Redirected], REDIRECT, |bench| bench.ingress(a, &forged.bytes()));
        assert_eq!(crate::packets::inspect(&out.frame), (b.mac, b.host_mac, 63));
    });
}

#[test]
fn an_endpoint_without_spoof_check_sends_with_any_address_and_never_leaves_the_stack() {
    run("no_spoof_check", patient(), |bench| {
        let (a, b) = (bench.a, bench.b);
        bench.enter(a, Endpoint::NO_SPOOF_CHECK);
        let honest = Frame::udp(a, 1000, b, 53);
        let routed = Frame { source: (bench.virtual_address, 7), source_mac: FOREIGN, ..honest.clone() };
        for frame in [&honest, &routed] {
            for _ in 0..20 {
                bench.through_the_stack(a, b, frame, Reason::OptedOut, &[]);
            }
        }
        // Nor do the answers.
        let back = Frame::udp(b, 53, a, 1000);
        for _ in 0..20 {
            bench.through_the_stack(b, a, &back, Reason::Learning, &[Reason::Proof]);
            bench.through_the_stack(a, b, &honest, Reason::OptedOut, &[]);
        }
        // Pod B is still held to its own.
        let forged = Frame { source: (a.address, 7), ..back };
        bench.expect(&[Reason::SpoofedSource], SHOT, |bench| bench.ingress(b, &forged.bytes()));
    });
}
