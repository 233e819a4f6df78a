//! Nodes with IPv6, beside IPv4 or alone. Needs root.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
};

use xtask::lab::{
    Families, Lab, Node, Programs, rules,
    traffic::{Client, Protocol, Server},
};

const PORT: u16 = 7000;

fn lab(name: &str, families: Families) -> Lab {
    Lab::with_families(&format!("mnidual-{name}"), 2, Programs::beside_us().unwrap(), families).unwrap()
}

/// Whether a node gets an answer from an address, over both protocols.
fn reaches(from: &Node, to: impl Into<IpAddr>) -> bool {
    let to = SocketAddr::new(to.into(), PORT);
    [Protocol::Tcp, Protocol::Udp]
        .into_iter()
        .all(|protocol| Client::connect(&from.netns, protocol, to).and_then(|mut client| client.exchange(b"x")).is_ok())
}

#[test]
fn the_nodes_of_a_lab_talk_over_the_families_that_it_has_and_no_other() {
    for (name, families, v4, v6) in
        [("v4", Families::V4, true, false), ("both", Families::Dual, true, true), ("v6", Families::V6, false, true)]
    {
        let lab = lab(name, families);
        let (here, there) = (&lab.nodes[0], &lab.nodes[1]);
        let _server = Server::start(&there.netns, PORT).unwrap();
        assert_eq!((reaches(here, there.address), reaches(here, there.address6)), (v4, v6), "{families:?}");
    }
}

#[test]
fn a_virtual_address_is_translated_in_its_family() {
    let lab = lab("virtual", Families::Dual);
    let (here, there) = (&lab.nodes[0], &lab.nodes[1]);
    let _server = Server::start(&there.netns, PORT).unwrap();
    for (virtual_ip, node_ip) in [("10.96.0.10", there.address.into()), ("fd96::10", IpAddr::V6(there.address6))] {
        let virtual_ip: IpAddr = virtual_ip.parse().unwrap();
        here.run(Command::new("ip").args(["route", "add", &virtual_ip.to_string(), "via", &node_ip.to_string()]))
            .unwrap();
        assert!(!reaches(here, virtual_ip));
        rules::nft(there, &rules::cluster_ip(virtual_ip, PORT, node_ip, PORT)).unwrap();
        assert!(reaches(here, virtual_ip));
    }
}
