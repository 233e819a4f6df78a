//! What containerd's CRI sends to a plugin in a pod's life, as it was recorded from a kubelet's pod.

use std::{fs, thread};

use anyhow::Result;
use minicni::link::Netns;
use serde_json::Value;
use xtask::lab::{
    Lab, Node, Programs,
    traffic::{Client, Protocol, Server},
};

use super::{HTTP, assert_nothing_left, chain::execute, minicni};

/// A call as it was recorded: the variables, an empty line, stdin.
fn recorded(file: &str) -> (Vec<(String, String)>, Value) {
    let dir = xtask::command::root().join("minicni-user/tests/data/cni/calls");
    let text = fs::read_to_string(dir.join(file)).unwrap();
    let (variables, stdin) = text.split_once("\n\n").unwrap();
    let variables = variables.lines().map(|line| line.split_once('=').unwrap());
    (variables.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(), serde_json::from_str(stdin).unwrap())
}

/// Repeats a recorded call, with our plugin in the place of the bridge.
fn replay(node: &Node, netns: &str, result: Option<&Value>, file: &str) -> Result<Option<Value>> {
    let (variables, mut config) = recorded(file);
    let variables: Vec<_> = variables
        .iter()
        .map(|(key, value)| (key.as_str(), if key == "CNI_NETNS" && !value.is_empty() { netns } else { value }))
        .collect();
    if config["type"] == "bridge" {
        for (key, value) in minicni(node).as_object().unwrap() {
            config[key] = value.clone();
        }
    }
    if config.get("prevResult").is_some() {
        config["prevResult"] = result.unwrap().clone();
    }
    execute(node, &variables, &config)
}

#[test]
fn what_the_cri_sends_in_a_pods_life_leaves_nothing() {
    let mut lab = Lab::new("mniclient-cri", 2, Programs::beside_us().unwrap()).unwrap();
    lab.start_daemons().unwrap();
    let [node, other] = lab.nodes.as_slice() else { panic!("two nodes") };
    for _ in 0..2 {
        let pod = node.sandbox("pod").unwrap();
        let netns = pod.path.to_string_lossy();
        let result = replay(node, &netns, None, "containerd-1.6-add.txt").unwrap().unwrap();
        let result = replay(node, &netns, Some(&result), "containerd-1.6-add-chained.txt").unwrap().unwrap();
        {
            let _server = Server::start(&pod.netns, HTTP).unwrap();
            let port = (node.address, 8080).into();
            Client::connect(&other.netns, Protocol::Tcp, port).unwrap().measure(100).unwrap();
        }
        replay(node, &netns, Some(&result), "containerd-1.6-del-chained.txt").unwrap();
        replay(node, &netns, Some(&result), "containerd-1.6-del.txt").unwrap();
        assert_nothing_left(node);
        // Two of the later ones overlap.
        for overlapping in [1, 2, 1] {
            thread::scope(|scope| {
                for _ in 0..overlapping {
                    scope.spawn(|| {
                        let portmap = replay(node, "", None, "containerd-1.6-del-chained-late.txt");
                        // Two of these at once may fail each other; containerd then comes again.
                        assert!(portmap.is_ok() || overlapping > 1, "{portmap:?}");
                        replay(node, "", None, "containerd-1.6-del-late.txt").unwrap();
                    });
                }
            });
        }
        assert_nothing_left(node);
        Netns::delete_named(&pod.path).unwrap();
    }
}
