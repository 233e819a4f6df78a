//! IPv6 beside IPv4, and alone.

use std::{net::SocketAddr, process::Command};

use serde_json::{Value, json};
use xtask::lab::{
    Families, Node, Pod,
    traffic::{Client, Protocol, Server},
};

use crate::{assert_nothing_left, assert_refused, give_addresses, lab_with, residue};

fn in_pod(pod: &Pod, line: &str) -> String {
    pod.netns.run(|| xtask::command::output(Command::new("sh").args(["-c", line])).unwrap()).unwrap()
}

fn talk(from: &Pod, to: SocketAddr) {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut client = Client::connect(&from.netns, protocol, to).unwrap();
        client.measure(20).unwrap();
        client.close().unwrap();
    }
}

/// Two pods talk over every address that they have, at once after ADD, and leave nothing.
fn pods_talk(node: &Node) -> (Value, Value) {
    give_addresses(node);
    let mut pods = [node.sandbox("a").unwrap(), node.sandbox("b").unwrap()];
    for pod in &mut pods {
        pod.add(node).unwrap();
        let check = pod.call(node, "CHECK").unwrap();
        assert!(check.ok, "{check:?}");
        assert!(!in_pod(pod, "ip addr").contains("tentative"), "an address waits for duplicates");
    }
    let [a, b] = &pods;
    let _server = Server::start(&b.netns, 7000).unwrap();
    for address in b.addresses() {
        talk(a, (address, 7000).into());
        // The host reaches the pod, too, which kubelet's probes depend on.
        Client::connect(&node.netns, Protocol::Tcp, (address, 7000).into()).unwrap().measure(5).unwrap();
    }
    let results = (a.result.clone().unwrap(), b.result.clone().unwrap());
    for pod in &pods {
        pod.del(node).unwrap();
    }
    assert_nothing_left(node);
    results
}

#[test]
fn a_dual_stack_pod_has_an_address_of_each_family_in_the_order_of_the_configuration() {
    let lab = lab_with("dual", Families::Dual);
    let node = &lab.nodes[0];
    let (result, _) = pods_talk(node);
    assert_eq!(
        result["ips"],
        json!([
            {"address": "10.244.1.1/32", "gateway": "169.254.1.1", "interface": 1},
            {"address": "fd44:0:0:1::1/128", "gateway": "fe80::1", "interface": 1},
        ])
    );
    assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0", "gw": "fe80::1"}]));
    let mut reversed = node.sandbox("c").unwrap();
    reversed.config["ranges"].as_array_mut().unwrap().reverse();
    reversed.add(node).unwrap();
    assert!(reversed.addresses()[0].is_ipv6() && reversed.addresses()[1].is_ipv4());
    assert!(reversed.call(node, "CHECK").unwrap().ok);
}

#[test]
fn a_pod_may_have_ipv6_alone() {
    let lab = lab_with("six", Families::V6);
    let (result, _) = pods_talk(&lab.nodes[0]);
    assert_eq!(result["ips"], json!([{"address": "fd44:0:0:1::1/128", "gateway": "fe80::1", "interface": 1}]));
    assert_eq!(result["routes"], json!([{"dst": "::/0", "gw": "fe80::1"}]));
}

#[test]
fn neither_the_host_nor_the_pod_listens_to_router_advertisements_of_the_other() {
    for (name, families) in [("ra-dual", Families::Dual), ("ra-four", Families::V4)] {
        let lab = lab_with(name, families);
        let node = &lab.nodes[0];
        let pod = node.pod("a").unwrap();
        let key = format!("net/ipv6/conf/{}/accept_ra", pod.host_interface().unwrap());
        assert_eq!(node.netns.run(|| minicni::link::sysctl::read(&key).unwrap()).unwrap(), "0", "{name}: the host");
        if families == Families::Dual {
            let own = || minicni::link::sysctl::read("net/ipv6/conf/eth0/accept_ra").unwrap();
            assert_eq!(pod.netns.run(own).unwrap(), "0", "the pod");
        }
    }
}

#[test]
fn a_sandbox_with_ipv6_switched_off_gets_it_on_its_interface() {
    let lab = lab_with("disabled", Families::Dual);
    let node = &lab.nodes[0];
    give_addresses(node);
    let mut pod = node.sandbox("a").unwrap();
    in_pod(&pod, "sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1");
    pod.add(node).unwrap();
    in_pod(&pod, "ping -6 -c 1 -W 2 ::1");
    let address = pod.address6().unwrap().to_string();
    node.run(Command::new("ping").args(["-6", "-c", "1", "-W", "2", &address])).unwrap();
}

#[test]
fn check_notices_what_is_missing_of_ipv6() {
    let lab = lab_with("check6", Families::Dual);
    let node = &lab.nodes[0];
    let pod = node.pod("a").unwrap();
    let host = pod.host_interface().unwrap().to_owned();
    let harm = |line: &str, words: &str| {
        let (place, line) = line.split_once(": ").unwrap();
        let line = line.replace("HOST", &host);
        if place == "pod" {
            in_pod(&pod, &line);
        } else {
            node.run(Command::new("sh").args(["-c", &line])).unwrap();
        }
        let answer = pod.call(node, "CHECK").unwrap().answer.unwrap_or_default().to_string();
        assert!(answer.contains(words), "{line}: {answer}");
    };
    assert!(pod.call(node, "CHECK").unwrap().ok);
    harm("pod: ip -6 route del default", "no route ::/0");
    harm("pod: ip -6 neigh del fe80::1 dev eth0", "no permanent neighbour fe80::1");
    harm("pod: ip -6 addr del fd44:0:0:1::1/128 dev eth0", "does not have address fd44:0:0:1::1/128");
    harm("host: ip -6 neigh del fd44:0:0:1::1 dev HOST", "no permanent neighbour fd44:0:0:1::1");
    harm("host: ip -6 route del fd44:0:0:1::1 dev HOST", "no route fd44:0:0:1::1/128");
    pod.del(node).unwrap();
    assert_nothing_left(node);
}

#[test]
fn a_packet_as_large_as_the_mtu_passes_and_a_small_mtu_is_refused() {
    let lab = lab_with("mtu6", Families::Dual);
    let node = &lab.nodes[0];
    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    in_pod(&a, &format!("ping -6 -M do -s 1452 -c 1 -W 2 {}", b.address6().unwrap()));
    let mut small = node.sandbox("small").unwrap();
    small.config["mtu"] = json!(1279);
    assert_refused(node, &small, &[], 7, &["mtu is 1279"]);
    assert_eq!(residue(node).0.len(), 2);
}

#[test]
fn a_second_interface_leaves_the_default_routes_of_both_families_to_the_first() {
    let lab = lab_with("second6", Families::Dual);
    let node = &lab.nodes[0];
    let mut pod = node.pod("a").unwrap();
    let variables = [("CNI_IFNAME", "net1")];
    let call = pod.call_with(node, "ADD", &variables).unwrap();
    assert!(call.ok, "{call:?}");
    let result = call.answer.unwrap();
    assert_eq!(result["routes"].as_array().unwrap().len(), 2);
    assert_eq!(result["ips"].as_array().unwrap().len(), 4);
    pod.config["prevResult"] = result;
    let check = pod.call_with(node, "CHECK", &variables).unwrap();
    assert!(check.ok, "{check:?}");
    assert!(pod.call_with(node, "DEL", &variables).unwrap().ok);
    pod.del(node).unwrap();
    assert_nothing_left(node);
}
