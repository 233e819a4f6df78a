//! Others take away what is ours, under traffic.

use std::time::Instant;

use xtask::lab::{
    Families,
    traffic::{Client, Protocol},
};

use crate::{DEVICE, LIMIT, apart, ip, our_routes, pair, start, to, wait};

fn exchange(clients: &mut [Client]) {
    for client in clients {
        client.exchange(&[7; 5_000]).unwrap();
    }
}

#[test]
fn a_connection_outlives_the_tunnel_and_its_routes_being_removed() {
    let lab = apart("outlives", Families::Dual);
    start(&lab, &[]);
    let (a, b, _server) = pair(&lab);
    let mut clients: Vec<_> =
        b.addresses().into_iter().map(|ip| Client::connect(&a.netns, Protocol::Tcp, to(ip)).unwrap()).collect();
    let node = &lab.nodes[0];
    let before = our_routes(node);
    for harm in [
        format!("link del {DEVICE}"),
        format!("link set {DEVICE} down"),
        format!("address flush dev {DEVICE}"),
        // What systemd-networkd does to routes that it does not know.
        "route flush proto 109".to_owned(),
        "-6 route flush proto 109".to_owned(),
    ] {
        exchange(&mut clients);
        let start = Instant::now();
        ip(node, &harm);
        wait(LIMIT, &harm, || (our_routes(node) == before).then_some(()));
        exchange(&mut clients);
        eprintln!("{harm}: traffic again after {:?}", start.elapsed());
    }
    for client in clients {
        client.close().unwrap();
    }
}
