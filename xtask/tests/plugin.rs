//! The plugin, executed as a runtime does it, in namespaces, without a daemon. Needs root.

use std::{
    collections::HashSet,
    net::Ipv4Addr,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use minicni::{
    datapath::{Endpoints, Pins},
    ipam::{LeaseState, Store},
    link::{Netns, Socket},
    plugin::HOST_PREFIX,
};
use serde_json::json;
use xtask::lab::{
    Lab, Node, Pod, Programs,
    traffic::{Client, Protocol, Server},
};

fn lab(name: &str) -> Lab {
    Lab::new(&format!("mniplugin-{name}"), 1, Programs::beside_us().unwrap()).unwrap()
}

/// What a node has of its pods: devices, routes, endpoint entries, leased addresses.
fn residue(node: &Node) -> (Vec<String>, usize, usize, usize) {
    let (devices, routes) = node
        .netns
        .run(|| {
            let mut socket = Socket::open().unwrap();
            let devices = socket.links().unwrap().into_iter().map(|link| link.name);
            let devices = devices.filter(|name| name.starts_with(HOST_PREFIX)).collect();
            let filter = minicni::link::RouteFilter {
                protocol: Some(minicni::plugin::ENDPOINT_ROUTE_PROTOCOL),
                ..Default::default()
            };
            (devices, socket.routes(filter).unwrap().len())
        })
        .unwrap();
    let endpoints = Endpoints::open(&node.pins()).map_or(0, |endpoints| endpoints.all().unwrap().len());
    (devices, routes, endpoints, leased(node).len())
}

fn leased(node: &Node) -> Vec<std::net::IpAddr> {
    let dir = node.state_dir().join("ipam/pods");
    if !dir.exists() {
        return Vec::new();
    }
    let store = Store::open(&dir, &minicni::node::boot_id().unwrap(), Duration::ZERO).unwrap();
    let leases = store.list().unwrap().into_iter();
    leases.filter(|lease| matches!(lease.state, LeaseState::Leased { .. })).map(|lease| lease.address).collect()
}

#[track_caller]
fn assert_nothing_left(node: &Node) {
    assert_eq!(residue(node), (vec![], 0, 0, 0));
}

/// ADD fails with this code and these words, and leaves nothing.
#[track_caller]
fn assert_refused(node: &Node, pod: &Pod, variables: &[(&str, &str)], code: u64, words: &[&str]) {
    let before = residue(node);
    let call = pod.call_with(node, "ADD", variables).unwrap();
    let answer = call.answer.clone().unwrap_or_default();
    assert!(!call.ok && answer["code"] == code, "{call:?}");
    let text = ["msg", "details"].map(|key| answer[key].as_str().unwrap_or_default()).join(" ");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
    assert_eq!(residue(node), before);
}

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
fn del_succeeds_however_often_and_with_whatever_is_left() {
    let lab = lab("del");
    let node = &lab.nodes[0];
    let nothing = node.sandbox("never-added").unwrap();
    nothing.del(node).unwrap();
    assert!(!node.state_dir().exists(), "DEL of nothing made something");

    // Twice; without the namespace's name; with a file in its place; without prevResult.
    let pod = node.pod("a").unwrap();
    pod.del(node).unwrap();
    pod.del(node).unwrap();
    for netns in ["", "/nowhere", "/etc/hostname"] {
        let mut pod = node.sandbox("b").unwrap();
        pod.add(node).unwrap();
        pod.config.as_object_mut().unwrap().remove("prevResult");
        assert!(pod.call_with(node, "DEL", &[("CNI_NETNS", netns)]).unwrap().ok);
        assert_nothing_left(node);
        Netns::delete_named(&pod.path).unwrap();
    }

    // The namespace has no name any more.
    let pod = node.pod("c").unwrap();
    Netns::delete_named(&pod.path).unwrap();
    assert!(pod.call_with(node, "DEL", &[("CNI_NETNS", "")]).unwrap().ok);
    assert_nothing_left(node);
}

#[test]
fn del_after_the_namespace_died_removes_the_endpoint_entry_too() {
    let lab = lab("died");
    let node = &lab.nodes[0];
    let pod = node.pod("a").unwrap();
    let (path, container_id, config) = (pod.path.clone(), pod.container_id(), pod.config.clone());
    drop(pod);
    Netns::delete_named(&path).unwrap();
    // The kernel takes namespaces down in its own time.
    for _ in 0..200 {
        if residue(node).0.is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(residue(node), (vec![], 0, 1, 1));
    let mut again = node.sandbox("z").unwrap();
    again.config = config;
    let variables = [("CNI_CONTAINERID", container_id.as_str()), ("CNI_NETNS", "")];
    assert!(again.call_with(node, "DEL", &variables).unwrap().ok);
    assert_nothing_left(node);
}

#[test]
fn gc_keeps_what_is_listed_and_removes_the_rest_of_its_network() {
    let lab = lab("gc");
    let node = &lab.nodes[0];
    let (mut a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    a.config["cni.dev/valid-attachments"] = json!([{"containerID": b.container_id(), "ifname": "eth0"}]);
    let call = a.call(node, "GC").unwrap();
    assert!(call.ok && call.answer.is_none(), "{call:?}");
    assert!(b.call(node, "CHECK").unwrap().ok);
    assert_eq!(residue(node).0, [b.host_interface().unwrap()]);
    // Without a list, only what is provably dead goes.
    a.config.as_object_mut().unwrap().remove("cni.dev/valid-attachments");
    assert!(a.call(node, "GC").unwrap().ok);
    assert!(b.call(node, "CHECK").unwrap().ok);
    a.config["cni.dev/valid-attachments"] = json!(null);
    assert!(a.call(node, "GC").unwrap().ok);
    assert_nothing_left(node);
}

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
    let breaks: [(Run<'_>, &str, &str, &str); 6] = [
        (
            &on_host,
            "ip link set HOST down",
            "ip link set HOST up; ip route add 10.244.1.1 dev HOST proto 110",
            "is down",
        ),
        (&on_host, "ip route del 10.244.1.1", "ip route add 10.244.1.1 dev HOST proto 110", "no route 10.244.1.1/32"),
        (&in_pod, "ip route del default", "ip route add default via 169.254.1.1 dev eth0 onlink", "no route 0.0.0.0/0"),
        (
            &in_pod,
            "ip addr del 10.244.1.1/32 dev eth0",
            "ip addr add 10.244.1.1/32 dev eth0; ip route add default via 169.254.1.1 dev eth0 onlink",
            "does not have address",
        ),
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
fn fifty_parallel_adds_and_dels_give_no_address_twice_and_leave_nothing() {
    let lab = lab("parallel");
    let node = &lab.nodes[0];
    let sandboxes: Vec<_> = (0..50).map(|number| node.sandbox(&format!("p{number}")).unwrap()).collect();
    let pods: Vec<_> = thread::scope(|scope| {
        let adds: Vec<_> = sandboxes
            .into_iter()
            .map(|mut pod| {
                scope.spawn(move || {
                    pod.add(node).unwrap();
                    pod
                })
            })
            .collect();
        adds.into_iter().map(|add| add.join().unwrap()).collect()
    });
    let addresses: HashSet<Ipv4Addr> = pods.iter().map(|pod| pod.address().unwrap()).collect();
    assert_eq!((addresses.len(), residue(node).0.len(), leased(node).len()), (50, 50, 50));
    thread::scope(|scope| {
        for pod in &pods {
            // Runtimes send two DELs of one pod at the same time.
            scope.spawn(|| pod.del(node).unwrap());
            scope.spawn(|| pod.del(node).unwrap());
        }
    });
    assert_nothing_left(node);
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
fn the_first_packet_after_add_arrives_in_either_mode_however_busy_the_kernel_is() {
    let lab = lab("first");
    let node = &lab.nodes[0];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Pods that come and go keep the kernel's network lock busy.
        scope.spawn(|| {
            for number in 0.. {
                if done.load(Relaxed) {
                    return;
                }
                node.pod(&format!("noise{number}")).unwrap().del(node).unwrap();
            }
        });
        let lost = ["ebpf", "route"].map(|mode| {
            let pod = |name: String| {
                let mut pod = node.sandbox(&name).unwrap();
                pod.config["datapath"] = json!(mode);
                pod.add(node).unwrap();
                pod
            };
            let client = pod(format!("{mode}-client"));
            (0..60)
                .filter(|number| {
                    let pod = pod(format!("{mode}{number}"));
                    let _server = Server::start(&pod.netns, 7000).unwrap();
                    let to = (pod.address().unwrap(), 7000).into();
                    let lost = Client::connect(&client.netns, Protocol::Udp, to).unwrap().exchange(b"x").is_err();
                    pod.del(node).unwrap();
                    lost
                })
                .collect::<Vec<_>>()
        });
        done.store(true, Relaxed);
        assert!(lost.iter().all(Vec::is_empty), "{lost:?}: the first packet to these pods was lost");
    });
}

/// Runs the plugin under strace, which holds it up or kills it at a system call.
fn under_strace(node: &Node, pod: &Pod, command: &str, inject: &str) -> std::process::Child {
    use std::{io::Write as _, process::Stdio};
    let plugin = pod.command(command);
    let mut strace = std::process::Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={inject}")]).arg(plugin.get_program());
    strace.env_clear().envs(plugin.get_envs().filter_map(|(key, value)| Some((key, value?))));
    strace.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = node.netns.run(|| strace.spawn()).unwrap().unwrap();
    child.stdin.take().unwrap().write_all(pod.config.to_string().as_bytes()).unwrap();
    child
}

#[test]
fn a_del_that_overtakes_an_add_leaves_nothing_of_it() {
    let lab = lab("overtake");
    let node = &lab.nodes[0];
    node.pod("first").unwrap().del(node).unwrap();
    let pod = node.sandbox("a").unwrap();
    // Between the lease and the first netlink message.
    let mut add = under_strace(node, &pod, "ADD", "socket:delay_enter=1000000:when=1");
    thread::sleep(Duration::from_millis(500));
    pod.del(node).unwrap();
    assert!(add.wait().unwrap().success());
    assert_nothing_left(node);
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
