//! Pods of nodes that are not on one network, through the tunnel, with real traffic. Needs root.

mod disturbed;
mod forged;
mod modes;
mod sizes;
mod traffic;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use minicni::link::Netns;
use xtask::lab::{Families, Lab, Node, Pod, Programs, traffic::Server};

const PORT: u16 = 8080;
const DEVICE: &str = "minicni-vxlan";
/// How long a daemon may take to mend what somebody broke.
const LIMIT: Duration = Duration::from_secs(1);

/// Two nodes behind a router, without daemons.
fn apart(name: &str, families: Families) -> Lab {
    Lab::routed(&format!("mnitunnel-{name}"), Programs::beside_us().unwrap(), families).unwrap()
}

/// Two nodes on one wire, without daemons.
fn wired(name: &str, families: Families) -> Lab {
    Lab::with_families(&format!("mnitunnel-{name}"), 2, Programs::beside_us().unwrap(), families).unwrap()
}

fn start(lab: &Lab, arguments: &[&str]) {
    let nodes = lab.nodes_file();
    lab.nodes.iter().for_each(|node| node.start_daemon_with(&nodes, arguments).unwrap());
    settle(lab);
}

fn restart(lab: &Lab, arguments: &[&str]) {
    lab.nodes.iter().for_each(|node| node.stop_daemon().unwrap());
    start(lab, arguments);
}

/// Waits until every node has its routes, which come with the first pass, as `node.json` does.
fn settle(lab: &Lab) {
    for node in &lab.nodes {
        let wanted = node.pod_cidrs().len();
        wait(LIMIT * 5, "the routes", || (our_routes(node).lines().count() == wanted).then_some(()));
    }
}

/// A pod on each node, of which the second answers.
fn pair(lab: &Lab) -> (Pod, Pod, Server) {
    let (a, b) = (lab.nodes[0].pod("a").unwrap(), lab.nodes[1].pod("b").unwrap());
    let server = Server::start(&b.netns, PORT).unwrap();
    (a, b, server)
}

fn to(address: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(address.into(), PORT)
}

fn ip(node: &Node, arguments: &str) -> String {
    node.run(Command::new("ip").args(arguments.split_whitespace())).unwrap()
}

fn our_routes(node: &Node) -> String {
    [ip(node, "-4 route show proto 109"), ip(node, "-6 route show proto 109")].join("\n").trim().to_owned()
}

fn nft(netns: &Netns, script: &str) {
    netns.run(|| xtask::command::run(Command::new("nft").arg(script))).unwrap().unwrap();
}

/// The router drops whatever bears a pod's address, as clouds do with addresses that are not their own.
fn drop_pod_addresses(lab: &Lab) {
    nft(
        lab.router.as_ref().unwrap(),
        "table inet cloud { chain forward { type filter hook forward priority filter; \
         ip saddr 10.244.0.0/16 drop; ip daddr 10.244.0.0/16 drop; \
         ip6 saddr fd44::/16 drop; ip6 daddr fd44::/16 drop; }; }",
    );
}

/// Waits for something to come true.
#[track_caller]
fn wait<T>(limit: Duration, what: &str, mut is_there: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = is_there() {
            return value;
        }
        assert!(start.elapsed() < limit, "{what} is not there after {limit:?}");
        sleep(Duration::from_millis(10));
    }
}

/// The MTU for pods that the daemon wrote.
fn pod_mtu(node: &Node) -> Option<u64> {
    let text = fs::read_to_string(node.state_dir().join("node.json")).ok()?;
    serde_json::from_str::<serde_json::Value>(&text).ok()?["mtu"].as_u64()
}

/// Packets redirected on each node while something is done.
fn redirected(lab: &Lab, work: impl FnOnce()) -> [u64; 2] {
    let count = || [0, 1].map(|index: usize| lab.nodes[index].counters().redirected);
    let before = count();
    work();
    let after = count();
    [0, 1].map(|index: usize| after[index] - before[index])
}

/// A counter of the kernel's, such as `UdpInCsumErrors`.
fn counter(netns: &Netns, name: &str) -> u64 {
    let shown = netns.run(|| xtask::command::output(Command::new("nstat").args(["-asz", name]))).unwrap().unwrap();
    let value = shown.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_whitespace().nth(1));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no counter {name}: {shown}"))
}
