//! What is encapsulated, and the way from one mode to another.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use xtask::lab::{
    Families, Node,
    traffic::{Client, Ending, Protocol},
};

use crate::{DEVICE, LIMIT, apart, ip, nft, our_routes, pair, pod_mtu, redirected, restart, start, to, wait, wired};

#[test]
fn an_underlay_that_drops_pod_addresses_between_nodes_on_one_network_is_cured_by_always() {
    let lab = wired("cure", Families::Dual);
    start(&lab, &[]);
    let (a, b, _server) = pair(&lab);
    for address in b.addresses() {
        Client::connect(&a.netns, Protocol::Tcp, to(address)).unwrap().measure(10).unwrap();
    }
    for node in &lab.nodes {
        nft(
            &node.netns,
            "table netdev cloud { chain wire { type filter hook ingress device eth0 priority -500; \
             ip saddr 10.244.0.0/16 drop; ip6 saddr fd44::/16 drop; }; }",
        );
    }
    for address in b.addresses() {
        assert!(Client::connect(&a.netns, Protocol::Tcp, to(address)).is_err(), "{address}");
    }
    restart(&lab, &["--encapsulation", "always"]);
    for address in b.addresses() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut client = Client::connect(&a.netns, protocol, to(address)).unwrap();
            client.measure(100).unwrap();
            client.close().unwrap();
        }
        // The node itself, too.
        Client::connect(&lab.nodes[0].netns, Protocol::Tcp, to(address)).unwrap().measure(10).unwrap();
    }
    assert_eq!(pod_mtu(&lab.nodes[0]), Some(1444));
}

#[test]
fn nodes_on_one_network_use_no_tunnel_and_lose_no_mtu_where_nobody_asks_for_it() {
    let lab = wired("direct", Families::V4);
    start(&lab, &[]);
    assert_eq!(our_routes(&lab.nodes[0]), "10.244.2.0/24 via 192.168.77.2 dev eth0");
    assert_eq!(pod_mtu(&lab.nodes[0]), Some(1500));
    let (a, b, _server) = pair(&lab);
    let counts = redirected(&lab, || {
        let mut client = Client::connect(&a.netns, Protocol::Udp, to(b.address().unwrap())).unwrap();
        client.measure(500).unwrap();
    });
    assert!(counts.iter().all(|count| *count > 900), "{counts:?}");
}

/// What `minicnid status` prints, once that has a text in it. It ends with 1 where something is wrong.
fn status_with(node: &Node, text: &str) -> String {
    wait(LIMIT, text, || {
        let output = node.netns.run(|| node.minicnid("status").output()).unwrap().unwrap();
        let status = String::from_utf8(output.stdout).unwrap();
        status.contains(text).then_some(status)
    })
}

#[test]
fn without_encapsulation_a_node_behind_a_router_is_a_problem_that_says_what_to_do() {
    let lab = apart("never", Families::V4);
    let nodes = lab.nodes_file();
    lab.nodes[0].start_daemon_with(&nodes, &["--encapsulation", "never"]).unwrap();
    let node = &lab.nodes[0];
    let status = status_with(node, "--encapsulation cross-subnet");
    for part in ["node2", "192.168.77.2 is on no network of this host", "--encapsulation cross-subnet"] {
        assert!(status.contains(part), "{status}");
    }
    assert!(fs::read_to_string(node.log()).unwrap().contains("192.168.77.2 is on no network"));
    assert_eq!(our_routes(node), "");
    assert!(!ip(node, "link show").contains(DEVICE));
}

#[test]
fn an_uplink_that_is_not_there_is_said_and_one_that_is_there_is_used() {
    let lab = wired("uplink", Families::V4);
    let (node, nodes) = (&lab.nodes[0], lab.nodes_file());
    node.start_daemon_with(&nodes, &["--uplink", "192.168.77.0/24"]).unwrap();
    assert_eq!(our_routes(node), "10.244.2.0/24 via 192.168.77.2 dev eth0");
    node.stop_daemon().unwrap();
    node.start_daemon_with(&nodes, &["--uplink", "eth9"]).unwrap();
    let status = status_with(node, "eth9 is no interface");
    assert!(status.contains("192.168.77.1 on eth0"), "{status}");
    assert_eq!(our_routes(node), "10.244.2.0/24 via 192.168.77.2 dev eth0");
}

#[test]
fn no_connection_is_lost_when_the_mode_changes_under_traffic() {
    let lab = wired("switch", Families::Dual);
    start(&lab, &[]);
    let (a, b, _server) = pair(&lab);
    let (end, done) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        // Whatever happens here, the others end.
        let ending = Ending(&end);
        let talk = |protocol, address| {
            let mut client = Client::connect(&a.netns, protocol, to(address)).unwrap();
            let (mut lost, mut longest) = (0, Duration::ZERO);
            while !end.load(Relaxed) {
                let start = Instant::now();
                match client.exchange(&[7; 1_000]) {
                    Ok(()) => _ = done.fetch_add(1, Relaxed),
                    // A datagram that was under way may be lost, a connection may not.
                    Err(error) if protocol == Protocol::Tcp => panic!("{address}: {error}"),
                    Err(_) => lost += 1,
                }
                longest = longest.max(start.elapsed());
                thread::sleep(Duration::from_millis(2));
            }
            if let Client::Tcp(_) = client {
                client.close().unwrap();
            }
            (protocol, address, lost, longest)
        };
        let talkers: Vec<_> = [Protocol::Tcp, Protocol::Udp]
            .into_iter()
            .flat_map(|protocol| b.addresses().into_iter().map(move |address| (protocol, address)))
            .map(|(protocol, address)| scope.spawn(move || talk(protocol, address)))
            .collect();
        for mode in ["always", "cross-subnet", "never", "cross-subnet", "always"] {
            restart(&lab, &["--encapsulation", mode]);
            let before = done.load(Relaxed);
            thread::sleep(Duration::from_millis(700));
            assert!(done.load(Relaxed) > before + 50, "{mode}");
        }
        drop(ending);
        for talker in talkers {
            let (protocol, address, lost, longest) = talker.join().unwrap();
            eprintln!("{address} over {protocol:?}: {lost} lost, the longest exchange took {longest:?}");
            assert_eq!(lost, 0, "{address}: datagrams were lost in five changes");
        }
    });
}
