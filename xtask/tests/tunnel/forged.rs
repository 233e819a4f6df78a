//! Who may send through the tunnel.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use etherparse::PacketBuilder;
use minicni::link::Netns;
use xtask::lab::{
    Families, Pod,
    traffic::{Client, Protocol, Server},
};

use super::{LIMIT, nft, our_routes, settle, start, wait, wired};

const VICTIMS_PORT: u16 = 9_999;
const TUNNEL_PORT: u16 = 4_790;
/// VXLAN-GPE: a VNI and a next protocol are there, which is IPv4; the VNI is 109.
const HEADER: [u8; 8] = [0x0c, 0, 0, 1, 0, 0, 109, 0];

#[test]
fn a_pod_cannot_send_through_the_tunnel_under_the_address_of_another() {
    for masquerade in ["true", "false"] {
        let lab = wired(&format!("forged_{masquerade}"), Families::V4);
        start(&lab, &["--encapsulation", "always", "--masquerade", masquerade]);
        let [one, other] = &lab.nodes[..] else { panic!("two nodes") };
        let (pod, near, far) = (one.pod("a").unwrap(), one.pod("near").unwrap(), other.pod("far").unwrap());
        let [near_ear, far_ear] = [&near, &far].map(listen);
        let from = |number| Ipv4Addr::new(10, 244, number, 99);

        // Else the packet would be wrong, and prove nothing.
        forge(&one.netns, other.address, from(1), &far);
        assert_eq!(heard(&far_ear).as_deref(), Some("10.244.1.99"), "nodes may");

        forge(&pod.netns, other.address, from(1), &far);
        assert_eq!(heard(&far_ear), None, "at another node");
        forge(&pod.netns, Ipv4Addr::new(10, 244, 2, 0), from(1), &far);
        assert_eq!(heard(&far_ear), None, "at the address of another node's tunnel");
        forge(&pod.netns, one.address, from(2), &near);
        assert_eq!(heard(&near_ear), None, "at its own node");

        nft(
            &one.netns,
            "table ip raw { chain prerouting { type filter hook prerouting priority raw; udp dport 4790 notrack; }; }",
        );
        forge(&pod.netns, other.address, from(1), &far);
        assert_eq!(heard(&far_ear), None, "past conntrack");
    }
}

#[test]
fn what_a_pod_sent_to_an_address_before_it_was_a_nodes_opens_no_tunnel_there() {
    let lab = wired("forged_early", Families::V4);
    let [one, other] = &lab.nodes[..] else { panic!("two nodes") };
    let known_to_one = lab.nodes_file().with_extension("one");
    let all = fs::read_to_string(lab.nodes_file()).unwrap();
    fs::write(&known_to_one, all.split("---").next().unwrap()).unwrap();
    one.start_daemon_with(&known_to_one, &["--encapsulation", "always"]).unwrap();
    other.start_daemon_with(&lab.nodes_file(), &["--encapsulation", "always"]).unwrap();
    let (pod, far) = (one.pod("a").unwrap(), other.pod("far").unwrap());
    let (ear, socket) = (listen(&far), sender(&pod.netns));
    wait(LIMIT * 5, "the other node's routes", || (!our_routes(other).is_empty()).then_some(()));
    forge(&one.netns, other.address, Ipv4Addr::new(10, 244, 1, 99), &far);
    assert_eq!(heard(&ear).as_deref(), Some("10.244.1.99"), "nodes may");
    let send = || forge_by(&socket, other.address, Ipv4Addr::new(10, 244, 1, 99), &far);

    send();
    assert_eq!(heard(&ear), None, "while it is any host");
    fs::write(&known_to_one, all).unwrap();
    settle(&lab);
    send();
    assert_eq!(heard(&ear), None, "on the connection of before");
}

#[test]
fn pods_may_use_the_port_of_the_tunnel_among_themselves() {
    let lab = wired("tunnels_port", Families::V4);
    start(&lab, &["--encapsulation", "always"]);
    let [one, other] = &lab.nodes[..] else { panic!("two nodes") };
    let (pod, near, far) = (one.pod("a").unwrap(), one.pod("near").unwrap(), other.pod("far").unwrap());
    for server in [&near, &far] {
        let _server = Server::start(&server.netns, TUNNEL_PORT).unwrap();
        let to = SocketAddr::from((server.address().unwrap(), TUNNEL_PORT));
        let mut client = Client::connect(&pod.netns, Protocol::Udp, to).unwrap();
        client.exchange(b"of pods").unwrap();
    }
}

/// Sends a datagram from an address to a pod, through the tunnel that ends at an address of a node.
fn forge(from: &Netns, tunnel: Ipv4Addr, source: Ipv4Addr, victim: &Pod) {
    forge_by(&sender(from), tunnel, source, victim);
}

fn forge_by(socket: &UdpSocket, tunnel: Ipv4Addr, source: Ipv4Addr, victim: &Pod) {
    let packet = PacketBuilder::ipv4(source.octets(), victim.address().unwrap().octets(), 64).udp(7, VICTIMS_PORT);
    let mut bytes = HEADER.to_vec();
    packet.write(&mut bytes, b"forged").unwrap();
    socket.send_to(&bytes, (tunnel, TUNNEL_PORT)).unwrap();
}

fn sender(netns: &Netns) -> UdpSocket {
    netns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap()).unwrap()
}

fn listen(pod: &Pod) -> UdpSocket {
    let socket = pod.netns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, VICTIMS_PORT)).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket
}

/// From whom something came.
fn heard(socket: &UdpSocket) -> Option<String> {
    socket.recv_from(&mut [0; 64]).ok().map(|(_, from)| from.ip().to_string())
}
