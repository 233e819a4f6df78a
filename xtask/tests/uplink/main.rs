//! The fast path to other nodes and other hosts, with real traffic through real uplinks. Needs root.

mod attachment;
mod routing;
mod traffic;

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
};

use xtask::lab::{Families, Lab, Node, Pod, Programs, traffic::Server};

const PORT: u16 = 8080;

/// Two nodes without daemons.
fn wired(name: &str, families: Families) -> Lab {
    Lab::with_families(&format!("mniuplink-{name}"), 2, Programs::beside_us().unwrap(), families).unwrap()
}

fn lab(name: &str, families: Families) -> Lab {
    let mut lab = wired(name, families);
    lab.start_daemons().unwrap();
    lab
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

/// Packets redirected on each node while something is done.
fn redirected(lab: &Lab, work: impl FnOnce()) -> [u64; 2] {
    let count = || [0, 1].map(|index: usize| lab.nodes[index].counters().redirected);
    let before = count();
    work();
    let after = count();
    [0, 1].map(|index: usize| after[index] - before[index])
}
