//! What a runtime asks for beyond the configuration, and further keys of the configuration.

use std::process::Command;

use serde_json::json;
use xtask::lab::{
    Families,
    traffic::{Client, Protocol, Server},
};

use crate::{assert_nothing_left, assert_refused, give_addresses, lab, lab_with, residue};

#[test]
fn an_address_and_a_mac_are_given_as_asked_for_and_the_strongest_source_wins() {
    let lab = lab_with("asked", Families::Dual);
    let node = &lab.nodes[0];
    give_addresses(node);
    let arguments = ("CNI_ARGS", "IgnoreUnknown=1;IP=10.244.1.40;MAC=02:00:00:00:00:40");
    let table = [
        (json!(null), json!(null), "10.244.1.40", "02:00:00:00:00:40"),
        (json!({"ips": ["10.244.1.50"], "mac": "02-00-00-00-00-50"}), json!(null), "10.244.1.50", "02:00:00:00:00:50"),
        (
            json!({"ips": ["10.244.1.50"]}),
            json!({"ips": ["10.244.1.60/24"], "mac": "02:00:00:00:00:60"}),
            "10.244.1.60",
            "02:00:00:00:00:60",
        ),
    ];
    for (number, (args, runtime_config, address, mac)) in table.into_iter().enumerate() {
        let mut pod = node.sandbox(&format!("p{number}")).unwrap();
        pod.config["args"] = json!({"cni": args});
        pod.config["runtimeConfig"] = runtime_config;
        let call = pod.call_with(node, "ADD", &[arguments]).unwrap();
        let result = call.answer.clone().unwrap();
        assert!(call.ok, "{call:?}");
        assert_eq!(result["ips"][0]["address"], format!("{address}/32"));
        assert_eq!(result["interfaces"][1]["mac"], mac);
        assert!(result["ips"][1]["address"].as_str().unwrap().starts_with("fd44:"), "the other family is not missing");
        pod.config["prevResult"] = result;
        let check = pod.call_with(node, "CHECK", &[arguments]).unwrap();
        assert!(check.ok, "{check:?}");
        node.run(Command::new("ping").args(["-c", "1", "-W", "2", address])).unwrap();
    }
}

#[test]
fn an_address_that_cannot_be_given_is_refused_by_name() {
    let lab = lab("unavailable");
    let node = &lab.nodes[0];
    let _first = node.pod("first").unwrap();
    let mut pod = node.sandbox("a").unwrap();
    for (ips, code, words) in [
        (json!(["10.9.9.9"]), 100, "10.9.9.9"),
        (json!(["fd44:0:0:1::9"]), 100, "fd44:0:0:1::9"),
        (json!(["10.244.1.1"]), 100, "10.244.1.1"),
        (json!(["10.244.1.7", "10.244.1.8"]), 100, "10.244.1.8"),
        (json!(["ten"]), 7, "ten"),
    ] {
        pod.config["runtimeConfig"] = json!({"ips": ips});
        assert_refused(node, &pod, &[], code, &[words]);
    }
    pod.config["runtimeConfig"] = json!({"mac": "01:00:00:00:00:00"});
    assert_refused(node, &pod, &[], 7, &["01:00:00:00:00:00"]);
}

#[test]
fn a_runtimes_ranges_dns_and_routes_arrive() {
    let lab = lab("runtime");
    let node = &lab.nodes[0];
    let mut pod = node.sandbox("a").unwrap();
    // As containerd spells them.
    pod.config["runtimeConfig"] = json!({
        "ipRanges": [{"Subnet": "10.244.7.0/24", "RangeStart": "10.244.7.9", "RangeEnd": "", "Gateway": ""}],
        "dns": {"Servers": ["10.96.0.10"], "Searches": ["svc.cluster.local"], "Options": null},
    });
    pod.config["routes"] = json!([{"dst": "10.9.0.0/16", "mtu": 1400}, {"dst": "0.0.0.0/0"}]);
    pod.add(node).unwrap();
    let result = pod.result.clone().unwrap();
    assert_eq!(result["ips"][0]["address"], "10.244.7.9/32");
    assert_eq!(result["dns"], json!({"nameservers": ["10.96.0.10"], "search": ["svc.cluster.local"]}));
    assert_eq!(result["routes"][1], json!({"dst": "10.9.0.0/16", "gw": "169.254.1.1", "mtu": 1400}));
    let route = || xtask::command::output(Command::new("ip").args(["route", "show", "10.9.0.0/16"])).unwrap();
    assert!(pod.netns.run(route).unwrap().contains("via 169.254.1.1 dev eth0"), "{}", pod.netns.run(route).unwrap());
    assert!(pod.call(node, "CHECK").unwrap().ok);
    pod.netns
        .run(|| xtask::command::output(Command::new("ip").args(["route", "del", "10.9.0.0/16"])).unwrap())
        .unwrap();
    let check = pod.call(node, "CHECK").unwrap().answer.unwrap_or_default().to_string();
    assert!(check.contains("no route 10.9.0.0/16"), "{check}");
    pod.del(node).unwrap();
    assert_nothing_left(node);
}

#[test]
fn excluded_addresses_are_never_handed_out() {
    let lab = lab("excluded");
    let node = &lab.nodes[0];
    let mut addresses = Vec::new();
    for number in 0..2 {
        let mut pod = node.sandbox(&format!("p{number}")).unwrap();
        pod.config["exclude"] = json!(["10.244.1.2/31", "10.244.1.0/31"]);
        pod.config["subnet"] = json!("10.244.1.0/29");
        pod.config["gateway"] = json!("10.244.1.4");
        pod.add(node).unwrap();
        addresses.push(pod.address().unwrap().to_string());
    }
    assert_eq!(addresses, ["10.244.1.5", "10.244.1.6"]);
}

#[test]
fn a_pod_with_a_bandwidth_limit_stays_off_the_fast_path_and_cannot_forge_its_source() {
    let lab = lab("bandwidth");
    let node = &lab.nodes[0];
    let mut limited = node.sandbox("limited").unwrap();
    limited.config["runtimeConfig"] = json!({"bandwidth": {"IngressRate": 100_000_000_u64, "IngressBurst": u32::MAX}});
    limited.add(node).unwrap();
    let check = limited.call(node, "CHECK").unwrap();
    assert!(check.ok, "{check:?}");
    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    // What the bandwidth plugin does behind us.
    let host = limited.host_interface().unwrap();
    for line in [
        "tc qdisc add dev HOST root handle 1: tbf rate 100mbit burst 100kb latency 25ms",
        "tc qdisc add dev HOST handle ffff: ingress",
    ] {
        node.run(Command::new("sh").args(["-c", &line.replace("HOST", host)])).unwrap();
    }
    let _servers = [&limited, &b].map(|pod| Server::start(&pod.netns, 7000).unwrap());
    let redirected = |to: &xtask::lab::Pod| {
        let before = node.counters().redirected;
        let to = (to.address().unwrap(), 7000).into();
        Client::connect(&a.netns, Protocol::Tcp, to).unwrap().measure(200).unwrap();
        node.counters().redirected - before
    };
    assert_eq!(redirected(&limited), 0);
    assert!(redirected(&b) > 300, "others have lost the fast path");
    let status = node.netns.run(|| node.minicnid("status").arg("--json").output().unwrap().stdout).unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    let fast: Vec<_> = status["endpoints"].as_array().unwrap().iter().map(|pod| pod["fastPath"].clone()).collect();
    assert_eq!(fast, [false, true, true], "{status}");
    assert!(!status["problems"].to_string().contains(host), "{status}");
    // A forged source gets no answer, and a true one does.
    let ping = |from: &str| {
        let line = format!("ip addr replace {from}/32 dev eth0; ping -c 1 -W 1 -I {from} {}", b.address().unwrap());
        limited.netns.run(|| Command::new("sh").args(["-c", &line]).output().unwrap().status.success()).unwrap()
    };
    assert!(ping(&limited.address().unwrap().to_string()));
    let forged = a.address().unwrap().to_string();
    assert!(!ping(&forged));
    limited.del(node).unwrap();
    assert_eq!(residue(node).0.len(), 2);
}

#[test]
fn a_pod_may_be_exempt_from_the_fast_path_and_from_the_check_of_its_addresses() {
    let lab = lab("exempt");
    let node = &lab.nodes[0];
    let b = node.pod("b").unwrap();
    let exempt = |name: &str, config: serde_json::Value| {
        let mut pod = node.sandbox(name).unwrap();
        for (key, value) in config.as_object().unwrap() {
            pod.config[key] = value.clone();
        }
        pod.add(node).unwrap();
        let check = pod.call(node, "CHECK").unwrap();
        assert!(check.ok, "{check:?}");
        pod
    };
    // As containerd passes what a pod is annotated with, and as an operator writes it.
    let annotations = json!({"io.kubernetes.cri.pod-annotations": {"minicni.io/fast-path": "off", "other": "x"}});
    let slow = exempt("slow", json!({"runtimeConfig": annotations}));
    let router = exempt("router", json!({"args": {"cni": {"spoofCheck": false}}}));
    let plain = exempt("plain", json!({"args": {"cni": {"spoofCheck": "on"}}}));
    let _server = Server::start(&b.netns, 7000).unwrap();
    let to = (b.address().unwrap(), 7000).into();
    for (pod, fast) in [(&slow, false), (&router, false), (&plain, true)] {
        let before = node.counters().redirected;
        Client::connect(&pod.netns, Protocol::Tcp, to).unwrap().measure(200).unwrap();
        assert_eq!(node.counters().redirected > before, fast, "{}", pod.name);
    }
    // What bears another's source address arrives, or is counted.
    let forge = |pod: &xtask::lab::Pod| {
        let line = format!("ip addr replace 10.9.9.9/32 dev eth0; ping -c 1 -W 1 -I 10.9.9.9 {}", b.address().unwrap());
        let before = node.counters().spoofed_source;
        pod.netns.run(|| Command::new("sh").args(["-c", &line]).output().unwrap()).unwrap();
        node.counters().spoofed_source - before
    };
    assert_eq!((forge(&plain), forge(&router)), (1, 0));
    let mut wrong = node.sandbox("wrong").unwrap();
    wrong.config["args"] = json!({"cni": {"fastPath": "perhaps"}});
    assert_refused(node, &wrong, &[], 7, &["args.cni.fastPath", "perhaps"]);
}
