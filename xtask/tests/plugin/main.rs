//! The plugin, executed as a runtime does it, in namespaces, without a daemon. Needs root.

mod add;
mod busy;
mod check;
mod churn;
mod del;
mod disturbed;
mod families;
mod requested;

use std::time::Duration;

use minicni::{
    datapath::Endpoints,
    ipam::{LeaseState, Store},
    link::Socket,
    plugin::HOST_PREFIX,
};
use xtask::lab::{Families, Lab, Node, Pod, Programs};

pub(crate) fn lab(name: &str) -> Lab {
    lab_with(name, Families::V4)
}

pub(crate) fn lab_with(name: &str, families: Families) -> Lab {
    Lab::with_families(&format!("mniplugin-{name}"), 1, Programs::beside_us().unwrap(), families).unwrap()
}

/// Gives a node without neighbours the addresses that it would have on its uplink.
pub(crate) fn give_addresses(node: &Node) {
    let line = "ip addr add 192.168.77.1/32 dev lo && ip addr add fd77:77::1/128 dev lo";
    node.run(std::process::Command::new("sh").args(["-c", line])).unwrap();
}

/// What a node has of its pods: devices, routes, endpoint entries, leased addresses.
pub(crate) fn residue(node: &Node) -> (Vec<String>, usize, usize, usize) {
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

pub(crate) fn leased(node: &Node) -> Vec<std::net::IpAddr> {
    let dir = node.state_dir().join("ipam/pods");
    if !dir.exists() {
        return Vec::new();
    }
    let store = Store::open(&dir, &minicni::node::boot_id().unwrap(), Duration::ZERO).unwrap();
    let leases = store.list().unwrap().into_iter();
    leases.filter(|lease| matches!(lease.state, LeaseState::Leased { .. })).map(|lease| lease.address).collect()
}

#[track_caller]
pub(crate) fn assert_nothing_left(node: &Node) {
    assert_eq!(residue(node), (vec![], 0, 0, 0));
}

/// ADD fails with this code and these words, and leaves nothing.
#[track_caller]
pub(crate) fn assert_refused(node: &Node, pod: &Pod, variables: &[(&str, &str)], code: u64, words: &[&str]) {
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

/// Runs the plugin under strace, which holds it up or kills it at a system call.
pub(crate) fn under_strace(node: &Node, pod: &Pod, command: &str, inject: &str) -> std::process::Child {
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
