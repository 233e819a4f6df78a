//! `minicnid ipam` on a node with pods that come and go, some without a DEL. Needs root.

use std::{fs, net::IpAddr, process::Command, thread, time::Duration};

use minicni::{
    datapath::Endpoints,
    ipam::{Owner, Range, RangeSet, Store},
    link::{Netns, Socket},
};
use serde_json::Value;
use xtask::lab::{Lab, Node, Programs};

fn lab(name: &str) -> Lab {
    Lab::new(&format!("mniipam-{name}"), 1, Programs::beside_us().unwrap()).unwrap()
}

/// `minicnid ipam …` on a node: whether it succeeded, what it printed, and what it complained of.
fn ipam(node: &Node, line: &str) -> (bool, String, String) {
    let mut words = line.split(' ');
    let mut command = Command::new(node.minicnid("ipam").get_program());
    command.arg("ipam").arg(words.next().unwrap());
    command.arg("--state-dir").arg(node.state_dir()).arg("--bpf-dir").arg(node.bpf_dir()).args(words);
    let output = node.netns.run(|| command.output().unwrap()).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().trim_end().to_owned();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn assert_prints(node: &Node, line: &str, words: &str) {
    let (ok, printed, complaint) = ipam(node, line);
    assert!(ok && complaint.is_empty() && printed.contains(words), "{line}: {printed} {complaint}");
}

#[track_caller]
fn assert_fails(node: &Node, line: &str, words: &[&str]) {
    let (ok, printed, complaint) = ipam(node, line);
    assert!(!ok, "{line}: {printed}");
    for word in words {
        assert!(printed.contains(word) || complaint.contains(word), "{line}: {word:?} is not in {printed}{complaint}");
    }
}

fn list(node: &Node) -> Value {
    serde_json::from_str(&ipam(node, "list --json").1).unwrap()
}

/// A pod's namespace ends, no DEL comes, and that was long ago.
fn dies_unnoticed(node: &Node, pod: xtask::lab::Pod) {
    let (path, device) = (pod.path.clone(), pod.host_interface().unwrap().to_owned());
    let lease = node.state_dir().join(format!("ipam/pods/leases/{}", pod.address().unwrap()));
    drop(pod);
    Netns::delete_named(&path).unwrap();
    // The kernel takes namespaces down in its own time.
    for _ in 0..500 {
        let link = node.netns.run(|| Socket::open().unwrap().link_by_name(&device).unwrap()).unwrap();
        if link.is_none() {
            let mut text: Value = serde_json::from_slice(&fs::read(&lease).unwrap()).unwrap();
            text["since"] = 1.into();
            fs::write(&lease, text.to_string()).unwrap();
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{device} is still there");
}

#[test]
fn the_list_has_every_lease_with_its_holder_and_device() {
    let lab = lab("list");
    let node = &lab.nodes[0];
    assert_prints(node, "list", "No leases.");
    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    b.del(node).unwrap();
    assert_prints(node, "list", "a-0123456789  eth0       demo/a");
    let all = list(node);
    assert_eq!(all.as_array().unwrap().len(), 2);
    let first = &all[0];
    for (key, value) in [
        ("address", Value::from(a.address().unwrap().to_string())),
        ("network", "pods".into()),
        ("state", "leased".into()),
        ("containerId", a.container_id().into()),
        ("ifname", "eth0".into()),
        ("pod", "demo/a".into()),
        ("device", a.host_interface().unwrap().into()),
        ("devicePresent", true.into()),
    ] {
        assert_eq!(first[key], value, "{first}");
    }
    assert!(first["ageSeconds"].as_u64().is_some_and(|age| age < 60));
    assert_eq!((&all[1]["state"], &all[1]["containerId"]), (&"cooling".into(), &Value::Null));
    fs::write(node.state_dir().join(format!("ipam/pods/leases/{}", a.address().unwrap())), "{").unwrap();
    let damaged = &list(node)[0];
    assert_eq!((&damaged["state"], &damaged["containerId"]), (&"unreadable".into(), &a.container_id().into()));
    assert_fails(node, "list --network other", &["network other has no leases", "those of: pods"]);
}

#[test]
fn check_finds_what_a_pod_left_behind_and_release_removes_it() {
    let lab = lab("check");
    let node = &lab.nodes[0];
    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    assert_prints(node, "check", "2 leases, nothing is wrong");
    let address = b.address().unwrap().to_string();
    dies_unnoticed(node, b);
    let gone = format!("{address} of network pods: demo/b (b-0123456789:eth0) holds it, and its device mni");
    assert_fails(node, "check", &[&gone, &format!("minicnid ipam release {address} --network pods")]);
    let report: Value = serde_json::from_str(&ipam(node, "check --json").1).unwrap();
    assert_eq!((&report["leases"], report["differences"].as_array().unwrap().len()), (&2.into(), 1));
    assert_eq!(Endpoints::open(&node.pins()).unwrap().all().unwrap().len(), 2);

    let released = format!("released {address} of network pods, which demo/b (b-0123456789:eth0) held");
    assert_prints(node, &format!("release {address}"), &released);
    assert_eq!(Endpoints::open(&node.pins()).unwrap().all().unwrap().len(), 1);
    assert_prints(node, "check", "1 lease, nothing is wrong");
    let again = format!("nobody holds {address}");
    assert_fails(node, &format!("release {address}"), &[&again, "searched", ": pods (in pods it was released already"]);

    node.run(Command::new("ip").args(["route", "del", &a.address().unwrap().to_string(), "proto", "110"])).unwrap();
    assert_fails(node, "check", &["has no route on the host", "ip route add"]);
    let lease = node.state_dir().join(format!("ipam/pods/leases/{}", a.address().unwrap()));
    fs::remove_file(&lease).unwrap();
    assert_fails(node, "check", &["leads to demo/a, which has no lease"]);
}

#[test]
fn an_address_in_use_is_released_by_force_only_and_the_pod_is_detached() {
    let lab = lab("force");
    let node = &lab.nodes[0];
    let pod = node.pod("a").unwrap();
    let address = pod.address().unwrap();
    let device = pod.host_interface().unwrap();
    assert_fails(node, &format!("release {address}"), &["is in use", "demo/a (a-0123456789:eth0)", device, "--force"]);
    assert!(pod.call(node, "CHECK").unwrap().ok, "what was refused changed nothing");
    assert_prints(node, &format!("release {address} --force"), "released");
    assert!(node.netns.run(|| Socket::open().unwrap().link_by_name(device).unwrap()).unwrap().is_none());
    assert_prints(node, "check", "0 leases, nothing is wrong");
    pod.del(node).unwrap();
}

#[test]
fn a_damaged_lease_can_be_released_whoever_claims_it() {
    let lab = lab("damaged");
    let node = &lab.nodes[0];
    let pod = node.pod("a").unwrap();
    let address = pod.address().unwrap();
    let leases = node.state_dir().join("ipam/pods/leases");
    dies_unnoticed(node, pod);
    fs::write(leases.join(address.to_string()), "{").unwrap();
    assert_fails(node, "check", &["its lease cannot be read", "a-0123456789:eth0 claims it"]);
    assert_prints(node, &format!("release {address}"), "which a-0123456789:eth0 held");
    fs::write(leases.join("10.244.1.200"), "").unwrap();
    assert_prints(node, "release 10.244.1.200", "which nobody held");
    assert_prints(node, "check", "0 leases, nothing is wrong");
}

#[test]
fn an_address_of_two_networks_is_released_in_the_one_that_is_named() {
    let lab = lab("networks");
    let node = &lab.nodes[0];
    let pod = node.pod("a").unwrap();
    let address = IpAddr::V4(pod.address().unwrap());
    let other = node.state_dir().join("ipam/other");
    let store = Store::open(&other, &minicni::node::boot_id().unwrap(), Duration::from_secs(1)).unwrap();
    let range = Range::new(node.pod_cidr(), Some(address), Some(address), None).unwrap();
    let set = RangeSet::new(vec![range]).unwrap();
    store.allocate(&Owner::new("gone", "eth0").unwrap(), None, &[set], &[]).unwrap();
    assert_fails(node, &format!("release {address}"), &["is leased in the networks other, pods", "--network"]);
    assert_prints(node, &format!("release {address} --network other"), "of network other, which gone:eth0 held");
    assert!(pod.call(node, "CHECK").unwrap().ok);
    assert_fails(node, "release 10.9.9.9", &["nobody holds 10.9.9.9", "other, pods"]);
    assert_fails(node, "release 10.9.9.9 --network third", &["network third has no leases", "other, pods"]);
    assert_fails(node, "release somewhere", &["invalid IP address"]);
}
