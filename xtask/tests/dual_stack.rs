//! Nodes with IPv6, beside IPv4 or alone. Needs root.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use minicni::{
    daemon::plan::ROUTE_PROTOCOL,
    link::{RouteFilter, Socket},
};
use serde_json::{Value, json};
use xtask::lab::{
    Families, Lab, Node, Programs, rules,
    traffic::{Client, Protocol, Server},
};

const PORT: u16 = 7000;

fn lab(name: &str, families: Families) -> Lab {
    Lab::with_families(&format!("mnidual-{name}"), 2, Programs::beside_us().unwrap(), families).unwrap()
}

fn with_daemons(name: &str, families: Families) -> Lab {
    let mut lab = lab(name, families);
    lab.start_daemons().unwrap();
    lab
}

/// Waits until something holds.
#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(3), "not within 3 s: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Destinations of the daemon's routes on a node.
fn routes(node: &Node) -> Vec<String> {
    let filter = RouteFilter { protocol: Some(ROUTE_PROTOCOL), ifindex: None };
    let routes = node.netns.run(|| Socket::open().unwrap().routes(filter).unwrap()).unwrap();
    let mut routes: Vec<_> = routes.into_iter().map(|route| route.destination.to_string()).collect();
    routes.sort();
    routes
}

/// `minicnid status --json`.
fn status(node: &Node) -> Value {
    let mut command = node.minicnid("status");
    let output = node.netns.run(|| command.arg("--json").output().unwrap()).unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The value of a setting on a node.
fn sysctl(node: &Node, name: &str) -> String {
    node.run(Command::new("sysctl").args(["-n", name])).unwrap().trim().to_owned()
}

const FORWARDING6: &str = "net.ipv6.conf.all.forwarding";

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

#[test]
fn the_daemons_route_the_pod_prefixes_of_every_family_to_the_other_node() {
    for (name, families, there) in [
        ("routed", Families::Dual, &["10.244.2.0/24", "fd44:0:0:2::/64"][..]),
        ("routed6", Families::V6, &["fd44:0:0:2::/64"]),
    ] {
        let lab = with_daemons(name, families);
        let (here, other) = (&lab.nodes[0], &lab.nodes[1]);
        assert_eq!(routes(here), there);
        // In the place of pods: an address of each node's prefix.
        for node in &lab.nodes {
            let ip = |line: &str| node.run(Command::new("ip").args(line.split(' '))).unwrap();
            ip(&format!("address add 10.244.{}.7/24 dev lo", node.number));
            ip(&format!("address add fd44:0:0:{}::7/64 dev lo nodad", node.number));
        }
        let ping = |from: &str, to: &str| here.run(Command::new("ping").args(["-c1", "-W2", "-I", from, to])).unwrap();
        // A server's UDP socket would answer with the address of the uplink.
        let talk = |to: &str| {
            let to = SocketAddr::new(to.parse().unwrap(), PORT);
            Client::connect(&here.netns, Protocol::Tcp, to).unwrap().measure(20).unwrap();
        };
        let _server = Server::start(&other.netns, PORT).unwrap();
        ping("fd44:0:0:1::7", "fd44:0:0:2::7");
        talk("fd44:0:0:2::7");
        if families == Families::Dual {
            ping("10.244.1.7", "10.244.2.7");
            talk("10.244.2.7");
        }
        let status = status(here);
        assert_eq!(status["problems"], json!([]));
        assert_eq!((&status["node"]["podCidrs"], &status["node"]["mtu"]), (&json!(here.pod_cidrs()), &json!(1500)));
    }
}

#[test]
fn ipv6_is_forwarded_from_when_the_node_has_an_ipv6_prefix() {
    let mut lab = lab("forwarding", Families::Dual);
    let nodes_file = lab.nodes_file();
    let dual = fs::read_to_string(&nodes_file).unwrap();
    fs::write(&nodes_file, dual.replace(", fd44:0:0:1::/64", "")).unwrap();
    lab.start_daemons().unwrap();
    let listens = |node: &Node| sysctl(node, "net.ipv6.conf.eth0.accept_ra");
    let state = |node: &Node| (sysctl(node, FORWARDING6), listens(node));
    assert_eq!(state(&lab.nodes[0]), ("0".into(), "1".into()));
    assert_eq!(state(&lab.nodes[1]), ("1".into(), "2".into()));

    fs::write(&nodes_file, dual).unwrap();
    eventually("IPv6 is forwarded", || state(&lab.nodes[0]) == ("1".into(), "2".into()));
    // A daemon that starts puts it right, too.
    let node = &mut lab.nodes[0];
    node.stop_daemon().unwrap();
    node.run(Command::new("sysctl").args(["-qw", &format!("{FORWARDING6}=0")])).unwrap();
    node.start_daemon(&nodes_file).unwrap();
    eventually("IPv6 is forwarded again", || sysctl(&lab.nodes[0], FORWARDING6) == "1");
}

#[test]
fn an_uplink_that_lost_its_ipv6_address_is_a_problem_and_ipv4_goes_on() {
    let lab = with_daemons("lost", Families::Dual);
    let node = &lab.nodes[0];
    let address = format!("{}/64", node.address6);
    node.run(Command::new("ip").args(["address", "del", &address, "dev", "eth0"])).unwrap();
    eventually("the IPv6 route is gone", || routes(node) == ["10.244.2.0/24"]);
    let problems = || status(node)["problems"].to_string();
    eventually("the problem is told", || {
        problems().contains(&format!("no interface has its InternalIP {}", node.address6))
    });
    assert!(problems().contains("fd77:77::2 is on no network of this host"), "{}", problems());
    node.run(Command::new("ip").args(["address", "add", &address, "dev", "eth0"])).unwrap();
    eventually("both routes are there again", || routes(node).len() == 2);
    eventually("all is well again", || status(node)["problems"] == json!([]));
}
