//! Who is fast, and who never is.

use std::{net::Ipv4Addr, process::Command, thread, time::Duration};

use xtask::lab::{
    Families, UPLINK, rules,
    traffic::{Client, Protocol, Server},
};

use crate::{PORT, lab, pair, redirected, to};

const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

#[test]
fn more_than_98_percent_of_a_conversation_between_pods_of_two_nodes_is_redirected_on_both() {
    let lab = lab("share", Families::Dual);
    let (a, b, _server) = pair(&lab);
    for address in b.addresses() {
        for protocol in PROTOCOLS {
            let counts = redirected(&lab, || {
                let mut client = Client::connect(&a.netns, protocol, to(address)).unwrap();
                client.measure(5_000).unwrap();
                client.close().unwrap();
            });
            eprintln!("{address} over {protocol:?}: redirected {counts:?} of about 10,000 on each node");
            assert!(counts.iter().all(|count| *count > 9_800), "{address} over {protocol:?}: {counts:?}");
        }
    }
    for node in &lab.nodes {
        let counters = node.counters();
        assert_eq!((counters.twin, counters.spoofed_mac, counters.spoofed_source), (0, 0, 0));
    }
}

/// The class of the uplink's queueing discipline into which a rule sends pods' packets.
#[test]
fn what_is_redirected_passes_the_class_of_the_uplinks_qdisc_that_rules_chose_for_it() {
    let lab = lab("qos", Families::Dual);
    let (a, b, _server) = pair(&lab);
    let node = &lab.nodes[0];
    for arguments in [
        "qdisc add dev eth0 root handle 1: htb default 1",
        "class add dev eth0 parent 1: classid 1:1 htb rate 10gbit",
        "class add dev eth0 parent 1: classid 1:3 htb rate 10gbit",
    ] {
        node.run(Command::new("tc").args(arguments.split(' '))).unwrap();
    }
    let rule = "table inet qos { chain forward { type filter hook forward priority filter;\n\
                oifname \"eth0\" meta priority set 1:3\n }\n }";
    rules::nft(node, rule).unwrap();
    let sent = || -> u64 {
        let shown = node.run(Command::new("tc").args("-s class show dev eth0 classid 1:3".split(' '))).unwrap();
        let line = shown.lines().find(|line| line.trim_start().starts_with("Sent")).unwrap();
        line.split_whitespace().nth(3).unwrap().parse().unwrap()
    };
    for address in b.addresses() {
        for protocol in PROTOCOLS {
            let before = sent();
            let counts = redirected(&lab, || {
                Client::connect(&a.netns, protocol, to(address)).unwrap().measure(2_000).unwrap();
            });
            assert!(counts[0] > 3_800, "{address} over {protocol:?}: {counts:?} redirected of about 4,000");
            let sent = sent() - before;
            assert!(sent >= 2_000, "{address} over {protocol:?}: {sent} of 2,000 packets in the class");
        }
    }
}

#[test]
fn large_transfers_between_nodes_arrive_whole() {
    let lab = lab("sizes", Families::Dual);
    let (a, b, _server) = pair(&lab);
    for address in b.addresses() {
        let mut udp = Client::connect(&a.netns, Protocol::Udp, to(address)).unwrap();
        udp.measure(100).unwrap();
        for length in [1, 1_400, 1_472, 1_473, 4_000, 30_000] {
            udp.exchange(&vec![7; length]).unwrap();
        }
        let mut tcp = Client::connect(&a.netns, Protocol::Tcp, to(address)).unwrap();
        let pattern: Vec<u8> = (0..60_000_u32).map(|index| index.to_le_bytes()[0] ^ index.to_le_bytes()[1]).collect();
        let counts = redirected(&lab, || (0..300).for_each(|_| tcp.exchange(&pattern).unwrap()));
        assert!(counts.iter().all(|count| *count > 500), "{address}: {counts:?}");
        tcp.close().unwrap();
    }
}

#[test]
fn promoted_connections_between_nodes_close_cleanly_beside_rules_that_drop_what_is_invalid() {
    let lab = lab("close", Families::V4);
    let (a, b, _server) = pair(&lab);
    for node in &lab.nodes {
        let rule = "table ip strict { chain forward { type filter hook forward priority filter;\n\
                    ct state invalid counter drop\n }\n }";
        rules::nft(node, rule).unwrap();
    }
    let payload = vec![7; 40_000];
    for _ in 0..5 {
        let mut client = Client::connect(&a.netns, Protocol::Tcp, to(b.address().unwrap())).unwrap();
        // Far beyond the window that conntrack saw.
        let counts = redirected(&lab, || (0..200).for_each(|_| client.exchange(&payload).unwrap()));
        assert!(counts.iter().all(|count| *count > 300), "{counts:?}");
        client.close().unwrap();
    }
    thread::sleep(Duration::from_millis(200));
    for node in &lab.nodes {
        let left = node.run(Command::new("conntrack").args(["-L", "-p", "tcp"])).unwrap();
        assert!(!left.contains("ESTABLISHED") && left.contains(&b.address().unwrap().to_string()), "{left}");
        let rules = node.run(Command::new("nft").args(["list", "table", "ip", "strict"])).unwrap();
        assert!(rules.contains("counter packets 0 bytes 0"), "{rules}");
    }
}

#[test]
fn a_virtual_address_of_a_remote_pod_is_never_redirected_where_it_is_translated() {
    let lab = lab("cluster-ip", Families::V4);
    let (a, b, _server) = pair(&lab);
    rules::nft(&lab.nodes[0], &rules::cluster_ip(VIRTUAL, 80, b.address().unwrap(), PORT)).unwrap();
    for protocol in PROTOCOLS {
        let [here, there] = redirected(&lab, || {
            let mut client = Client::connect(&a.netns, protocol, (VIRTUAL, 80).into()).unwrap();
            client.measure(2_000).unwrap();
            client.close().unwrap();
        });
        assert_eq!(here, 0, "{protocol:?}");
        assert!(there > 3_900, "{protocol:?}: {there} where it is not translated");
    }
}

#[test]
fn one_socket_may_talk_to_a_remote_pod_and_to_a_virtual_address_of_the_same_pod() {
    let lab = lab("twin", Families::V4);
    let (a, b, _server) = pair(&lab);
    rules::nft(&lab.nodes[0], &rules::cluster_ip(VIRTUAL, 80, b.address().unwrap(), PORT)).unwrap();
    let (direct, translated) = (to(b.address().unwrap()), (VIRTUAL, 80).into());
    for order in [[direct, translated], [translated, direct]] {
        let socket = a.netns.run(|| std::net::UdpSocket::bind(("0.0.0.0", 0)).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        for round in 0..300 {
            for address in order {
                socket.send_to(b"x", address).unwrap();
                let (_, from) = socket.recv_from(&mut [0; 8]).unwrap();
                assert_eq!(from, address, "round {round}");
            }
        }
    }
}

#[test]
fn a_conversation_with_another_host_is_redirected_unless_it_is_masqueraded() {
    let lab = lab("external", Families::V4);
    let (here, other) = (&lab.nodes[0], &lab.nodes[1]);
    let a = here.pod("a").unwrap();
    let _server = Server::start(&other.netns, PORT).unwrap();
    let talk = |protocol| {
        redirected(&lab, || {
            let mut client = Client::connect(&a.netns, protocol, to(other.address)).unwrap();
            client.measure(2_000).unwrap();
            client.close().unwrap();
        })
    };
    for protocol in PROTOCOLS {
        let [count, there] = talk(protocol);
        assert!(count > 3_900, "{protocol:?}: {count}");
        // The other host's own sockets.
        assert_eq!(there, 0, "{protocol:?}");
    }
    let masquerade = format!(
        "table ip wan {{ chain postrouting {{ type nat hook postrouting priority srcnat;\n\
         oifname {UPLINK} masquerade\n }}\n }}"
    );
    rules::nft(here, &masquerade).unwrap();
    for protocol in PROTOCOLS {
        assert_eq!(talk(protocol), [0, 0], "{protocol:?}");
    }
}

#[test]
fn what_the_host_itself_receives_fills_no_flow_cache() {
    let lab = lab("host", Families::V4);
    let (here, other) = (&lab.nodes[0], &lab.nodes[1]);
    let _server = Server::start(&other.netns, PORT).unwrap();
    for protocol in PROTOCOLS {
        Client::connect(&here.netns, protocol, to(other.address)).unwrap().measure(100).unwrap();
    }
    for node in &lab.nodes {
        let flows = minicni::datapath::Flows::open(&node.pins()).unwrap().all().unwrap();
        assert!(flows.is_empty(), "{flows:?}");
        assert!(node.counters().not_of_pod >= 200);
    }
}
