//! What others change behind the plugin's back, and what a later configuration says: pods that are there keep working.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use minicni::link::sysctl;
use serde_json::json;
use xtask::lab::{Families, Lab, Node, Pod, Programs};

use crate::{assert_nothing_left, give_addresses, leased};

fn lab(name: &str, families: Families) -> Lab {
    lab_of(name, 1, families)
}

/// With two nodes there is an uplink.
fn lab_of(name: &str, nodes: u8, families: Families) -> Lab {
    Lab::with_families(&format!("mniplugin-{name}"), nodes, Programs::beside_us().unwrap(), families).unwrap()
}

fn on_host(node: &Node, line: &str) -> String {
    node.run(Command::new("sh").args(["-c", line])).unwrap()
}

/// Whether a packet from `from` with a forged source arrives at `to`.
fn forged_arrives(from: &Pod, to: &Pod, source: &str, destination: &str) -> bool {
    let family = if source.contains(':') { "-6" } else { "-4" };
    let prefix = if source.contains(':') { "/128 nodad" } else { "/32" };
    let received = || {
        let text = xtask::command::output(Command::new("sh").args(["-c", "ip -s -j link show eth0"])).unwrap();
        let links: serde_json::Value = serde_json::from_str(&text).unwrap();
        links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    };
    let before = to.netns.run(received).unwrap();
    let line = format!(
        "ip {family} addr add {source}{prefix} dev eth0; ping {family} -c 5 -i 0.05 -W 1 -I {source} {destination}; \
         ip {family} addr del {source} dev eth0"
    );
    from.netns.run(|| Command::new("sh").args(["-c", &line]).output().unwrap()).unwrap();
    to.netns.run(received).unwrap() - before >= 5
}

#[test]
fn a_pod_that_was_wired_without_programs_passes_its_check_after_the_node_got_them() {
    let lab = lab_of("mode", 2, Families::V4);
    let node = &lab.nodes[0];
    let nodes_file = lab.nodes_file();
    node.start_daemon_with(&nodes_file, &["--datapath", "route"]).unwrap();
    let pod = node.pod("a").unwrap();
    assert!(pod.call(node, "CHECK").unwrap().ok);
    node.stop_daemon().unwrap();
    node.start_daemon_with(&nodes_file, &["--datapath", "ebpf"]).unwrap();
    let address = pod.address().unwrap().to_string();
    on_host(node, &format!("ping -c 1 -W 2 {address}"));
    let check = pod.call(node, "CHECK").unwrap();
    assert!(check.ok, "{check:?}");
}

#[test]
fn a_route_that_the_configuration_got_later_makes_no_older_pod_fail_its_check() {
    let lab = lab("later", Families::V4);
    let node = &lab.nodes[0];
    let mut pod = node.pod("a").unwrap();
    pod.config["routes"] = json!([{"dst": "10.9.0.0/16"}]);
    let check = pod.call(node, "CHECK").unwrap();
    assert!(check.ok, "{check:?}");
}

#[test]
fn pods_whose_programs_are_taken_away_still_cannot_forge_their_source() {
    let lab = lab_of("detached", 2, Families::V4);
    let node = &lab.nodes[0];
    let nodes_file = lab.nodes_file();
    node.start_daemon_with(&nodes_file, &["--datapath", "ebpf"]).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| node.pod(name).unwrap());
    let (b4, c4) = (b.address().unwrap().to_string(), c.address().unwrap().to_string());
    assert!(!forged_arrives(&a, &b, &c4, &b4), "with programs");
    node.stop_daemon().unwrap();
    node.start_daemon_with(&nodes_file, &["--datapath", "route"]).unwrap();
    assert!(!forged_arrives(&a, &b, &c4, &b4), "a speaks to {b4} as {c4}");
}

#[test]
fn a_call_that_hangs_while_it_deletes_devices_holds_no_other_up() {
    let lab = lab("hung", Families::V4);
    let node = &lab.nodes[0];
    let [a, b] = ["a", "b"].map(|name| node.pod(name).unwrap());
    // Waits for the kernel to give a device up, which it may do for ever ("waiting for … to become free").
    let lock = std::fs::File::create(node.state_dir().join("removal.lock")).unwrap();
    lock.lock().unwrap();
    thread::scope(|scope| {
        let start = Instant::now();
        let dels = scope.spawn(|| (a.call(node, "DEL").unwrap(), b.call(node, "DEL").unwrap()));
        while !dels.is_finished() && start.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(50));
        }
        let hangs = !dels.is_finished();
        lock.unlock().unwrap();
        let (one, other) = dels.join().unwrap();
        assert!(!hangs, "DEL waits for ever");
        assert!(one.ok && other.ok);
    });
    assert_nothing_left(node);
}

#[test]
fn a_host_that_switches_ipv6_off_by_default_has_it_on_the_interfaces_of_pods() {
    let lab = lab("default6", Families::Dual);
    let node = &lab.nodes[0];
    give_addresses(node);
    on_host(node, "sysctl -q -w net.ipv6.conf.default.disable_ipv6=1");
    let pod = node.pod("a").unwrap();
    on_host(node, &format!("ping -6 -c 1 -W 2 {}", pod.address6().unwrap()));
}

#[test]
fn an_interface_that_routes_already_is_not_made_to_listen_to_routers() {
    let lab = lab("routes", Families::Dual);
    let node = &lab.nodes[0];
    // A bridge of containers for which the host is the router: its advertisements were not listened to.
    on_host(node, "ip link add br7 type bridge && sysctl -q -w net.ipv6.conf.br7.forwarding=1");
    let _pod = node.pod("a").unwrap();
    let read = || sysctl::read("net/ipv6/conf/br7/accept_ra").unwrap();
    assert_eq!(node.netns.run(read).unwrap(), "1");
}

#[test]
fn an_add_loads_no_programs_where_the_daemon_was_told_to_do_without() {
    let lab = lab("without", Families::V4);
    let node = &lab.nodes[0];
    give_addresses(node);
    let nodes_file = lab.nodes_file();
    // The node's object comes later than the daemon, as with a node that just joined.
    let nodes = std::fs::read_to_string(&nodes_file).unwrap();
    std::fs::write(&nodes_file, nodes.replace("name: node1", "name: other")).unwrap();
    let mut daemon = node.minicnid("run");
    daemon.arg("--nodes").arg(&nodes_file).args(["--node-name", "node1", "--datapath", "route"]);
    let mut daemon = node.netns.run(|| daemon.spawn()).unwrap().unwrap();
    let start = Instant::now();
    while !node.state_dir().join("daemon.json").exists() && start.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(20));
    }
    let pod = node.sandbox("a").map(|mut pod| pod.add(node).map(|()| pod)).unwrap();
    let loaded = node.pins().open_programs().is_ok();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    pod.unwrap();
    assert!(!loaded, "the programs are loaded");
}

#[test]
fn a_node_whose_address_is_on_its_loopback_device_can_have_pods() {
    let lab = lab("loopback", Families::V4);
    let node = &lab.nodes[0];
    // As where the node tells its address to the network by BGP.
    give_addresses(node);
    node.start_daemon(&lab.nodes_file()).unwrap();
    let pod = node.pod("a").unwrap();
    assert_eq!(pod.result.unwrap()["interfaces"][1]["mtu"], 1500);
}

/// Makes many devices on a node, and gives the line that deletes them, for which the kernel's network lock is held
/// again and again.
fn many_devices(node: &Node, lab: &str) -> String {
    let batch = |what: &str, line: &dyn Fn(u32) -> String| {
        let file = xtask::lab::directory(lab).join(what);
        std::fs::write(&file, (0..400).map(line).collect::<String>()).unwrap();
        format!("ip -b {}", file.display())
    };
    on_host(node, &batch("add", &|number| format!("link add b{number} type bridge\n")));
    batch("delete", &|number| format!("link del b{number}\n"))
}

#[test]
fn a_pod_receives_over_ipv6_from_when_add_returns_however_many_devices_are_deleted_meanwhile() {
    let lab = lab("receives", Families::Dual);
    let node = &lab.nodes[0];
    // The first ADD looks at all devices of the node, which it cannot while they come and go.
    let _first = node.pod("first").unwrap();
    let delete = many_devices(node, "mniplugin-receives");
    let mut pods: Vec<Pod> = (0..20).map(|number| node.sandbox(&format!("p{number}")).unwrap()).collect();
    let deaf = thread::scope(|scope| {
        let deletion = scope.spawn(|| on_host(node, &delete));
        let add = |pod: &mut Pod| {
            pod.add(node).unwrap();
            let address = pod.address6().unwrap().into();
            let receives = || minicni::link::Socket::open().and_then(|mut socket| socket.is_local(address)).unwrap();
            !pod.netns.run(receives).unwrap()
        };
        let deaf = pods.iter_mut().map(add).filter(|deaf| *deaf).count();
        deletion.join().unwrap();
        deaf
    });
    assert_eq!(deaf, 0, "of {}", pods.len());
}

#[test]
fn a_clsact_qdisc_is_found_however_many_devices_are_deleted_meanwhile() {
    let lab = lab("qdiscs", Families::V4);
    let node = &lab.nodes[0];
    let delete = many_devices(node, "mniplugin-qdiscs");
    let pods: Vec<Pod> = (0..10).map(|number| node.pod(&format!("p{number}")).unwrap()).collect();
    let missed = thread::scope(|scope| {
        let deletion = scope.spawn(|| on_host(node, &delete));
        let look = || {
            let mut socket = minicni::link::Socket::open().unwrap();
            let mut missed = 0;
            while !deletion.is_finished() {
                for pod in &pods {
                    let link = socket.link_by_name(pod.host_interface().unwrap()).unwrap().unwrap();
                    let hooks = socket.hook_qdisc(link.ifindex).unwrap();
                    missed +=
                        u32::from(hooks.is_none_or(|qdisc| qdisc.kind != "clsact" || qdisc.egress_block.is_none()));
                }
            }
            missed
        };
        node.netns.run(look).unwrap()
    });
    assert_eq!(missed, 0);
}

#[test]
fn nobody_in_another_namespace_takes_the_pods_for_dead() {
    let lab = lab_of("elsewhere", 2, Families::V4);
    let (node, elsewhere) = (&lab.nodes[0], &lab.nodes[1]);
    let mut pod = node.pod("a").unwrap();
    let address = pod.address().unwrap();
    pod.config["cni.dev/valid-attachments"] = json!(null);
    let gc = pod.call(elsewhere, "GC").unwrap();
    assert_eq!(leased(node), [address], "GC: {gc:?}");
    assert!(!gc.ok, "{gc:?}");
    let mut release = Command::new(node.minicnid("ipam").get_program());
    release.args(["ipam", "release", &address.to_string()]);
    release.arg("--state-dir").arg(node.state_dir()).arg("--bpf-dir").arg(node.bpf_dir());
    let output = elsewhere.netns.run(|| release.output().unwrap()).unwrap();
    assert_eq!(leased(node), [address], "release: {output:?}");
    assert!(!output.status.success(), "{output:?}");
    pod.del(node).unwrap();
    assert_nothing_left(node);
}

#[test]
fn an_mtu_that_the_configuration_got_later_makes_no_older_pod_fail_its_check() {
    let lab = lab("mtu", Families::Dual);
    let node = &lab.nodes[0];
    let mut pod = node.pod("a").unwrap();
    pod.config["mtu"] = json!(1200);
    let check = pod.call(node, "CHECK").unwrap();
    assert!(check.ok, "{check:?}");
}

#[test]
fn a_del_removes_a_device_that_was_renamed() {
    let lab = lab("renamed", Families::Dual);
    let node = &lab.nodes[0];
    let pod = node.pod("a").unwrap();
    on_host(node, &format!("ip link set {} name other0", pod.host_interface().unwrap()));
    pod.del(node).unwrap();
    assert_eq!(on_host(node, "ip -br link show type veth"), "");
    assert_nothing_left(node);
}

#[test]
fn no_pod_gets_the_address_of_a_node() {
    let lab = lab_of("covers", 2, Families::V4);
    let node = &lab.nodes[0];
    let nodes_file = lab.nodes_file();
    let nodes = std::fs::read_to_string(&nodes_file).unwrap();
    std::fs::write(&nodes_file, nodes.replace("10.244.1.0/24", "192.168.77.0/24")).unwrap();
    let mut daemon = node.minicnid("run");
    daemon.arg("--nodes").arg(&nodes_file).args(["--node-name", "node1"]);
    let mut daemon = node.netns.run(|| daemon.spawn()).unwrap().unwrap();
    let start = Instant::now();
    while !node.state_dir().join("daemon.json").exists() && start.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(20));
    }
    let pods: Vec<_> = ["a", "b"]
        .map(|name| {
            let mut pod = node.sandbox(name).unwrap();
            pod.config.as_object_mut().unwrap().remove("subnet");
            pod.call(node, "ADD").unwrap()
        })
        .into();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(pods.iter().all(|call| !call.ok), "{pods:?}");
}

#[test]
fn del_finds_the_lease_though_another_directory_of_the_configuration_is_wrong() {
    let lab = lab("directories", Families::V4);
    let node = &lab.nodes[0];
    let mut pod = node.pod("a").unwrap();
    pod.config["bpfDir"] = json!(1);
    let del = pod.call(node, "DEL").unwrap();
    assert!(del.ok, "{del:?}");
    assert_eq!(leased(node), [] as [std::net::IpAddr; 0]);
}
