//! What minicni is measured beside, where it is not minicni without its programs.

use std::{
    net::Ipv4Addr,
    os::fd::AsFd as _,
    path::{Path as FilePath, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use minicni::link::{self, Netns, Socket, block_filter, clsact, neighbour, sysctl};
use nix::net::if_::if_nametoindex;
use serde_json::json;

use super::{
    bpf,
    path::Path,
    rules::{self, ip},
    scene::PLAIN,
};
use crate::lab::{Node, Pod, directory};

/// Where Debian's containernetworking-plugins are.
const PLUGINS: &str = "/usr/lib/cni";
/// The plugin that pods are attached with beside ours.
pub(super) const BRIDGE: &str = "/usr/lib/cni/bridge";
/// A pod's interface.
const INTERFACE: &str = "eth0";

/// Opens a namespace by its name.
pub(super) fn netns(name: &str) -> Result<Netns> {
    Ok(Netns::open(file(name))?)
}

fn file(name: &str) -> PathBuf {
    FilePath::new("/run/netns").join(name)
}

/// Makes a namespace that goes with the lab of that name.
fn new_netns(name: &str) -> Result<(Netns, PathBuf)> {
    let path = file(&format!("{PLAIN}-{name}"));
    Ok((Netns::create_named(&path)?, path))
}

/// Two namespaces at the ends of one veth pair.
pub(super) fn direct() -> Result<Path> {
    let ((client, _), (server, path)) = (new_netns("direct-a")?, new_netns("direct-b")?);
    let addressed = |host| format!("addr add 10.251.0.{host}/24 dev {INTERFACE}\nlink set {INTERFACE} up\n");
    let name = path.file_name().context("a namespace has a name")?.to_string_lossy();
    let pair = format!("link add {INTERFACE} type veth peer name {INTERFACE} netns {name}\n");
    ip(&client, &format!("{pair}{}", addressed(1)))?;
    ip(&server, &addressed(2))?;
    Ok(Path::new(client, server, Ipv4Addr::new(10, 251, 0, 2)))
}

/// One namespace.
pub(super) fn loopback() -> Result<Path> {
    let (client, path) = new_netns("loopback")?;
    Ok(Path::new(client, Netns::open(path)?, Ipv4Addr::LOCALHOST))
}

/// Two pods of the bridge plugin, on a node of their own.
pub(super) fn bridge(name: &str, filtered: bool) -> Result<Path> {
    let (node, _) = new_netns(name)?;
    rules::forward(&node)?;
    node.run(|| sysctl::write("net/bridge/bridge-nf-call-iptables", if filtered { "1" } else { "0" }))?
        .context("br_netfilter, which Kubernetes asks for beside a bridge")?;
    let attach = |pod: &str| -> Result<(Netns, Ipv4Addr)> {
        let id = format!("{name}-{pod}");
        let (netns, path) = new_netns(&id)?;
        let config = json!({
            "cniVersion": "1.0.0", "name": name, "type": "bridge", "bridge": "cni0", "isDefaultGateway": true,
            "ipam": {
                "type": "host-local", "ranges": [[{ "subnet": "10.252.0.0/24" }]],
                "dataDir": directory(PLAIN).join("host-local"),
            },
        });
        let mut plugin = Command::new(BRIDGE);
        plugin.env_clear().env("CNI_NETNS", path).envs([
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", id.as_str()),
            ("CNI_IFNAME", INTERFACE),
            ("CNI_PATH", PLUGINS),
        ]);
        rules::feed(&node, plugin, &config.to_string())?;
        let addresses = netns.run(|| -> Result<_> { Ok(Socket::open()?.addresses(if_nametoindex(INTERFACE)?)?) })??;
        let v4 = addresses.iter().find_map(|prefix| match prefix {
            ipnet::IpNet::V4(prefix) => Some(prefix.addr()),
            ipnet::IpNet::V6(_) => None,
        });
        Ok((netns, v4.context("the bridge plugin gave no address")?))
    };
    let ((client, _), (server, address)) = (attach("a")?, attach("b")?);
    rules::like_kube_proxy(&node, address)?;
    Ok(Path::new(client, server, address))
}

/// Makes each of two pods' interfaces redirect whatever enters to the other pod. Nothing is looked up, rewritten or
/// counted: no fast path can do less, and none that does so little is right.
pub(super) fn redirect_peer(node: &Node, pods: &[Pod; 2]) -> Result<Path> {
    for (this, other, block) in [(&pods[0], &pods[1], 1), (&pods[1], &pods[0], 3)] {
        let mac = other.netns.run(|| link::mac_of(INTERFACE))??.context("a pod has no interface")?;
        // Instead of the gateway's, so that the other pod takes what reaches it as it is.
        this.netns.run(|| -> Result<()> {
            let (mut socket, ifindex) = (Socket::open()?, if_nametoindex(INTERFACE)?);
            let gateways = socket.neighbours(ifindex)?;
            socket.batch(gateways.iter().map(|entry| neighbour(ifindex, entry.address, mac)).collect())?;
            Ok(())
        })??;
        node.netns.run(|| -> Result<()> {
            let index = |pod: &Pod| -> Result<u32> { Ok(if_nametoindex(pod.host_interface()?)?) };
            let program = bpf::redirect_peer(index(other)?)?;
            let filter = block_filter(block, program.as_fd(), "redirect_peer", false);
            Ok(Socket::open()?.batch(vec![clsact(index(this)?, block, block + 1), filter])?)
        })??;
    }
    Ok(Path::new(netns(&pods[0].netns_name())?, netns(&pods[1].netns_name())?, pods[1].address()?))
}
