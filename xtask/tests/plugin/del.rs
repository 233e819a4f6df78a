//! DEL and GC: whatever is left, they remove.

use std::{thread, time::Duration};

use minicni::link::Netns;
use serde_json::json;

use crate::{assert_nothing_left, lab, residue, under_strace};

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

#[test]
fn an_add_that_cannot_clean_up_after_itself_keeps_the_lease_for_del() {
    let lab = lab("left");
    let node = &lab.nodes[0];
    node.pod("first").unwrap().del(node).unwrap();
    let pod = node.sandbox("a").unwrap();
    // The pair is made; after that the kernel hears nothing more.
    let mut add = under_strace(node, &pod, "ADD", "sendto:error=EIO:when=2+");
    assert!(!add.wait().unwrap().success());
    let (devices, _, _, leases) = residue(node);
    assert_eq!((devices.len(), leases), (1, 1));
    pod.del(node).unwrap();
    assert_nothing_left(node);
}
