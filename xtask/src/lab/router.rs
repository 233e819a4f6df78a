//! A router between nodes.

use std::process::Command;

use anyhow::Result;
use minicni::link::{Netns, sysctl};

use super::{Families, Node, UPLINK, netns_path};

/// The router's own addresses, the same on every wire.
const ADDRESSES: [&str; 2] = ["192.168.77.254", "fd77:77::fe"];

/// A namespace that forwards between the uplinks of nodes, and knows nothing of pods. Its wire to `node1` is `wire1`.
pub(super) fn between(lab: &str, nodes: &[Node]) -> Result<Netns> {
    let name = format!("{lab}-router");
    let netns = Netns::create_named(netns_path(&name))?;
    netns.run(|| -> Result<()> {
        sysctl::write("net/ipv4/ip_forward", "1")?;
        if nodes.iter().any(|node| node.families != Families::V4) {
            // Nobody else has its link-local addresses; it asks for neighbours at once.
            sysctl::write("net/ipv6/conf/default/accept_dad", "0")?;
            sysctl::write("net/ipv6/conf/all/forwarding", "1")?;
        }
        ip("link set lo up")
    })??;
    for node in nodes {
        let wire = format!("wire{}", node.number);
        netns.run(|| ip(&format!("link add {wire} type veth peer name {UPLINK} netns {}", node.netns_name())))??;
        let families = node
            .families
            .select((ADDRESSES[0], node.address.to_string(), 32), (ADDRESSES[1], node.address6.to_string(), 128));
        node.netns.run(|| -> Result<()> {
            if node.families != Families::V4 {
                sysctl::write(&sysctl::device_key("ipv6", UPLINK, "accept_dad")?, "0")?;
            }
            ip(&format!("link set {UPLINK} up"))
        })??;
        netns.run(|| ip(&format!("link set {wire} up")))??;
        for (router, node_address, length) in families {
            netns.run(|| -> Result<()> {
                ip(&format!("address add {router}/{length} dev {wire}{}", nodad(length)))?;
                ip(&format!("route add {node_address}/{length} dev {wire}"))
            })??;
            node.netns.run(|| -> Result<()> {
                ip(&format!("address add {node_address}/{length} dev {UPLINK}{}", nodad(length)))?;
                let family = if length == 32 { "-4" } else { "-6" };
                ip(&format!("{family} route add default via {router} dev {UPLINK} onlink"))
            })??;
        }
    }
    Ok(netns)
}

fn nodad(length: u8) -> &'static str {
    if length == 128 { " nodad" } else { "" }
}

/// Runs `ip` in the thread's namespace.
fn ip(arguments: &str) -> Result<()> {
    crate::command::run(Command::new("ip").args(arguments.split_whitespace()))
}
