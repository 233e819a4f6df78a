use std::{
    fs,
    process::{Command, Output},
    time::Duration,
};

use minicni::datapath::{Constants, OBJECT, Pins, attach_tcx, has_tcx, load};
use nix::net::if_::if_nametoindex;
use xtask::lab::{Lab, Node, UPLINK};

use super::{CONFLIST, Runtime, assert_reaches, eventually, lab, names};

fn uninstall(node: &Node, runtime: &Runtime, arguments: &[&str]) -> Output {
    let mut command = node.minicnid("uninstall");
    command.args(runtime.options()).args(arguments);
    node.netns.run(|| command.output().unwrap()).unwrap()
}

pub(super) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// Everything that minicni could leave on a node, as text. Not the kernel's settings, which stay.
fn everything(node: &Node, runtime: &Runtime) -> String {
    let show = |line: &str| {
        let mut words = line.split(' ');
        node.run(Command::new(words.next().unwrap()).args(words)).unwrap()
    };
    let files = |directory| if fs::exists(directory).unwrap() { names(directory) } else { Vec::new() };
    format!(
        "{}\n{}\n{}\n{}\n{}\n{}\n{:?} {:?} {:?} {:?}",
        show("ip -br link").lines().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>().join(" "),
        show("ip route"),
        show("ip -6 route"),
        show("tc qdisc"),
        show("nft list ruleset"),
        show("iptables-legacy-save"),
        names(&runtime.bin),
        names(&runtime.conf),
        files(&node.state_dir()),
        files(&node.bpf_dir()),
    )
}

fn two(name: &str) -> (Lab, Runtime, String) {
    let mut lab = lab(name);
    let runtime = Runtime::new(&lab.nodes[0]);
    let before = everything(&lab.nodes[0], &runtime);
    lab.start_daemons().unwrap();
    lab.nodes[0].stop_daemon().unwrap();
    runtime.start(&lab, &lab.nodes[0]);
    eventually("the configuration is written", || runtime.conflist().exists());
    (lab, runtime, before)
}

#[test]
fn nothing_is_left_of_minicni_and_a_second_time_there_is_nothing_to_do() {
    let (lab, runtime, before) = two("nothing");
    let node = &lab.nodes[0];
    let (a, b) = (node.pod("a").unwrap(), lab.nodes[1].pod("b").unwrap());
    assert_reaches(&a, &b);
    a.del(node).unwrap();
    drop(a);
    let refused = uninstall(node, &runtime, &[]);
    assert!(!refused.status.success() && said(&refused).contains("minicnid runs here"), "{}", said(&refused));
    assert!(runtime.conflist().exists());
    node.stop_daemon().unwrap();
    let full = everything(node, &runtime);
    let dry = uninstall(node, &runtime, &["--dry-run"]);
    assert!(!dry.status.success() && said(&dry).contains("would remove the route 10.244.2.0/24"), "{}", said(&dry));
    assert_eq!(everything(node, &runtime), full);
    let done = uninstall(node, &runtime, &[]);
    assert!(done.status.success(), "{}", said(&done));
    let log = said(&done);
    let pins = format!("/{}", minicni_common::names::LAYOUT_VERSION);
    for thing in
        [CONFLIST, "the route 10.244.2.0/24", "the programs of interface", &pins, "node.json", "opt-cni-bin/minicni"]
    {
        assert!(log.contains(thing), "{thing:?} is not in {log}");
    }
    assert_eq!(everything(node, &runtime), before);
    let again = uninstall(node, &runtime, &[]);
    assert!(again.status.success() && said(&again).is_empty(), "{}", said(&again));
}

#[test]
fn the_tunnel_goes_with_the_routes_that_lead_through_it() {
    let (lab, runtime, before) = two("tunnel");
    let node = &lab.nodes[0];
    node.stop_daemon().unwrap();
    let options = [&runtime.options()[..], &["--encapsulation", "always"]].concat();
    node.start_daemon_with(&lab.nodes_file(), &options).unwrap();
    let through = || node.run(Command::new("ip").args(["route", "show", "dev", "minicni-vxlan"])).unwrap();
    eventually("the route leads through the tunnel", || through().contains("10.244.2.0/24"));
    node.stop_daemon().unwrap();
    let done = uninstall(node, &runtime, &[]);
    let log = said(&done);
    assert!(done.status.success(), "{log}");
    for thing in ["removed the route 10.244.2.0/24", "removed the device minicni-vxlan"] {
        assert!(log.contains(thing), "{thing:?} is not in {log}");
    }
    assert_eq!(everything(node, &runtime), before);
}

#[test]
fn living_pods_keep_their_network_and_no_new_ones_come() {
    let (lab, runtime, before) = two("living");
    let node = &lab.nodes[0];
    let (a, b, c) = (node.pod("a").unwrap(), lab.nodes[1].pod("b").unwrap(), node.pod("c").unwrap());
    node.stop_daemon().unwrap();
    let output = uninstall(node, &runtime, &[]);
    let log = said(&output);
    assert!(!output.status.success() && log.contains("demo/a") && log.contains("demo/c"), "{log}");
    assert_eq!(names(&runtime.conf), [""; 0]);
    for (from, to) in [(&a, &b), (&b, &a), (&a, &c)] {
        assert_reaches(from, to);
    }
    assert!(a.call(node, "CHECK").unwrap().ok);
    // Their DELs find what they need, and then the rest can go.
    a.del(node).unwrap();
    c.del(node).unwrap();
    drop((a, c));
    assert!(uninstall(node, &runtime, &[]).status.success());
    assert_eq!(everything(node, &runtime), before);
}

#[test]
fn with_force_pods_are_detached_and_nothing_is_left() {
    let (lab, runtime, before) = two("force");
    let node = &lab.nodes[0];
    let _a = node.pod("a").unwrap();
    node.stop_daemon().unwrap();
    let output = uninstall(node, &runtime, &["--force"]);
    let log = said(&output);
    assert!(output.status.success() && log.contains("removed the network of pod demo/a"), "{log}");
    assert_eq!(everything(node, &runtime), before);
}

#[test]
fn what_is_not_ours_stays_and_what_fails_does_not_keep_the_rest() {
    let (lab, runtime, _) = two("theirs");
    let node = &lab.nodes[0];
    node.stop_daemon().unwrap();
    node.run(Command::new("ip").args("route add 10.9.0.0/24 via 192.168.77.2".split(' '))).unwrap();
    fs::write(runtime.conflist(), r#"{"name": "theirs", "plugins": [{"type": "bridge"}]}"#).unwrap();
    fs::write(node.state_dir().join("theirs"), "").unwrap();
    fs::create_dir(node.bpf_dir().join("theirs")).unwrap();
    // It cannot be unlinked.
    fs::remove_file(runtime.plugin()).unwrap();
    fs::create_dir(runtime.plugin()).unwrap();
    let mount = ["--bind".as_ref(), runtime.bin.as_os_str(), runtime.plugin().as_os_str()].map(ToOwned::to_owned);
    xtask::command::run(Command::new("mount").args(&mount)).unwrap();
    let output = uninstall(node, &runtime, &[]);
    xtask::command::run(Command::new("umount").arg(runtime.plugin())).unwrap();
    let log = said(&output);
    assert!(!output.status.success() && log.contains("minicnid: remove"), "{log}");
    assert_eq!(names(&runtime.conf), [CONFLIST]);
    assert_eq!(names(&node.state_dir()), ["theirs"]);
    assert_eq!(names(&node.bpf_dir()), ["theirs"]);
    assert_eq!(node.run(Command::new("ip").args(["route", "show", "proto", "109"])).unwrap(), "");
    assert!(node.run(Command::new("ip").args(["route", "show"])).unwrap().contains("10.9.0.0/24"));
}

fn tc(node: &Node, arguments: &str) -> String {
    node.run(Command::new("tc").args(arguments.split_whitespace())).unwrap()
}

/// The filters of the uplink, whoever they belong to.
fn filters(node: &Node) -> String {
    ["ingress", "egress"].map(|hook| tc(node, &format!("filter show dev {UPLINK} {hook}"))).concat()
}

#[test]
fn filters_and_qdiscs_of_others_on_the_uplink_survive_the_removal() {
    let mut lab = lab("filters");
    let runtime = Runtime::new(&lab.nodes[0]);
    let node = &lab.nodes[0];
    tc(node, &format!("qdisc replace dev {UPLINK} root pfifo"));
    tc(node, &format!("qdisc add dev {UPLINK} clsact"));
    for hook in ["ingress", "egress"] {
        tc(
            node,
            &format!("filter add dev {UPLINK} {hook} prio 7 protocol ip u32 match ip dport 4242 0xffff flowid 1:1"),
        );
    }
    let before = (everything(node, &runtime), filters(node));
    lab.start_daemons().unwrap();
    let node = &lab.nodes[0];
    node.stop_daemon().unwrap();
    runtime.start(&lab, node);
    eventually("our programs are beside theirs", || filters(node).matches(" bpf ").count() >= 2);
    node.stop_daemon().unwrap();
    let output = uninstall(node, &runtime, &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!((everything(node, &runtime), filters(node)), before);
}

#[test]
fn tcx_programs_of_others_on_the_uplink_survive_the_removal() {
    let (lab, runtime, before) = two("tcx");
    let node = &lab.nodes[0];
    let pins = Pins::new(&node.bpf_dir().with_file_name("strangers"));
    let constants = Constants::new(Duration::from_millis(4), Duration::from_secs(30), true);
    load(&pins, OBJECT, &constants, 0).unwrap();
    let ifindex = node.netns.run(|| if_nametoindex(UPLINK).unwrap()).unwrap();
    node.netns.run(|| assert!(attach_tcx(&pins, ifindex, UPLINK).unwrap())).unwrap();
    let has = |pins: &Pins| node.netns.run(|| has_tcx(pins, ifindex, UPLINK).unwrap()).unwrap();
    assert!(has(&node.pins()));
    node.stop_daemon().unwrap();
    let output = uninstall(node, &runtime, &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(has(&pins));
    assert_eq!(everything(node, &runtime), before);
    assert!(!node.bpf_dir().exists());
}
