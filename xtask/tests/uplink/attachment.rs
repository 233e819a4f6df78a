//! The programs on uplinks: attached, kept, replaced and taken off, beside those of others.

use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use minicni::{
    datapath::{Constants, Endpoints, OBJECT, Pins, attach_tcx, has_tcx, load},
    node::uplink,
};
use minicni_common::{Endpoint, EndpointKind};
use nix::{
    net::if_::if_nametoindex,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use xtask::lab::{
    self, Families, Lab, Node, UPLINK,
    traffic::{Client, Ending, Protocol},
};

use crate::{ip, lab, pair, redirected, to, wired};

/// How the programs are attached where nobody else is: TCX is there from Linux 6.6 on.
fn by_default() -> Value {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    json!(if version >= (6, 6) { "tcx" } else { "clsact" })
}

/// What `minicnid status` says of the uplinks.
fn uplinks(node: &Node) -> Vec<(String, Value)> {
    let mut command = node.minicnid("status");
    let output = node.netns.run(|| command.arg("--json").output().unwrap()).unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    let uplinks = status["uplinks"].as_array().unwrap();
    uplinks.iter().map(|uplink| (uplink["interface"].as_str().unwrap().into(), uplink["attached"].clone())).collect()
}

#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(5), "not within 5 s: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn tc(node: &Node, arguments: &str) -> String {
    node.run(Command::new("tc").args(arguments.split_whitespace())).unwrap()
}

/// Most of a conversation is redirected on the first node. A daemon that has just started may call the flows back meanwhile.
#[track_caller]
fn assert_fast(lab: &Lab, a: &lab::Pod, b: &lab::Pod) {
    eventually("900 of 1000 packets are redirected", || {
        let [count, _] = redirected(lab, || {
            let mut client = Client::connect(&a.netns, Protocol::Udp, to(b.address().unwrap())).unwrap();
            client.measure(500).unwrap();
            client.close().unwrap();
        });
        count > 900
    });
}

/// The daemon is ready a moment before it has attached the programs to the uplinks.
fn assert_attached(node: &Node, how: &Value) {
    eventually("eth0 is an uplink", || uplinks(node) == [("eth0".into(), how.clone())]);
}

fn restart(lab: &Lab, arguments: &[&str]) {
    lab.nodes[0].stop_daemon().unwrap();
    lab.nodes[0].start_daemon_with(&lab.nodes_file(), arguments).unwrap();
}

/// The programs of somebody else on both hooks of an uplink.
fn strangers(node: &Node) -> (Pins, u32) {
    let pins = Pins::new(&node.bpf_dir().with_file_name("strangers"));
    let constants = Constants::new(Duration::from_millis(4), Duration::from_secs(30), true);
    load(&pins, OBJECT, &constants, 0).unwrap();
    let ifindex = node.netns.run(|| if_nametoindex(UPLINK).unwrap()).unwrap();
    node.netns.run(|| assert!(attach_tcx(&pins, ifindex, UPLINK).unwrap())).unwrap();
    (pins, ifindex)
}

#[test]
fn the_programs_are_on_the_uplink_from_when_the_daemon_is_ready_and_stay_when_it_stops() {
    let lab = lab("stay", Families::V4);
    let (a, b, _server) = pair(&lab);
    assert_attached(&lab.nodes[0], &by_default());
    assert_fast(&lab, &a, &b);
    lab.nodes[0].stop_daemon().unwrap();
    assert_attached(&lab.nodes[0], &by_default());
    assert_fast(&lab, &a, &b);
    restart(&lab, &[]);
    assert_attached(&lab.nodes[0], &by_default());
    assert_fast(&lab, &a, &b);
}

#[test]
fn the_programs_of_others_survive_all_that_the_daemon_does() {
    let mut lab = wired("others", Families::V4);
    let (pins, ifindex) = strangers(&lab.nodes[0]);
    lab.start_daemons().unwrap();
    let theirs = |node: &Node| node.netns.run(|| has_tcx(&pins, ifindex, UPLINK).unwrap()).unwrap();
    assert!(theirs(&lab.nodes[0]));
    assert_attached(&lab.nodes[0], &by_default());
    restart(&lab, &[]);
    assert!(theirs(&lab.nodes[0]));
    restart(&lab, &["--datapath", "route"]);
    assert!(theirs(&lab.nodes[0]));
    assert_eq!(fs::read_dir(lab.nodes[0].pins().links()).unwrap().count(), 0);
    restart(&lab, &[]);
    lab.nodes[0].stop_daemon().unwrap();
    assert!(theirs(&lab.nodes[0]));
}

#[test]
fn beside_filters_in_a_clsact_qdisc_the_programs_run_behind_them_and_leave_them_alone() {
    let mut lab = wired("clsact", Families::V4);
    let filters =
        |node: &Node| ["ingress", "egress"].map(|hook| tc(node, &format!("filter show dev {UPLINK} {hook}"))).concat();
    let node = &lab.nodes[0];
    tc(node, &format!("qdisc replace dev {UPLINK} root pfifo"));
    tc(node, &format!("qdisc add dev {UPLINK} clsact"));
    for hook in ["ingress", "egress"] {
        tc(
            node,
            &format!("filter add dev {UPLINK} {hook} prio 7 protocol ip u32 match ip dport 4242 0xffff flowid 1:1"),
        );
    }
    let theirs = |shown: &str| shown.matches("match 00001092/0000ffff").count();
    let before = filters(node);
    assert!(theirs(&before) >= 2, "{before}");
    lab.start_daemons().unwrap();
    let (a, b, _server) = pair(&lab);
    assert_attached(&lab.nodes[0], &json!("clsact"));
    assert_fast(&lab, &a, &b);
    for arguments in [&[][..], &["--datapath", "route"], &[]] {
        restart(&lab, arguments);
        let ours = if arguments.is_empty() { 2 } else { 0 };
        eventually("what is ours is as it should be", || filters(&lab.nodes[0]).matches("minicni").count() == ours);
        let now = filters(&lab.nodes[0]);
        assert_eq!(theirs(&now), theirs(&before), "{now}");
        if !arguments.is_empty() {
            assert_eq!(now, before);
        }
    }
    assert_fast(&lab, &a, &b);
    let qdiscs = tc(&lab.nodes[0], &format!("qdisc show dev {UPLINK}"));
    assert!(qdiscs.contains("pfifo") && qdiscs.contains("clsact"), "{qdiscs}");
}

#[test]
fn what_a_program_of_others_before_ours_drops_is_dropped_of_promoted_flows_too_and_at_once() {
    let mut lab = wired("drops", Families::V4);
    let (theirs, ifindex) = strangers(&lab.nodes[0]);
    // Where packets leave they would take off the tag that ours look for.
    let links = fs::read_dir(theirs.links()).unwrap().map(|link| link.unwrap().path());
    let leaving: Vec<_> = links.filter(|link| link.to_str().unwrap().contains("egress")).collect();
    assert_eq!(leaving.len(), 1);
    fs::remove_file(&leaving[0]).unwrap();
    lab.start_daemons().unwrap();
    let (a, b, _server) = pair(&lab);
    assert_attached(&lab.nodes[0], &by_default());
    assert_fast(&lab, &a, &b);
    let mut client = Client::connect(&a.netns, Protocol::Udp, to(b.address().unwrap())).unwrap();
    let [count, _] = redirected(&lab, || assert!(client.measure(500).is_ok()));
    assert!(count > 900, "{count}");
    // They drop what enters there: to them it is a pod, which does not send with this MAC address.
    let pod = Endpoint {
        kind: EndpointKind::Pod as u32,
        flags: 0,
        ipv4: [0; 4],
        mac: [0; 6],
        reserved: [0; 2],
        ipv6: [0; 16],
    };
    Endpoints::open(&theirs).unwrap().insert(ifindex, &pod).unwrap();
    let [count, _] = redirected(&lab, || assert!(client.exchange(b"x").is_err()));
    assert_eq!(count, 1, "the request, and no answer");
    Endpoints::open(&theirs).unwrap().remove(ifindex).unwrap();
    client.exchange(b"x").unwrap();
}

#[test]
fn an_uplink_that_is_made_anew_or_renamed_is_attached_again() {
    let lab = lab("anew", Families::V4);
    let (one, other) = (&lab.nodes[0], &lab.nodes[1]);
    let (a, b, server) = pair(&lab);
    assert_fast(&lab, &a, &b);
    ip(one, &format!("link set {UPLINK} down"));
    ip(one, &format!("link set {UPLINK} name wan0"));
    ip(one, "link set wan0 up");
    eventually("the new name is shown", || uplinks(one) == [("wan0".into(), by_default())]);
    eventually("the route is back", || ip(one, "route show").contains("10.244.2.0/24 via 192.168.77.2 dev wan0"));
    assert_fast(&lab, &a, &b);
    ip(one, "link del wan0");
    eventually("no uplink is left", || uplinks(one).is_empty() && uplinks(other).is_empty());
    assert_eq!(fs::read_dir(one.pins().links()).unwrap().count(), 0);
    let names = (one.netns_name(), other.netns_name());
    ip(one, &format!("link add {UPLINK} netns {} type veth peer name {UPLINK} netns {}", names.0, names.1));
    for node in [one, other] {
        ip(node, &format!("address add {}/24 dev {UPLINK}", node.address));
        ip(node, &format!("link set {UPLINK} up"));
    }
    eventually("both are uplinks again", || {
        [one, other].iter().all(|node| uplinks(node) == [("eth0".into(), by_default())])
    });
    eventually("the routes are back", || {
        [one, other].iter().all(|node| ip(node, "route show").contains("dev eth0 proto 109"))
    });
    assert_fast(&lab, &a, &b);
    drop(server);
}

#[test]
fn route_mode_takes_the_programs_off_and_the_next_start_brings_them_back() {
    let lab = lab("route", Families::V4);
    let (a, b, _server) = pair(&lab);
    restart(&lab, &["--datapath", "route"]);
    let node = &lab.nodes[0];
    assert!(node.netns.run(|| uplink::found(&node.pins()).unwrap()).unwrap().is_empty());
    let [count, _] = redirected(&lab, || {
        Client::connect(&a.netns, Protocol::Udp, to(b.address().unwrap())).unwrap().measure(200).map(drop).unwrap();
    });
    assert_eq!(count, 0);
    restart(&lab, &[]);
    assert_attached(node, &by_default());
}

#[test]
fn a_daemon_that_cannot_load_its_programs_leaves_none_of_an_older_one_that_nobody_looks_after() {
    let lab = lab("fallback", Families::V4);
    let (a, b, _server) = pair(&lab);
    let node = &lab.nodes[0];
    assert_attached(node, &by_default());
    // The pin of a program that is loaded gets this name first.
    let in_the_way = node.pins().program("ingress-new");
    fs::create_dir(&in_the_way).unwrap();
    restart(&lab, &[]);
    let status = || {
        let mut command = node.minicnid("status");
        String::from_utf8(node.netns.run(|| command.output().unwrap()).unwrap().stdout).unwrap()
    };
    eventually("status says so", || status().contains("no eBPF fast path"));
    assert!(!status().contains("older programs"), "{}", status());
    assert!(node.netns.run(|| uplink::found(&node.pins()).unwrap()).unwrap().is_empty());
    let before = node.counters();
    Client::connect(&a.netns, Protocol::Udp, to(b.address().unwrap())).unwrap().measure(200).map(drop).unwrap();
    assert_eq!(node.counters(), before);
    fs::remove_dir(&in_the_way).unwrap();
    restart(&lab, &[]);
    assert_attached(node, &by_default());
    assert_fast(&lab, &a, &b);
}

#[test]
fn what_a_plugin_of_another_layout_took_over_is_taken_back_within_seconds() {
    let lab = lab("layout", Families::V4);
    let (a, b, _server) = pair(&lab);
    let node = &lab.nodes[0];
    assert_attached(node, &by_default());
    assert_fast(&lab, &a, &b);
    // As if it had loaded its programs, taken over the pods, and removed what it found.
    let (ours, theirs) = (node.pins().dir().to_owned(), node.pins().dir().with_file_name("v0"));
    fs::rename(&ours, &theirs).unwrap();
    let start = Instant::now();
    while theirs.exists() {
        assert!(start.elapsed() < Duration::from_secs(10), "the pins of another layout are there yet");
        thread::sleep(Duration::from_millis(100));
    }
    assert_attached(node, &by_default());
    assert_fast(&lab, &a, &b);
    let endpoints = Endpoints::open(&node.pins()).unwrap();
    let ifindex = node.netns.run(|| if_nametoindex(a.host_interface().unwrap()).unwrap()).unwrap();
    assert!(endpoints.get(ifindex).unwrap().is_some());
}

#[test]
fn an_upgrade_that_is_killed_anywhere_loses_no_packet_and_is_finished_by_the_next_start() {
    const KILLS: u32 = 12;
    let lab = lab("upgrade", Families::V4);
    let (a, b, _server) = pair(&lab);
    let node = &lab.nodes[0];
    let (ours, theirs) = (node.pins().dir().to_owned(), node.pins().dir().with_file_name("v0"));
    let ifindex = node.netns.run(|| if_nametoindex(a.host_interface().unwrap()).unwrap()).unwrap();
    let age = || {
        node.stop_daemon().unwrap();
        fs::rename(&ours, &theirs).unwrap();
    };
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ending = Ending(&done);
        let mut client = Client::connect(&a.netns, Protocol::Udp, to(b.address().unwrap())).unwrap();
        scope.spawn({
            let done = &done;
            move || {
                while !done.load(Relaxed) {
                    client.exchange(b"one datagram, sent once").unwrap();
                    // What is asked of the kernel meanwhile gets its turn.
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        age();
        let start = Instant::now();
        node.start_daemon(&lab.nodes_file()).unwrap();
        assert_attached(node, &by_default());
        let whole = start.elapsed();
        for part in 1..=KILLS {
            age();
            let mut daemon = node.spawn(node.daemon(&lab.nodes_file())).unwrap();
            thread::sleep(whole * part / KILLS);
            daemon.kill().unwrap();
            daemon.wait().unwrap();
            node.start_daemon(&lab.nodes_file()).unwrap();
            assert!(!theirs.exists(), "killed after {part}/{KILLS}: the older pins are there");
            let endpoints = Endpoints::open(&node.pins()).unwrap();
            assert!(endpoints.get(ifindex).unwrap().is_some(), "killed after {part}/{KILLS}: the pod is unknown");
            assert_attached(node, &by_default());
            assert_fast(&lab, &a, &b);
        }
    });
}

#[test]
fn a_daemon_that_is_killed_and_started_again_under_load_loses_no_packet() {
    let lab = lab("load", Families::V4);
    let (a, b, _server) = pair(&lab);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let ending = Ending(&done);
        let clients = [Protocol::Tcp, Protocol::Udp].map(|protocol| {
            let mut client = Client::connect(&a.netns, protocol, to(b.address().unwrap())).unwrap();
            scope.spawn({
                let done = &done;
                move || {
                    let mut rounds = 0_u32;
                    while !done.load(Relaxed) {
                        client.exchange(b"one datagram, sent once").unwrap();
                        rounds += 1;
                    }
                    client.close().unwrap();
                    rounds
                }
            })
        });
        for _ in 0..4 {
            let pid = Pid::from_raw(lab.nodes[0].daemon_pid().unwrap());
            kill(pid, Signal::SIGKILL).unwrap();
            nix::sys::wait::waitpid(pid, None).unwrap();
            lab.nodes[0].start_daemon(&lab.nodes_file()).unwrap();
        }
        drop(ending);
        for client in clients {
            assert!(client.join().unwrap() > 1_000);
        }
    });
    assert_fast(&lab, &a, &b);
}
