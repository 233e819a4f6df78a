//! Programs of others that use the plugin: podman, containerd, and the plugins of the CNI project behind it. Needs root.

mod chain;
mod chained;
mod containerd;
mod cri;
mod podman;

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use minicni::{
    datapath::Endpoints,
    ipam::{LeaseState, Store},
    link::{RouteFilter, Socket},
    node::uplink::is_uplink,
    plugin::{ENDPOINT_ROUTE_PROTOCOL, HOST_PREFIX},
};
use serde_json::{Value, json};
use xtask::lab::{
    Lab, Node, Programs,
    runtime::{Host, image},
};

/// A lab with daemons, and the host of its first node, where the image is in `/tmp/image.tar`.
pub(crate) fn lab(name: &str, nodes: u8) -> (Lab, Host) {
    let programs = Programs::beside_us().unwrap();
    let mut lab = Lab::new(&format!("mniclient-{name}"), nodes, programs.clone()).unwrap();
    lab.start_daemons().unwrap();
    let host = Host::start(&lab.nodes[0], &programs).unwrap();
    image::write(&host.path("/tmp/image.tar")).unwrap();
    host.network(&conflist(&lab.nodes[0])).unwrap();
    (lab, host)
}

/// minicni, and what is usually chained behind it. Debian's plugins know no version 1.1.0.
pub(crate) fn conflist(node: &Node) -> Value {
    json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": [minicni(node), portmap(), firewall(), tuning()] })
}

pub(crate) fn minicni(node: &Node) -> Value {
    json!({
        "type": "minicni",
        "stateDir": node.state_dir(),
        "bpfDir": node.bpf_dir(),
        "subnet": node.pod_cidr(),
        // Who comes next gets the address of who went last.
        "cooldown": 0,
    })
}

pub(crate) fn portmap() -> Value {
    json!({ "type": "portmap", "capabilities": { "portMappings": true } })
}

pub(crate) fn firewall() -> Value {
    // Else it asks D-Bus for a firewalld.
    json!({ "type": "firewall", "backend": "iptables" })
}

pub(crate) fn tuning() -> Value {
    json!({ "type": "tuning", "sysctl": { "net.ipv4.ip_default_ttl": "61" }, "mtu": 1400 })
}

/// What a node has of pods: devices, routes, endpoint entries, leases, and rules of chained plugins.
pub(crate) fn residue(node: &Node) -> Vec<String> {
    let mut all = node
        .netns
        .run(|| {
            let mut socket = Socket::open().unwrap();
            let links = socket.links().unwrap().into_iter().map(|link| link.name);
            // The bandwidth plugin's devices begin with bwp.
            let links = links.filter(|name| name.starts_with(HOST_PREFIX) || name.starts_with("bwp"));
            let filter = RouteFilter { protocol: Some(ENDPOINT_ROUTE_PROTOCOL), ..Default::default() };
            let routes = socket.routes(filter).unwrap().into_iter().map(|route| format!("{route:?}"));
            links.chain(routes).collect::<Vec<_>>()
        })
        .unwrap();
    if let Ok(endpoints) = Endpoints::open(&node.pins()) {
        let pods = endpoints.all().unwrap().into_iter().filter(|(_, endpoint)| !is_uplink(endpoint));
        all.extend(pods.map(|endpoint| format!("{endpoint:?}")));
    }
    all.extend(leased(node).iter().map(|address| format!("lease of {address}")));
    let rules = node.run(&mut Command::new("iptables-save")).unwrap();
    // Chains for all containers stay; rules and chains of one container name its address or are called CNI-DN-….
    let of_pods = |line: &&str| line.contains("10.244.") || line.contains("CNI-DN-");
    all.extend(rules.lines().filter(of_pods).map(str::to_owned));
    all
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
pub(crate) fn assert_nothing_left(node: &Node) {
    assert_eq!(residue(node), Vec::<String>::new());
}

/// What libcni remembers of attachments on a host.
pub(crate) fn results(host: &Host) -> Vec<String> {
    let entries = std::fs::read_dir(host.path("/var/lib/cni/results")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// The shell command that asks for a file over HTTP. Debian's busybox crashes on `wget -T`.
pub(crate) fn wget(file: &str, from: impl Into<SocketAddr>) -> String {
    format!("timeout 5 wget -q -O - http://{}/{file}", from.into())
}

/// The shell command of a container that serves `/name`, and `/large` of 30 MB, on port 80.
pub(crate) fn httpd(name: &str) -> String {
    format!("echo {name} >/www/name; truncate -s 30M /www/large; exec httpd -f -p 80 -h /www")
}

/// The shell command of a container that waits for its own server, over its loopback.
pub(crate) const SERVES: &str =
    "timeout 20 sh -c 'until wget -q -O /dev/null http://127.0.0.1/name 2>/dev/null; do sleep 0.05; done'";

/// Packets redirected while something is done.
pub(crate) fn redirected(node: &Node, work: impl FnOnce()) -> u64 {
    let before = node.counters().redirected;
    work();
    node.counters().redirected - before
}

pub(crate) const HTTP: u16 = 80;

pub(crate) fn address(text: &str) -> Ipv4Addr {
    text.trim().parse().unwrap_or_else(|_| panic!("{text:?} is no address"))
}
