//! MTU: of pods, of the tunnel, and of the path.

use std::{fs, time::Duration};

use xtask::lab::{
    Families,
    traffic::{Client, Protocol, Server},
};

use crate::{DEVICE, LIMIT, PORT, apart, counter, ip, pair, pod_mtu, start, to, wait};

#[test]
fn large_transfers_through_the_tunnel_arrive_whole_and_no_outer_packet_is_cut() {
    for (name, families, mtu) in [("large4", Families::V4, 1464_usize), ("large", Families::Dual, 1444)] {
        let lab = apart(name, families);
        start(&lab, &[]);
        let (a, b, _server) = pair(&lab);
        assert_eq!(pod_mtu(&lab.nodes[0]), Some(mtu as u64));
        for address in b.addresses() {
            let mut udp = Client::connect(&a.netns, Protocol::Udp, to(address)).unwrap();
            // What is longer the pod itself cuts; conntrack puts it together to look at it, and the node cuts it again.
            let whole = if address.is_ipv4() { mtu - 28 } else { mtu - 48 };
            for length in [1, 1_300, whole] {
                udp.exchange(&vec![7; length]).unwrap_or_else(|error| panic!("{address}, {length}: {error}"));
            }
            let mut tcp = Client::connect(&a.netns, Protocol::Tcp, to(address)).unwrap();
            let pattern: Vec<u8> =
                (0..60_000_u32).map(|index| index.to_le_bytes()[0] ^ index.to_le_bytes()[1]).collect();
            (0..200).for_each(|_| tcp.exchange(&pattern).unwrap());
            tcp.close().unwrap();
        }
        for node in &lab.nodes {
            for name in ["IpFragCreates", "Ip6FragCreates", "IcmpOutDestUnreachs", "Icmp6OutPktTooBigs"] {
                assert_eq!(counter(&node.netns, name), 0, "{name}");
            }
        }
        for address in b.addresses() {
            let mut udp = Client::connect(&a.netns, Protocol::Udp, to(address)).unwrap();
            for length in [1_500, 4_000, 30_000] {
                udp.exchange(&vec![7; length]).unwrap_or_else(|error| panic!("{address}, {length}: {error}"));
            }
        }
    }
}

#[test]
fn a_pod_from_before_the_first_node_behind_the_router_learns_the_smaller_mtu_of_the_path() {
    let lab = apart("pmtu", Families::Dual);
    let all = fs::read_to_string(lab.nodes_file()).unwrap();
    // At first each node knows only itself.
    for (node, own) in lab.nodes.iter().zip(all.split("---\n")) {
        let file = node.state_dir().with_extension("yaml");
        fs::write(&file, own).unwrap();
        node.start_daemon(&file).unwrap();
        assert_eq!(pod_mtu(node), Some(1500));
    }
    let (a, b, _server) = pair(&lab);
    for node in &lab.nodes {
        fs::write(node.state_dir().with_extension("yaml"), &all).unwrap();
        wait(LIMIT, "the smaller MTU", || (pod_mtu(node) == Some(1444)).then_some(()));
    }
    for address in b.addresses() {
        let mut tcp = Client::connect(&a.netns, Protocol::Tcp, to(address)).unwrap();
        (0..100).for_each(|_| tcp.exchange(&vec![7; 30_000]).unwrap());
        // The first datagram that is too large is answered by the node, with the size that is not.
        let mut udp = Client::connect(&a.netns, Protocol::Udp, to(address)).unwrap();
        if let Client::Udp(socket) = &udp {
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        }
        let tries = (1..=3).find(|_| udp.exchange(&[7; 1_460]).is_ok());
        assert!(tries.is_some(), "{address}");
    }
    // Those who come now have room in the tunnel at once.
    let late = lab.nodes[0].pod("late").unwrap();
    let shown = late.netns.run(|| fs::read_to_string("/proc/net/dev").unwrap()).unwrap();
    assert!(shown.contains("eth0"));
    let link = late.netns.run(|| minicni::link::Socket::open()?.link_by_name("eth0")).unwrap().unwrap().unwrap();
    assert_eq!(link.mtu, 1444);
}

#[test]
fn the_mtu_of_tunnel_and_pods_follows_the_uplink_and_what_is_connected_goes_on() {
    let lab = apart("follows", Families::V4);
    start(&lab, &[]);
    let (a, b, _server) = pair(&lab);
    let mut tcp = Client::connect(&a.netns, Protocol::Tcp, to(b.address().unwrap())).unwrap();
    let exchange = |tcp: &mut Client| (0..20).for_each(|_| tcp.exchange(&vec![7; 30_000]).unwrap());
    exchange(&mut tcp);
    for (number, node) in lab.nodes.iter().enumerate() {
        ip(node, "link set eth0 mtu 1400");
        let wire = format!("link set wire{} mtu 1400", number + 1);
        let mut set = std::process::Command::new("ip");
        lab.router.as_ref().unwrap().run(|| set.args(wire.split(' ')).status().unwrap()).unwrap();
        wait(LIMIT, "the smaller MTU", || (pod_mtu(node) == Some(1364)).then_some(()));
        assert!(ip(node, &format!("link show {DEVICE}")).contains("mtu 1364 "));
    }
    // These pods keep their MTU, and learn that of the path.
    exchange(&mut tcp);
    let (c, d) = (lab.nodes[0].pod("c").unwrap(), lab.nodes[1].pod("d").unwrap());
    let _server = Server::start(&d.netns, PORT).unwrap();
    let mut tcp = Client::connect(&c.netns, Protocol::Tcp, to(d.address().unwrap())).unwrap();
    let before = counter(&lab.nodes[0].netns, "IcmpOutDestUnreachs");
    exchange(&mut tcp);
    assert_eq!(counter(&lab.nodes[0].netns, "IcmpOutDestUnreachs"), before);
}
