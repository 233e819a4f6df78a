//! The kernel's routes decide, also about flows that are promoted.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use xtask::lab::{
    Families, Lab, Node, Pod, rules,
    traffic::{Client, Protocol, Server},
};

use crate::{ip, lab, redirected, to, wired};

/// An address of the second node that is none of its pods'.
const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
/// As [`EXTERNAL`].
const EXTERNAL6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5);
/// A second wire between the nodes.
const SECOND: &str = "eth1";
/// How long a promoted flow may take to follow.
const LIMIT: Duration = Duration::from_millis(6_500);

/// Packets that left a node at an interface.
fn sent(node: &Node, interface: &str) -> u64 {
    let shown: serde_json::Value =
        serde_json::from_str(&ip(node, &format!("-j -s link show dev {interface}"))).unwrap();
    shown[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
}

/// Two nodes with a second wire between them, which is an uplink of theirs, too. The external address is reached by the
/// first wire. Gives a pod on the first node, and who answers on the second.
fn two_wires(name: &str, families: Families) -> (Lab, Pod, Server) {
    let mut lab = wired(name, families);
    let [one, other] = &lab.nodes[..] else { panic!("two nodes") };
    let (here, there) = (one.netns_name(), other.netns_name());
    ip(one, &format!("link add {SECOND} netns {here} type veth peer name {SECOND} netns {there}"));
    for node in [one, other] {
        ip(node, &format!("address add 192.168.78.{}/24 dev {SECOND}", node.number));
        ip(node, &format!("link set {SECOND} up"));
    }
    ip(one, &format!("route add {EXTERNAL} via 192.168.77.2"));
    ip(other, &format!("address add {EXTERNAL}/32 dev lo"));
    if families == Families::Dual {
        for node in [one, other] {
            ip(node, &format!("address add fd78::{}/64 dev {SECOND} nodad", node.number));
        }
        ip(one, &format!("route add {EXTERNAL6} via {}", other.address6));
        ip(other, &format!("address add {EXTERNAL6}/128 dev lo nodad"));
    }
    let file = lab.nodes_file();
    let mut nodes = fs::read_to_string(&file).unwrap();
    for node in [one, other] {
        let address = |network: u8| format!("  - type: InternalIP\n    address: 192.168.{network}.{}\n", node.number);
        nodes = nodes.replace(&address(77), &[address(77), address(78)].concat());
    }
    fs::write(file, nodes).unwrap();
    let server = Server::start(&other.netns, crate::PORT).unwrap();
    // Masqueraded, it would stay in the stack.
    lab.start_daemons_with(&["--non-masquerade-cidrs", &format!("{EXTERNAL},{EXTERNAL6}")]).unwrap();
    let pod = lab.nodes[0].pod("a").unwrap();
    (lab, pod, server)
}

/// Of a conversation: packets redirected on the first node, and sent by the first wire and by the second.
fn converse(lab: &Lab, client: &mut Client, rounds: usize) -> (u64, u64, u64) {
    let node = &lab.nodes[0];
    let count = || (sent(node, "eth0"), sent(node, SECOND));
    let before = count();
    let [redirected, _] = redirected(lab, || assert!(client.measure(rounds).is_ok()));
    let after = count();
    (redirected, after.0 - before.0, after.1 - before.1)
}

#[test]
fn a_blackhole_in_place_of_a_route_stops_a_promoted_flow_within_six_seconds() {
    let (lab, pod, _server) = two_wires("blackhole", Families::V4);
    let mut client = Client::connect(&pod.netns, Protocol::Tcp, to(EXTERNAL)).unwrap();
    let (count, ..) = converse(&lab, &mut client, 200);
    assert!(count > 350, "{count}");
    ip(&lab.nodes[0], &format!("route replace blackhole {EXTERNAL}"));
    let start = Instant::now();
    let mut last = Duration::ZERO;
    while client.exchange(b"x").is_ok() {
        last = start.elapsed();
        assert!(last < LIMIT, "the flow goes on without a route");
        thread::sleep(Duration::from_millis(1));
    }
    eprintln!("the last answer came {last:?} after the blackhole");
}

#[test]
fn a_promoted_flow_follows_its_route_to_another_wire_within_six_seconds() {
    let (lab, pod, _server) = two_wires("moved", Families::V4);
    let mut client = Client::connect(&pod.netns, Protocol::Tcp, to(EXTERNAL)).unwrap();
    let (count, first, second) = converse(&lab, &mut client, 500);
    assert!(count > 900 && first >= 500 && second < 50, "{count}, {first}, {second}");
    ip(&lab.nodes[0], &format!("route replace {EXTERNAL} via 192.168.78.2"));
    let start = Instant::now();
    while sent(&lab.nodes[0], SECOND) < second + 60 {
        assert!(start.elapsed() < LIMIT, "the flow still leaves by the first wire");
        client.exchange(b"x").unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    let (count, first, second) = converse(&lab, &mut client, 500);
    assert!(count > 900 && first < 50 && second >= 500, "{count}, {first}, {second}");
}

#[test]
fn a_neighbour_that_gets_another_mac_address_is_followed_at_once() {
    let lab = lab("mac", Families::V4);
    let (here, other) = (&lab.nodes[0], &lab.nodes[1]);
    let pod = here.pod("a").unwrap();
    let _server = Server::start(&other.netns, crate::PORT).unwrap();
    let mut client = Client::connect(&pod.netns, Protocol::Udp, to(other.address)).unwrap();
    client.measure(100).unwrap();
    ip(other, "link set eth0 address 02:00:00:00:01:77");
    // As a gratuitous ARP would have it.
    ip(here, "neigh replace 192.168.77.2 lladdr 02:00:00:00:01:77 dev eth0 nud reachable");
    let [count, _] = redirected(&lab, || assert!(client.measure(100).is_ok()));
    assert!(count > 150, "{count}");
}

#[test]
fn a_policy_routed_flow_goes_where_the_kernel_says_before_and_after_its_promotion() {
    let (lab, pod, _server) = two_wires("policy", Families::V4);
    let node = &lab.nodes[0];
    ip(node, &format!("route add default via 192.168.78.2 dev {SECOND} table 77"));
    let address = pod.address().unwrap();
    for rule in [format!("iif {} table 77", pod.host_interface().unwrap()), format!("from {address} table 77")] {
        ip(node, &format!("rule add {rule}"));
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            // An answer over UDP would come from another address of that node.
            let host = if protocol == Protocol::Tcp { EXTERNAL } else { lab.nodes[1].address };
            let mut client = Client::connect(&pod.netns, protocol, to(host)).unwrap();
            let (count, first, second) = converse(&lab, &mut client, 1_000);
            assert!(count > 1_900 && first < 50 && second >= 1_000, "{rule}: {count}, {first}, {second}");
            client.close().unwrap();
        }
        ip(node, &format!("rule del {rule}"));
    }
}

#[test]
fn a_policy_routed_ipv6_flow_goes_where_the_kernel_says_before_and_after_its_promotion() {
    let (lab, pod, _server) = two_wires("policy6", Families::Dual);
    let node = &lab.nodes[0];
    ip(node, &format!("-6 route add default via fd78::2 dev {SECOND} table 77"));
    let address = pod.address6().unwrap();
    for rule in [format!("iif {} table 77", pod.host_interface().unwrap()), format!("from {address} table 77")] {
        ip(node, &format!("-6 rule add {rule}"));
        for (protocol, host) in [(Protocol::Tcp, EXTERNAL6), (Protocol::Udp, lab.nodes[1].address6)] {
            let mut client = Client::connect(&pod.netns, protocol, to(host)).unwrap();
            let (count, first, second) = converse(&lab, &mut client, 1_000);
            assert!(count > 1_900 && first < 50 && second >= 1_000, "{rule}: {count}, {first}, {second}");
            client.close().unwrap();
        }
        ip(node, &format!("-6 rule del {rule}"));
    }
}

#[test]
fn a_promoted_ipv6_flow_follows_its_route_to_another_wire_within_six_seconds() {
    let (lab, pod, _server) = two_wires("moved6", Families::Dual);
    let mut client = Client::connect(&pod.netns, Protocol::Tcp, to(EXTERNAL6)).unwrap();
    let (count, first, second) = converse(&lab, &mut client, 500);
    assert!(count > 900 && first >= 500 && second < 50, "{count}, {first}, {second}");
    ip(&lab.nodes[0], &format!("route replace {EXTERNAL6} via fd78::2"));
    let start = Instant::now();
    while sent(&lab.nodes[0], SECOND) < second + 60 {
        assert!(start.elapsed() < LIMIT, "the flow still leaves by the first wire");
        client.exchange(b"x").unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    let (count, first, second) = converse(&lab, &mut client, 500);
    assert!(count > 900 && first < 50 && second >= 500, "{count}, {first}, {second}");
}

#[test]
fn a_flow_that_is_routed_by_a_mark_stays_in_the_stack_and_goes_where_the_mark_says() {
    let (lab, pod, _server) = two_wires("mark", Families::V4);
    let node = &lab.nodes[0];
    ip(node, &format!("route add default via 192.168.78.2 dev {SECOND} table 77"));
    ip(node, "rule add fwmark 0x77 table 77");
    let mark = format!(
        "table ip marks {{ chain prerouting {{ type filter hook prerouting priority mangle;\n\
         ip saddr {} meta mark set 0x77\n }}\n }}",
        pod.address().unwrap()
    );
    rules::nft(node, &mark).unwrap();
    let mut client = Client::connect(&pod.netns, Protocol::Tcp, to(EXTERNAL)).unwrap();
    let (count, first, second) = converse(&lab, &mut client, 1_000);
    assert!(count == 0 && first < 50 && second >= 1_000, "{count}, {first}, {second}");
}
