//! The daemon on two nodes: routes, restarts, bad input. Needs root.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use minicni::link::{RouteFilter, Socket};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use xtask::lab::{
    self, Lab, Node, Programs,
    traffic::{Client, Protocol, Server},
};

const PORT: u16 = 7000;
/// How soon a route that somebody deleted is back.
const SECOND: Duration = Duration::from_secs(1);

fn lab(name: &str) -> Lab {
    let mut lab = Lab::new(&format!("mnidaemon-{name}"), 2, Programs::beside_us().unwrap()).unwrap();
    lab.start_daemons().unwrap();
    lab
}

fn to(pod: &lab::Pod) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(pod.address().unwrap()), PORT)
}

#[track_caller]
fn assert_reaches(from: &lab::Pod, to: SocketAddr) {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut client = Client::connect(&from.netns, protocol, to).unwrap();
        client.measure(20).unwrap();
        client.close().unwrap();
    }
}

/// Destinations of the daemon's routes on a node.
fn routes(node: &Node) -> Vec<String> {
    let filter = RouteFilter { protocol: Some(minicni::daemon::plan::ROUTE_PROTOCOL), ifindex: None };
    let routes = node.netns.run(|| Socket::open().unwrap().routes(filter).unwrap()).unwrap();
    routes.into_iter().map(|route| route.destination.to_string()).collect()
}

/// Waits until something holds.
#[track_caller]
fn eventually(limit: Duration, what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// `minicnid status --json`; it ends with a failure where something is wrong, which is no reason not to read it.
fn status(node: &Node) -> Value {
    let mut command = node.minicnid("status");
    let output = node.netns.run(|| command.arg("--json").output().unwrap()).unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.success(), status["problems"].as_array().unwrap().is_empty());
    status
}

#[track_caller]
fn assert_all_is_well(node: &Node) {
    assert_eq!(status(node)["problems"], serde_json::json!([]));
}

#[test]
fn pods_of_two_nodes_reach_each_other_with_their_own_addresses() {
    let lab = lab("two");
    let (here, there) = (&lab.nodes[0], &lab.nodes[1]);
    let (a, b) = (here.pod("a").unwrap(), there.pod("b").unwrap());
    let _server = Server::start(&b.netns, PORT).unwrap();
    assert_reaches(&a, to(&b));

    let socket = b.netns.run(|| std::net::UdpSocket::bind(("0.0.0.0", 7001)).unwrap()).unwrap();
    socket.set_read_timeout(Some(SECOND)).unwrap();
    let client = a.netns.run(|| std::net::UdpSocket::bind(("0.0.0.0", 0)).unwrap()).unwrap();
    client.send_to(b"x", (b.address().unwrap(), 7001)).unwrap();
    let (_, from) = socket.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from.ip(), IpAddr::V4(a.address().unwrap()));

    assert_all_is_well(here);
    let status = status(there);
    assert_eq!(status["node"]["node"], "node2");
    assert_eq!(status["routes"][0]["destination"], "10.244.1.0/24");
    assert_eq!(status["endpoints"][0]["pod"], "demo/b");
    assert_eq!(status["endpoints"][0]["addresses"][0], b.address().unwrap().to_string());
}

#[test]
fn a_route_that_somebody_deletes_is_back_within_a_second_and_foreign_ones_stay() {
    let lab = lab("restore");
    let node = &lab.nodes[0];
    let ip = |line: &str| {
        node.run(Command::new("ip").args(line.split(' '))).unwrap();
    };
    ip("route add 10.9.0.0/24 via 192.168.77.2");
    for _ in 0..3 {
        ip("route del 10.244.2.0/24");
        eventually(SECOND, "the route is back", || routes(node) == ["10.244.2.0/24"]);
    }
    assert!(node.run(Command::new("ip").args(["route", "show", "10.9.0.0/24"])).unwrap().contains("10.9.0.0/24"));
    assert_all_is_well(node);
}

#[test]
fn a_malformed_file_of_nodes_keeps_the_last_good_one_and_says_what_is_wrong_and_where() {
    let lab = lab("malformed");
    let node = &lab.nodes[0];
    let good = fs::read_to_string(lab.nodes_file()).unwrap();
    let problem = |words: &str| {
        let problems = status(node)["problems"].to_string();
        problems.contains(words)
    };
    let bad = [
        ("not: [yaml", "nodes.yaml"),
        (&good.replace("10.244.2.0/24", "10.244.2.0/33"), "10.244.2.0/33"),
        (&good.replace("10.244.2.0/24", "10.244.1.0/25"), "10.244.1.0/25"),
        (&good.replace("192.168.77.2", "192.168.77.300"), "192.168.77.300"),
        (&good.replace("kind: Node", "kind: Pod"), "Pod"),
        (&good.replace("  name: node2", "  name: node1"), "node1"),
        ("", "nodes.yaml"),
    ];
    for (text, words) in bad {
        fs::write(lab.nodes_file(), text).unwrap();
        eventually(5 * SECOND, words, || problem(words));
        assert_eq!(routes(node), ["10.244.2.0/24"], "after {text:?}");
    }
    fs::remove_file(lab.nodes_file()).unwrap();
    eventually(5 * SECOND, "the file is missing", || problem("No such file"));
    assert_eq!(routes(node), ["10.244.2.0/24"]);
    let temporary = lab.nodes_file().with_extension("tmp");
    fs::write(&temporary, &good).unwrap();
    fs::rename(&temporary, lab.nodes_file()).unwrap();
    eventually(5 * SECOND, "all is well again", || status(node)["problems"] == serde_json::json!([]));
}

#[test]
fn nodes_come_and_go_with_the_file() {
    let lab = lab("come-and-go");
    let node = &lab.nodes[0];
    let two = fs::read_to_string(lab.nodes_file()).unwrap();
    let third = two.split("---\n").next().unwrap().replace("node1", "node3");
    let third = third.replace("10.244.1.0", "10.244.3.0").replace("192.168.77.1", "192.168.77.3");
    fs::write(lab.nodes_file(), format!("{two}---\n{third}")).unwrap();
    eventually(2 * SECOND, "node3 has a route", || routes(node).len() == 2);
    fs::write(lab.nodes_file(), two.split("---\n").next().unwrap()).unwrap();
    eventually(2 * SECOND, "no route is left", || routes(node).is_empty());
}

#[test]
fn without_the_daemon_the_network_stays_and_pods_still_come_and_go() {
    let lab = lab("stopped");
    let (here, there) = (&lab.nodes[0], &lab.nodes[1]);
    let (a, b) = (here.pod("a").unwrap(), there.pod("b").unwrap());
    let _server = Server::start(&b.netns, PORT).unwrap();
    for node in &lab.nodes {
        node.stop_daemon().unwrap();
    }
    assert_reaches(&a, to(&b));
    assert_eq!(routes(here), ["10.244.2.0/24"]);
    let c = here.pod("c").unwrap();
    assert_reaches(&c, to(&b));
    assert!(c.call(here, "CHECK").unwrap().ok);
    c.del(here).unwrap();
    assert!(status(here)["problems"].to_string().contains("minicnid does not run"));
}

#[test]
fn a_daemon_killed_and_started_again_replaces_the_programs_and_loses_no_packet() {
    let lab = lab("restart");
    let (a, b) = (lab.nodes[0].pod("a").unwrap(), lab.nodes[0].pod("b").unwrap());
    let _server = Server::start(&b.netns, PORT).unwrap();
    let programs = |lab: &Lab| lab.nodes[0].pins().open_programs().unwrap().ids();
    let (done, to) = (AtomicBool::new(false), to(&b));
    let before = programs(&lab);
    thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut client = Client::connect(&a.netns, Protocol::Udp, to).unwrap();
            let mut rounds = 0;
            while !done.load(Relaxed) {
                client.exchange(b"not one is lost").unwrap();
                rounds += 1;
            }
            rounds
        });
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(200));
            kill(Pid::from_raw(lab.nodes[0].daemon_pid().unwrap()), Signal::SIGKILL).unwrap();
            lab.nodes[0].stop_daemon().unwrap();
            let nodes = lab.nodes_file();
            lab.nodes[0].start_daemon(&nodes).unwrap();
        }
        done.store(true, Relaxed);
        assert!(traffic.join().unwrap() > 1_000);
    });
    assert_ne!(programs(&lab), before);
    assert_all_is_well(&lab.nodes[0]);
    assert!(a.call(&lab.nodes[0], "CHECK").unwrap().ok);
}

#[test]
fn a_second_daemon_for_the_same_state_is_refused() {
    let lab = lab("second");
    let node = &lab.nodes[0];
    let mut second = node.minicnid("run");
    second.arg("--nodes").arg(lab.nodes_file()).args(["--node-name", "node1"]);
    let output = node.netns.run(|| second.output().unwrap()).unwrap();
    assert!(!output.status.success());
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(log.contains("another minicnid runs"), "{log}");
}

#[test]
fn status_says_what_is_wrong() {
    let lab = lab("status");
    let node = &lab.nodes[0];
    let pod = node.pod("a").unwrap();
    let problems = |words: &str| {
        let problems = status(node)["problems"].to_string();
        assert!(problems.contains(words), "{words:?} is not in {problems}");
    };
    // It would put it back.
    node.stop_daemon().unwrap();
    node.run(Command::new("sysctl").args(["-qw", "net.ipv4.ip_forward=0"])).unwrap();
    problems("ip_forward");
    node.start_daemon(&lab.nodes_file()).unwrap();
    let host = pod.host_interface().unwrap().to_owned();
    node.run(Command::new("ip").args(["link", "del", &host])).unwrap();
    problems("is gone");
    pod.del(node).unwrap();
    assert_all_is_well(node);
}

#[test]
fn a_daemon_told_to_route_takes_the_programs_off_and_the_pods_still_talk() {
    let lab = lab("to-route");
    let nodes_file = lab.nodes_file();
    let (a, b) = (lab.nodes[0].pod("a").unwrap(), lab.nodes[0].pod("b").unwrap());
    let _server = Server::start(&b.netns, PORT).unwrap();
    assert_reaches(&a, to(&b));
    lab.nodes[0].stop_daemon().unwrap();
    lab.nodes[0].start_daemon_with(&nodes_file, &["--datapath", "route"]).unwrap();
    let before = lab.nodes[0].counters();
    assert_reaches(&a, to(&b));
    let c = lab.nodes[0].pod("c").unwrap();
    assert_reaches(&c, to(&b));
    assert_eq!(lab.nodes[0].counters(), before);
    assert_all_is_well(&lab.nodes[0]);
    for pod in [&a, &b, &c] {
        assert!(pod.call(&lab.nodes[0], "CHECK").unwrap().ok, "{:?}", pod.call(&lab.nodes[0], "CHECK"));
    }
}

/// Datagrams between two new pods, and how many packets of them were redirected.
fn redirected_between_new_pods(node: &Node) -> u64 {
    let (a, b) = (node.pod("new-a").unwrap(), node.pod("new-b").unwrap());
    let _server = Server::start(&b.netns, PORT).unwrap();
    let before = node.counters().redirected;
    Client::connect(&a.netns, Protocol::Udp, to(&b)).unwrap().measure(200).unwrap();
    node.counters().redirected - before
}

#[test]
fn a_daemon_that_cannot_load_its_programs_keeps_the_settings_and_loads_them_when_it_can() {
    let lab = Lab::new("mnidaemon-obstacle", 2, Programs::beside_us().unwrap()).unwrap();
    let nodes_file = lab.nodes_file();
    let words = [("auto", "datapath=route: "), ("ebpf", "the datapath could not be prepared again")];
    for (node, (datapath, _)) in lab.nodes.iter().zip(words) {
        node.start_daemon_with(&nodes_file, &["--datapath", datapath]).unwrap();
        // Where the pins were is something that nobody can make a directory of.
        fs::remove_dir_all(node.bpf_dir()).unwrap();
        std::os::unix::fs::symlink("nowhere", node.bpf_dir()).unwrap();
    }
    let forwarding = |node: &Node| node.run(Command::new("sysctl").args(["-n", "net.ipv4.ip_forward"])).unwrap();
    for (node, (_, words)) in lab.nodes.iter().zip(words) {
        eventually(5 * SECOND, words, || fs::read_to_string(node.log()).unwrap().contains(words));
        node.run(Command::new("sysctl").args(["-qw", "net.ipv4.ip_forward=0"])).unwrap();
        eventually(5 * SECOND, "forwarding is on again", || forwarding(node).trim() == "1");
        fs::remove_file(node.bpf_dir()).unwrap();
    }
    for (node, (datapath, _)) in lab.nodes.iter().zip(words) {
        eventually(40 * SECOND, "the programs are loaded", || node.pins().open_programs().is_ok());
        eventually(5 * SECOND, "all is well", || status(node)["problems"] == serde_json::json!([]));
        let redirected = redirected_between_new_pods(node);
        assert!(redirected > 300, "{datapath}: {redirected} packets were redirected");
    }
}

#[test]
fn an_uplink_that_is_down_for_a_moment_keeps_its_mtu_and_node_json_is_repaired() {
    let lab = lab("facts");
    let node = &lab.nodes[0];
    let facts = || fs::read_to_string(node.state_dir().join("node.json")).unwrap_or_default();
    let good = facts();
    assert!(good.contains("\"mtu\": 1500"));
    node.run(Command::new("ip").args(["link", "set", "eth0", "down"])).unwrap();
    eventually(2 * SECOND, "the daemon has noticed", || status(node)["problems"].to_string().contains("InternalIP"));
    assert_eq!(facts(), good);
    node.run(Command::new("ip").args(["link", "set", "eth0", "up"])).unwrap();
    fs::write(node.state_dir().join("node.json"), "{").unwrap();
    node.run(Command::new("ip").args(["route", "flush", "proto", "109"])).unwrap();
    eventually(2 * SECOND, "node.json is as it was", || facts() == good);
}

#[test]
fn the_programs_log_when_they_are_told_to() {
    let lab = Lab::new("mnidaemon-log", 1, Programs::beside_us().unwrap()).unwrap();
    let nodes_file = lab.nodes_file();
    lab.nodes[0].start_daemon_with(&nodes_file, &["--ebpf-log-level", "debug", "--log-level", "debug"]).unwrap();
    let (a, b) = (lab.nodes[0].pod("a").unwrap(), lab.nodes[0].pod("b").unwrap());
    let _server = Server::start(&b.netns, PORT).unwrap();
    assert_reaches(&a, to(&b));
    let log = || fs::read_to_string(lab.nodes[0].log()).unwrap();
    eventually(2 * SECOND, "the promotion is in the log", || log().contains("promoted: "));
}

#[test]
fn the_daemon_makes_the_settings_that_pods_need() {
    let lab = Lab::new("mnidaemon-settings", 2, Programs::beside_us().unwrap()).unwrap();
    let sysctl = |lab: &Lab, arguments: &[&str]| lab.nodes[0].run(Command::new("sysctl").args(arguments)).unwrap();
    sysctl(&lab, &["-qw", "net.ipv4.conf.eth0.rp_filter=1", "net.ipv4.ip_forward=0"]);
    let nodes_file = lab.nodes_file();
    lab.nodes[0].start_daemon(&nodes_file).unwrap();
    let names = [
        "net.ipv4.ip_forward",
        "net.ipv4.conf.eth0.rp_filter",
        "net.netfilter.nf_conntrack_tcp_be_liberal",
        "net.netfilter.nf_conntrack_tcp_ignore_invalid_rst",
    ];
    assert_eq!(sysctl(&lab, &[&["-n"], &names[..]].concat()), "1\n2\n1\n1");
}

#[test]
fn plugin_and_daemon_in_different_namespaces_refuse_to_work_and_say_why() {
    let lab = lab("elsewhere");
    let [one, other] = lab.nodes.as_slice() else { panic!("two nodes") };
    let pod = one.pod("a").unwrap();
    let call = one.sandbox("b").unwrap().call(other, "ADD").unwrap();
    let answer = call.answer.unwrap_or_default().to_string();
    assert!(!call.ok && answer.contains("hostNetwork: true"), "{answer}");
    one.stop_daemon().unwrap();
    let nodes = lab.nodes_file();
    let mut daemon = one.minicnid("run");
    daemon.arg("--nodes").arg(&nodes).args(["--node-name", "node1"]);
    let output = other.netns.run(|| daemon.output().unwrap()).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("hostNetwork: true"), "{said}");
    assert!(pod.call(one, "CHECK").unwrap().ok, "the pod lost something");
}

#[test]
fn every_option_of_the_daemon_may_come_from_the_environment() {
    let lab = Lab::new("mnidaemon-environment", 1, Programs::beside_us().unwrap()).unwrap();
    let node = &lab.nodes[0];
    let mut daemon = Command::new(node.minicnid("run").get_program());
    daemon.arg("run").envs([
        ("MINICNI_NODES", lab.nodes_file().as_os_str()),
        ("MINICNI_NODE_NAME", node.name.as_ref()),
        ("MINICNI_STATE_DIR", node.state_dir().as_os_str()),
        ("MINICNI_BPF_DIR", node.bpf_dir().as_os_str()),
        ("MINICNI_DATAPATH", "route".as_ref()),
        ("MINICNI_MTU", "1234".as_ref()),
        ("MINICNI_LOG_LEVEL", "error".as_ref()),
        ("MINICNI_EBPF_LOG_LEVEL", "off".as_ref()),
    ]);
    let mut daemon = node.netns.run(|| daemon.spawn().unwrap()).unwrap();
    eventually(5 * SECOND, "node.json is written", || status(node)["node"]["mtu"] == 1234);
    assert_eq!(status(node)["node"]["node"], "node1");
    assert!(status(node)["node"]["datapath"].to_string().contains("route"));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}
