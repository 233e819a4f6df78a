//! ADD: what it makes, what it answers, what it refuses.

use std::path::Path;

use minicni::{datapath::Pins, link::Socket};
use serde_json::json;
use xtask::lab::traffic::{Client, Protocol, Server};

use crate::{assert_nothing_left, assert_refused, lab, residue};

#[test]
fn two_pods_get_addresses_talk_over_the_fast_path_and_leave_nothing() {
    let lab = lab("pair");
    let node = &lab.nodes[0];
    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    assert_eq!(residue(node).0.len(), 2);
    assert!(a.call(node, "CHECK").unwrap().ok, "{:?}", a.call(node, "CHECK"));

    let _server = Server::start(&b.netns, 7000).unwrap();
    let to = (b.address().unwrap(), 7000).into();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let before = node.counters();
        let mut client = Client::connect(&a.netns, protocol, to).unwrap();
        client.measure(1_000).unwrap();
        let after = node.counters();
        let redirected = after.redirected - before.redirected;
        assert!(redirected > 1_900, "{protocol:?}: {redirected} of 2,000 packets were redirected: {after:?}");
        client.close().unwrap();
    }
    a.del(node).unwrap();
    b.del(node).unwrap();
    assert_nothing_left(node);
}

#[test]
fn the_result_names_both_ends_and_points_the_address_at_the_containers() {
    let lab = lab("result");
    let node = &lab.nodes[0];
    let pod = node.pod("a").unwrap();
    let result = pod.result.clone().unwrap();
    assert_eq!(result["cniVersion"], "1.1.0");
    assert_eq!(result["interfaces"][1]["name"], "eth0");
    assert_eq!(result["interfaces"][1]["sandbox"], json!(pod.path));
    assert_eq!(result["interfaces"][0].get("sandbox"), None);
    assert_eq!(result["ips"], json!([{"address": "10.244.1.1/32", "gateway": "169.254.1.1", "interface": 1}]));
    assert_eq!(result["routes"], json!([{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]));
    let link = node.netns.run(|| Socket::open().unwrap().link_by_name(pod.host_interface().unwrap()).unwrap()).unwrap();
    let link = link.unwrap();
    assert_eq!(link.alias.as_deref(), Some("demo/a"));
    assert_eq!(link.mac.unwrap().to_string(), result["interfaces"][0]["mac"].as_str().unwrap());
}

#[test]
fn the_ancestors_configuration_works_as_it_is() {
    let lab = lab("ancestor");
    let node = &lab.nodes[0];
    let mut pod = node.sandbox("a").unwrap();
    // But for the directories, which have to be this lab's.
    pod.config = json!({
        "cniVersion": "0.3.1", "name": "pods", "type": "minicni", "bridge": "minicni0", "mtu": 1400,
        "subnet": "10.244.1.0/24", "stateDir": node.state_dir(), "bpfDir": node.bpf_dir(),
    });
    let call = pod.call(node, "ADD").unwrap();
    assert!(call.ok, "{call:?}");
    assert!(call.stderr.contains("bridge \"minicni0\" is ignored"), "{}", call.stderr);
    assert_eq!(call.answer.unwrap()["ips"][0]["version"], "4");
    let link = pod.netns.run(|| Socket::open().unwrap().link_by_name("eth0").unwrap().unwrap()).unwrap();
    assert_eq!(link.mtu, 1400);
}

#[test]
fn every_bad_input_is_refused_by_name_and_value_and_leaves_nothing() {
    let lab = lab("bad");
    let node = &lab.nodes[0];
    let pod = node.pod("other").unwrap();
    let mut bad = node.sandbox("bad").unwrap();
    let good = bad.config.clone();
    let with = |key: &str, value: serde_json::Value| {
        let mut config = good.clone();
        config[key] = value;
        config
    };
    let keys = [
        ("subnet", json!("10.0.0.0/31"), 7, "10.0.0.0/31"),
        ("subnet", json!("10.0.0.0/32"), 7, "10.0.0.0/32"),
        ("subnet", json!("ten"), 7, "ten"),
        ("mtu", json!(20), 7, "mtu is 20"),
        ("datapath", json!("magic"), 7, "magic"),
        ("stateDir", json!("here"), 7, "stateDir is \"here\""),
        ("name", json!("a/b"), 7, "a/b"),
        ("cniVersion", json!("9.9.9"), 1, "9.9.9"),
    ];
    for (key, value, code, words) in keys {
        bad.config = with(key, value);
        assert_refused(node, &bad, &[], code, &[words]);
    }
    bad.config = with("subnet", json!(null));
    bad.config["ranges"] = json!([[{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.0.0/25"}]]);
    assert_refused(node, &bad, &[], 7, &["ranges[0]", "10.0.0.0/25"]);
    bad.config = json!("not an object");
    assert_refused(node, &bad, &[], 6, &[]);

    bad.config = good;
    assert_refused(node, &bad, &[("CNI_NETNS", "/nowhere")], 8, &["/nowhere"]);
    assert_refused(node, &bad, &[("CNI_NETNS", "/etc/hostname")], 8, &["/etc/hostname", "not a network namespace"]);
    assert_refused(node, &bad, &[("CNI_NETNS", "/proc/self/ns/net")], 8, &["should not be the same"]);
    assert_refused(node, &bad, &[("CNI_IFNAME", "lo")], 101, &["lo", "already"]);
    assert_refused(node, &bad, &[("CNI_IFNAME", "much-too-long-a-name")], 4, &["much-too-long-a-name"]);
    // A second ADD for what is attached already.
    assert_refused(node, &pod, &[], 100, &["10.244.1.1"]);
    bad.add(node).unwrap();
    assert!(pod.call(node, "CHECK").unwrap().ok);
}

#[test]
fn an_interface_that_is_in_the_container_already_is_left_as_it_is() {
    let lab = lab("taken");
    let node = &lab.nodes[0];
    let mut pod = node.pod("a").unwrap();
    let before = pod.netns.run(|| Socket::open().unwrap().link_by_name("eth0").unwrap()).unwrap();
    // The same namespace for another container.
    let path = pod.path.clone();
    pod.name = "b".into();
    assert_refused(node, &pod, &[("CNI_NETNS", &path.to_string_lossy())], 101, &["eth0"]);
    assert_eq!(pod.netns.run(|| Socket::open().unwrap().link_by_name("eth0").unwrap()).unwrap(), before);
}

#[test]
fn where_there_is_no_bpf_file_system_auto_routes_and_ebpf_says_why_not() {
    let lab = lab("fallback");
    let node = &lab.nodes[0];
    let (mut a, mut b) = (node.sandbox("a").unwrap(), node.sandbox("b").unwrap());
    for pod in [&mut a, &mut b] {
        pod.config["bpfDir"] = json!("/run/not-bpffs");
        pod.config["datapath"] = json!("ebpf");
    }
    assert_refused(node, &a, &[], 102, &["/run/not-bpffs", "not on a bpf file system"]);
    for pod in [&mut a, &mut b] {
        pod.config["datapath"] = json!("auto");
        pod.add(node).unwrap();
        assert!(pod.call(node, "CHECK").unwrap().ok, "{:?}", pod.call(node, "CHECK"));
    }
    let facts = std::fs::read_to_string(node.state_dir().join("node.json")).unwrap();
    assert!(facts.contains("not on a bpf file system"), "{facts}");
    let _server = Server::start(&b.netns, 7000).unwrap();
    let to = (b.address().unwrap(), 7000).into();
    Client::connect(&a.netns, Protocol::Tcp, to).unwrap().measure(100).unwrap();
    a.del(node).unwrap();
    b.del(node).unwrap();
    assert!(!Path::new("/run/not-bpffs").exists());
    assert!(Pins::new(&node.bpf_dir()).open_programs().is_err());
}

#[test]
fn a_network_without_the_fast_path_does_not_take_it_from_another() {
    let lab = lab("two-networks");
    let node = &lab.nodes[0];
    let mut plain = node.sandbox("plain").unwrap();
    plain.config["datapath"] = json!("route");
    plain.config["name"] = json!("plain");
    plain.config["subnet"] = json!("10.244.9.0/24");
    plain.add(node).unwrap();
    let _pod = node.pod("a").unwrap();
    assert!(node.pins().open_programs().is_ok(), "the second network has no fast path");
}

#[test]
fn a_second_interface_of_a_container_leaves_the_default_route_to_the_first() {
    let lab = lab("second-interface");
    let node = &lab.nodes[0];
    let mut pod = node.pod("a").unwrap();
    let variables = [("CNI_IFNAME", "net1")];
    let call = pod.call_with(node, "ADD", &variables).unwrap();
    assert!(call.ok, "{call:?}");
    let result = call.answer.unwrap();
    // With a prevResult the answer lists both; ours comes last.
    assert_eq!(result["interfaces"][3]["name"], "net1");
    assert_eq!(result["routes"].as_array().unwrap().len(), 1);
    pod.config["prevResult"] = result;
    let check = pod.call_with(node, "CHECK", &variables).unwrap();
    assert!(check.ok, "{check:?}");
    assert!(pod.call_with(node, "DEL", &variables).unwrap().ok);
    assert_eq!(residue(node).0, [pod.host_interface().unwrap()]);
    pod.del(node).unwrap();
    assert_nothing_left(node);
}
