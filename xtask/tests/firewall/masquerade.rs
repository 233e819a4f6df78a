//! Which address others see of a pod.

use std::{
    env, fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    process::Command,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use xtask::lab::{
    Lab, Node, Pod,
    rules::{
        Backend,
        kube_proxy::{Endpoint, KubeProxy, Service},
    },
    traffic::{Client, Protocol, Server},
};

use super::{DOOR, OUTSIDE, PORT, SECOND, eventually, ip, nodes, outside, ruleset, run, seen, settle};

const VIRTUAL: [&str; 2] = ["10.96.0.10", "fd96::10"];

fn addresses(texts: [&str; 2]) -> [IpAddr; 2] {
    texts.map(|text| text.parse().unwrap())
}

fn table(node: &Node) -> String {
    run(&node.netns, "nft list table inet minicni")
}

/// Ends a daemon in the middle of whatever it does.
fn kill_daemon(node: &Node) {
    let pid = Pid::from_raw(node.daemon_pid().unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
    nix::sys::wait::waitpid(pid, None).unwrap();
}

/// Who sees a pod of the first node with which address.
#[track_caller]
fn assert_promise(lab: &Lab, outside: &minicni::link::Netns, pods: [&Pod; 3]) {
    let [a, neighbour, remote] = pods;
    let [here, there] = &lab.nodes[..] else { panic!("two nodes") };
    for (index, own) in a.addresses().into_iter().enumerate() {
        let own = Some(own);
        let to = |ip: IpAddr| SocketAddr::new(ip, PORT);
        assert_eq!(seen(&a.netns, outside, to(addresses(OUTSIDE)[index])), Some(addresses(DOOR)[index]), "outside");
        assert_eq!(seen(&a.netns, &neighbour.netns, to(neighbour.addresses()[index])), own, "a pod of the node");
        assert_eq!(seen(&a.netns, &remote.netns, to(remote.addresses()[index])), own, "a pod of another node");
        for node in [here, there] {
            let ip = [IpAddr::from(node.address), IpAddr::from(node.address6)][index];
            assert_eq!(seen(&a.netns, &node.netns, to(ip)), own, "{}", node.name);
        }
    }
}

#[test]
fn hosts_outside_see_the_nodes_address_and_everybody_in_the_cluster_the_pods_own() {
    let mut lab = nodes("who", 2);
    let outside = outside(&lab);
    lab.start_daemons().unwrap();
    let (a, n) = (lab.nodes[0].pod("a").unwrap(), lab.nodes[0].pod("n").unwrap());
    let r = lab.nodes[1].pod("r").unwrap();
    assert_promise(&lab, &outside, [&a, &n, &r]);
}

#[test]
fn a_service_of_kube_proxy_keeps_the_pods_address_and_its_own_masquerading_works_beside_ours() {
    for backend in [Backend::IptablesLegacy, Backend::IptablesNft, Backend::Nftables] {
        let mut lab = nodes("service", 2);
        let outside = outside(&lab);
        lab.start_daemons().unwrap();
        let here = &lab.nodes[0];
        let (a, b) = (here.pod("a").unwrap(), lab.nodes[1].pod("b").unwrap());
        for index in 0..2 {
            let service = |name: &str, last: u16, pod: &Pod, node: u8, node_port: u16| -> Vec<Service> {
                [Protocol::Tcp, Protocol::Udp]
                    .map(|protocol| Service {
                        name: format!("ns/{name}:{protocol:?}"),
                        protocol,
                        cluster: SocketAddr::new(addresses(VIRTUAL)[index], last),
                        node_port: Some(node_port),
                        external_ips: Vec::new(),
                        local_only: false,
                        endpoints: vec![Endpoint { address: SocketAddr::new(pod.addresses()[index], PORT), node }],
                    })
                    .into()
            };
            let services = [service("remote", 80, &b, 2, 30_080), service("self", 81, &a, 1, 30_081)].concat();
            let proxy = KubeProxy {
                pods: ["10.244.0.0/16", "fd44::/48"][index].parse().unwrap(),
                virtual_ips: ["10.96.0.0/16", "fd96::/112"][index].parse().unwrap(),
                node_ip: addresses(DOOR)[index],
                node: 1,
                services: &services,
            };
            proxy.start(here, backend).unwrap();
            let to = |port| SocketAddr::new(addresses(VIRTUAL)[index], port);
            assert_eq!(seen(&a.netns, &b.netns, to(80)), Some(a.addresses()[index]), "{backend:?}: to a service");
            // Hairpin: the pod must not see its own address as the client's.
            let hairpin = seen(&a.netns, &a.netns, to(81));
            assert!(hairpin.is_some() && hairpin != Some(a.addresses()[index]), "{backend:?}: {hairpin:?}");
            // From outside to a pod of the other node, by the first: that node must get the answer.
            let node_port = SocketAddr::new(addresses(DOOR)[index], 30_080);
            let node = [IpAddr::from(here.address), here.address6.into()][index];
            assert_eq!(seen(&outside, &b.netns, node_port), Some(node), "{backend:?}: NodePort");
            assert_eq!(
                seen(&a.netns, &outside, SocketAddr::new(addresses(OUTSIDE)[index], PORT)),
                Some(addresses(DOOR)[index]),
                "{backend:?}: outside"
            );
        }
    }
}

#[test]
fn where_it_is_told_not_to_masquerade_a_host_outside_sees_the_pods_address() {
    let cases: [&[&str]; 2] =
        [&["--masquerade", "false"], &["--non-masquerade-cidrs", "198.51.100.7,203.0.113.0/24,fd99::/64"]];
    for arguments in cases {
        let mut lab = nodes("except", 1);
        let outside = outside(&lab);
        ip(&outside, &format!("route add 10.244.0.0/16 via {}", DOOR[0]));
        ip(&outside, &format!("-6 route add fd44::/48 via {}", DOOR[1]));
        lab.start_daemons_with(arguments).unwrap();
        let a = lab.nodes[0].pod("a").unwrap();
        for (own, to) in a.addresses().into_iter().zip(addresses(OUTSIDE)) {
            assert_eq!(seen(&a.netns, &outside, SocketAddr::new(to, PORT)), Some(own), "{arguments:?}");
        }
    }
}

#[test]
fn a_malformed_list_of_prefixes_is_an_error_that_names_option_and_value() {
    let lab = nodes("malformed", 1);
    for (value, expected) in
        [("10.0.0.0/8,somewhere", "somewhere"), ("10.0.0.1/8", "is 10.0.0.0/8 meant?"), ("10.0.0.0/33", "10.0.0.0/33")]
    {
        let mut daemon: Command = lab.nodes[0].minicnid("run");
        let daemon = daemon.args(["--nodes", "/dev/null", "--non-masquerade-cidrs", value]);
        let output = lab.nodes[0].netns.run(|| daemon.output().unwrap()).unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains("--non-masquerade-cidrs") && stderr.contains(expected),
            "{stderr}"
        );
    }
}

#[test]
fn a_table_that_somebody_deletes_or_empties_is_back_within_a_second_and_others_stay() {
    let mut lab = nodes("restore", 1);
    xtask::lab::rules::nft(&lab.nodes[0], "table ip theirs { chain c { type nat hook postrouting priority 100; }\n }")
        .unwrap();
    lab.start_daemons().unwrap();
    let node = &lab.nodes[0];
    settle();
    let before = table(node);
    for change in ["delete table inet minicni", "flush table inet minicni", "flush set inet minicni cluster4"] {
        run(&node.netns, &format!("nft {change}"));
        let start = Instant::now();
        eventually(SECOND, change, || ruleset(node).contains("table inet minicni") && table(node) == before);
        eprintln!("{change}: back after {:?}", start.elapsed());
        settle();
    }
    assert!(ruleset(node).contains("table ip theirs"));
    // Nobody changes anything now: no transaction, by us either.
    let mut monitor = Command::new("timeout");
    let heard = node.netns.run(|| monitor.args(["3", "nft", "monitor"]).output().unwrap()).unwrap();
    assert_eq!(String::from_utf8_lossy(&heard.stdout), "");
}

#[test]
fn what_nft_fails_to_do_at_first_is_done_soon() {
    const FAILS_FOUR_TIMES: &str = "#!/bin/sh\n\
        echo >> \"$0.calls\"\n\
        [ \"$(wc -l < \"$0.calls\")\" -gt 4 ] || { echo failed as the test asks >&2; exit 1; }\n\
        PATH=${PATH#*:} exec nft \"$@\"\n";
    let lab = nodes("retry", 1);
    let node = &lab.nodes[0];
    let bin = node.directory("bin").unwrap();
    fs::write(bin.join("nft"), FAILS_FOUR_TIMES).unwrap();
    fs::set_permissions(bin.join("nft"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut daemon = node.daemon(&lab.nodes_file());
    daemon.env("PATH", format!("{}:{}", bin.display(), env::var("PATH").unwrap()));
    node.start(daemon).unwrap();
    eventually(Duration::from_secs(10), "the table", || ruleset(node).contains("table inet minicni"));
    assert!(fs::read_to_string(bin.join("nft.calls")).unwrap().lines().count() > 4);
}

#[test]
fn a_daemon_that_was_killed_leaves_what_the_next_one_repairs() {
    let mut lab = nodes("killed", 2);
    let outside = outside(&lab);
    lab.start_daemons().unwrap();
    let (a, n, r) = (lab.nodes[0].pod("a").unwrap(), lab.nodes[0].pod("n").unwrap(), lab.nodes[1].pod("r").unwrap());
    let node = &lab.nodes[0];
    for damage in ["delete table inet minicni", "flush table inet minicni", "add rule inet minicni postrouting drop"] {
        kill_daemon(node);
        run(&node.netns, &format!("nft {damage}"));
        node.start_daemon(&lab.nodes_file()).unwrap();
        assert_promise(&lab, &outside, [&a, &n, &r]);
    }
    // Without a daemon, too.
    kill_daemon(node);
    assert_promise(&lab, &outside, [&a, &n, &r]);
}

#[test]
fn flows_between_pods_are_redirected_and_masqueraded_ones_never() {
    let mut lab = nodes("fast", 2);
    let outside = outside(&lab);
    lab.start_daemons().unwrap();
    settle();
    let (a, r) = (lab.nodes[0].pod("a").unwrap(), lab.nodes[1].pod("r").unwrap());
    let _servers = [Server::start(&r.netns, PORT).unwrap(), Server::start(&outside, PORT).unwrap()];
    let redirected = |to: IpAddr, protocol| {
        let before = lab.nodes[0].counters().redirected;
        let mut client = Client::connect(&a.netns, protocol, SocketAddr::new(to, PORT)).unwrap();
        client.measure(300).unwrap();
        client.close().unwrap();
        lab.nodes[0].counters().redirected - before
    };
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for (pod, host) in r.addresses().into_iter().zip(addresses(OUTSIDE)) {
            let fast = redirected(pod, protocol);
            assert!(fast > 500, "{protocol:?} to {pod}: {fast}");
            assert_eq!(redirected(host, protocol), 0, "{protocol:?} to {host}");
        }
    }
}

#[test]
fn a_node_that_comes_is_no_outside_by_the_time_it_has_a_route() {
    let lab = nodes("comes", 2);
    let file = lab.nodes_file();
    let both = fs::read_to_string(&file).unwrap();
    let alone = both.split("---\n").next().unwrap();
    for _ in 0..5 {
        fs::write(&file, alone).unwrap();
        lab.nodes[0].start_daemon(&file).unwrap();
        let node = &lab.nodes[0];
        settle();
        assert!(!table(node).contains("192.168.77.2"));
        fs::write(&file, &both).unwrap();
        eventually(SECOND, "the route", || ip(&node.netns, "route show proto 109").contains("10.244.2.0/24"));
        let now = table(node);
        // Nothing but these two: 10.244.1.0/24 and 10.244.2.0/24 are no prefix together.
        for part in ["10.244.2.0/24", "192.168.77.2", "fd44:0:0:2::/64", "fd77:77::2"] {
            assert!(now.contains(part), "{part}: {now}");
        }
        node.stop_daemon().unwrap();
        ip(&node.netns, "route flush proto 109");
    }
}

#[test]
fn a_node_whose_pod_cidr_changed_keeps_its_old_pods_working_until_they_are_gone() {
    let mut lab = nodes("renumbered", 2);
    let outside = outside(&lab);
    lab.start_daemons().unwrap();
    let node = &lab.nodes[0];
    let (a, r) = (node.pod("a").unwrap(), lab.nodes[1].pod("r").unwrap());
    let file = lab.nodes_file();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("10.244.1.0/24", "10.244.9.0/24").replace("fd44:0:0:1::/64", "fd44:0:0:9::/64"))
        .unwrap();
    let facts = || fs::read_to_string(node.state_dir().join("node.json")).unwrap();
    eventually(SECOND, "the change", || facts().contains("10.244.9.0/24") && facts().contains("formerPodCidrs"));
    eventually(SECOND, "the route on the other node", || !ip(&lab.nodes[1].netns, "route").contains("10.244.1.0/24"));
    settle();
    for index in 0..2 {
        let to = |ip: IpAddr| SocketAddr::new(ip, PORT);
        let own = [IpAddr::from(node.address), node.address6.into()][index];
        assert_eq!(seen(&a.netns, &outside, to(addresses(OUTSIDE)[index])), Some(addresses(DOOR)[index]));
        // The other node has no route to the old prefix any more: as this node, the pod still gets its answers.
        assert_eq!(seen(&a.netns, &r.netns, to(r.addresses()[index])), Some(own));
    }
    // A new daemon still knows.
    node.stop_daemon().unwrap();
    node.start_daemon(&file).unwrap();
    settle();
    assert!(table(node).contains("10.244.1.0/24"));
    a.del(node).unwrap();
    fs::write(&file, fs::read_to_string(&file).unwrap()).unwrap();
    eventually(SECOND, "the old prefix goes with its last pod", || {
        !table(node).contains("10.244.1.0/24") && !facts().contains("formerPodCidrs")
    });
}
