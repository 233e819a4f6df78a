//! CHECK and STATUS: they notice, and change nothing.

use std::{thread, time::Duration};

use serde_json::json;

use xtask::lab::Pod;

use crate::{assert_refused, lab};

type Run<'a> = &'a dyn Fn(&str);

#[test]
fn check_notices_each_thing_that_is_not_as_add_made_it() {
    let lab = lab("check");
    let node = &lab.nodes[0];
    let pod = node.pod("a").unwrap();
    let host = pod.host_interface().unwrap().to_owned();
    let on_host = |line: &str| {
        let line = line.replace("HOST", &host);
        node.run(std::process::Command::new("sh").args(["-c", &line])).unwrap();
    };
    let in_pod = |line: &str| {
        pod.netns.run(|| xtask::command::output(std::process::Command::new("sh").args(["-c", line])).unwrap()).unwrap();
    };
    let mac = pod.result.as_ref().unwrap()["interfaces"][0]["mac"].as_str().unwrap().to_owned();
    let neighbour = format!("ip neigh replace 169.254.1.1 lladdr {mac} dev eth0 nud permanent");
    // With the last address, everything else goes.
    let with_address = format!(
        "ip addr add 10.244.1.1/32 dev eth0; ip route add default via 169.254.1.1 dev eth0 onlink; {neighbour}"
    );
    let pod_mac = pod.result.as_ref().unwrap()["interfaces"][1]["mac"].as_str().unwrap();
    // A device that goes down loses routes and neighbours.
    let host_neighbour = format!("ip neigh replace 10.244.1.1 lladdr {pod_mac} dev HOST nud permanent");
    let up = format!("ip link set HOST up; ip route add 10.244.1.1 dev HOST proto 110; {host_neighbour}");
    let breaks: [(Run<'_>, &str, &str, &str); 8] = [
        (&in_pod, "ip neigh del 169.254.1.1 dev eth0", &neighbour, "no permanent neighbour"),
        (&on_host, "ip link set HOST down", &up, "is down"),
        (&on_host, "ip neigh del 10.244.1.1 dev HOST", &host_neighbour, "no permanent neighbour 10.244.1.1"),
        (&on_host, "ip route del 10.244.1.1", "ip route add 10.244.1.1 dev HOST proto 110", "no route 10.244.1.1/32"),
        (&in_pod, "ip route del default", "ip route add default via 169.254.1.1 dev eth0 onlink", "no route 0.0.0.0/0"),
        (&in_pod, "ip addr del 10.244.1.1/32 dev eth0", &with_address, "does not have address"),
        (&in_pod, "ip link set eth0 address 02:00:00:00:00:77", "", "has MAC"),
        (&on_host, "tc qdisc del dev HOST clsact", "", "no clsact qdisc"),
    ];
    for (run, harm, repair, words) in breaks {
        assert!(pod.call(node, "CHECK").unwrap().ok, "before {harm}: {:?}", pod.call(node, "CHECK"));
        run(harm);
        let call = pod.call(node, "CHECK").unwrap();
        let answer = call.answer.clone().unwrap_or_default().to_string();
        assert!(!call.ok && answer.contains(words), "{harm}: {answer}");
        if repair.is_empty() {
            // Not repaired: ADD it anew.
            pod.del(node).unwrap();
            let mut pod = node.sandbox(&format!("again{}", words.len())).unwrap();
            pod.add(node).unwrap();
            pod.del(node).unwrap();
            return;
        }
        run(repair);
    }
}

#[test]
fn an_exhausted_pool_is_error_11_and_makes_status_fail() {
    let lab = lab("exhausted");
    let node = &lab.nodes[0];
    let pods: Vec<_> = (0..3)
        .map(|number| {
            let mut pod = node.sandbox(&format!("p{number}")).unwrap();
            pod.config["subnet"] = json!("10.244.1.0/30");
            pod
        })
        .collect();
    let mut pods = pods.into_iter();
    let (mut first, mut second, third) = (pods.next().unwrap(), pods.next().unwrap(), pods.next().unwrap());
    assert!(first.call(node, "STATUS").unwrap().ok);
    first.add(node).unwrap();
    second.add(node).unwrap();
    assert_refused(node, &third, &[], 11, &["10.244.1.0/30"]);
    let status = third.call(node, "STATUS").unwrap();
    assert_eq!(status.answer.unwrap()["code"], 50);
    first.del(node).unwrap();
    assert!(third.call(node, "STATUS").unwrap().ok);
}

#[test]
fn status_and_check_neither_wait_for_a_lock_nor_touch_the_leases_of_another_boot() {
    let lab = lab("readonly");
    let node = &lab.nodes[0];
    let pod = node.pod("a").unwrap();
    let dir = node.state_dir().join("ipam/pods");
    std::fs::write(dir.join("boot_id"), "another").unwrap();
    let lock = std::fs::File::options().write(true).open(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    thread::scope(|scope| {
        let calls = scope.spawn(|| (pod.call(node, "STATUS").unwrap(), pod.call(node, "CHECK").unwrap()));
        thread::sleep(Duration::from_secs(1));
        let waits = !calls.is_finished();
        lock.unlock().unwrap();
        let (status, check) = calls.join().unwrap();
        assert!(!waits, "they wait for the lock");
        assert!(status.ok && !check.ok, "{status:?} {check:?}");
    });
    assert_eq!(std::fs::read_dir(dir.join("leases")).unwrap().count(), 1);
}

#[test]
fn a_daemon_that_died_between_loading_and_attaching_makes_no_pod_fail_its_check() {
    let lab = lab("half-loaded");
    let node = &lab.nodes[0];
    let pod = node.pod("a").unwrap();
    // New programs are pinned and not attached; the old ones do the same on the same maps.
    let constants = minicni::datapath::Constants::new(Duration::from_millis(4), Duration::from_secs(30), true);
    minicni::datapath::load(&node.pins(), minicni::datapath::OBJECT, &constants, 0).unwrap();
    let other = node.pod("b").unwrap();
    for pod in [&pod, &other] {
        let check = pod.call(node, "CHECK").unwrap();
        assert!(check.ok, "{check:?}");
    }
}

#[test]
fn check_compares_the_previous_result_with_what_is_there() {
    let lab = lab("prev-result");
    let node = &lab.nodes[0];
    let pod = node.pod("a").unwrap();
    let wrong = [
        ("/interfaces/1/mac", json!("02:00:00:00:00:99"), "MAC"),
        ("/interfaces/0/name", json!("veth7"), "mni"),
        ("/interfaces/1/name", json!("eth7"), "eth0"),
        ("/interfaces/1/sandbox", json!("/run/netns/other"), "eth0"),
        ("/ips/0/address", json!("10.244.1.77/32"), "10.244.1.1"),
        ("/ips/0/interface", json!(0), "10.244.1.1"),
    ];
    let mut other = node.sandbox("unused").unwrap();
    let (id, path) = (pod.container_id(), pod.path.to_string_lossy().into_owned());
    let variables = [("CNI_CONTAINERID", id.as_str()), ("CNI_NETNS", path.as_str())];
    for (pointer, value, words) in wrong {
        other.config = pod.config.clone();
        *other.config["prevResult"].pointer_mut(pointer).unwrap() = value;
        let call = other.call_with(node, "CHECK", &variables).unwrap();
        let answer = call.answer.unwrap_or_default().to_string();
        assert!(!call.ok && answer.contains(words), "{pointer}: {answer}");
    }
    other.config = pod.config.clone();
    assert!(other.call_with(node, "CHECK", &variables).unwrap().ok);
}

#[test]
fn status_fails_where_an_add_would() {
    let lab = lab("status");
    let node = &lab.nodes[0];
    let mut pod = node.sandbox("a").unwrap();
    let good = pod.config.clone();
    assert!(pod.call(node, "STATUS").unwrap().ok);
    assert!(!node.state_dir().exists(), "STATUS made something");
    let fails = |pod: &Pod, words: &str| {
        let call = pod.call(node, "STATUS").unwrap();
        let answer = call.answer.unwrap_or_default();
        assert!(!call.ok && answer["code"] == 50 && answer.to_string().contains(words), "{answer}");
    };
    pod.config["datapath"] = json!("ebpf");
    pod.config["bpfDir"] = json!("/run/not-bpffs");
    fails(&pod, "not on a bpf file system");
    pod.config = good.clone();
    pod.config["stateDir"] = json!("/etc/hostname/state");
    fails(&pod, "/etc/hostname");
    pod.config = good;
    std::fs::create_dir_all(node.state_dir()).unwrap();
    std::fs::write(node.state_dir().join("node.json"), "{").unwrap();
    fails(&pod, "node.json is malformed");
}

#[test]
fn status_tells_a_node_that_cannot_add_from_one_whose_pods_suffer_too() {
    let lab = lab("limited");
    let node = &lab.nodes[0];
    let mut pod = node.pod("a").unwrap();
    let code = |pod: &Pod| pod.call(node, "STATUS").unwrap().answer.map_or(json!(0), |answer| answer["code"].clone());
    assert_eq!(code(&pod), 0);
    let forward = |value: &str| {
        let setting = format!("net.ipv4.ip_forward={value}");
        node.run(std::process::Command::new("sysctl").args(["-q", "-w", &setting])).unwrap();
    };
    forward("0");
    assert_eq!(code(&pod), 51);
    forward("1");
    assert_eq!(code(&pod), 0);
    pod.config["datapath"] = json!("ebpf");
    pod.config["bpfDir"] = json!("/run/not-bpffs");
    assert_eq!(code(&pod), 51);
    pod.config["name"] = json!("without-pods");
    assert_eq!(code(&pod), 50);
}

#[test]
fn an_add_switches_forwarding_on_again() {
    let lab = lab("forward");
    let node = &lab.nodes[0];
    let pod = node.pod("a").unwrap();
    node.run(std::process::Command::new("sysctl").args(["-q", "-w", "net.ipv4.ip_forward=0"])).unwrap();
    let _other = node.pod("b").unwrap();
    assert!(pod.call(node, "STATUS").unwrap().ok);
}
