//! What minicni is measured beside, where it is not minicni without its programs.
//!
//! Another peer is one file: it makes two pods and the way between them, and says in a [`Peer`] what it is called and
//! what is measured with it. Its `mod` and [`ALL`] here name it; the tables, the plots and the JSON do the rest.

mod ptp;

use std::{
    net::Ipv4Addr,
    os::fd::AsFd as _,
    path::{Path as FilePath, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use minicni::link::{self, Netns, Socket, block_filter, clsact, neighbour, sysctl};
use nix::net::if_::if_nametoindex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    bpf,
    path::Path,
    rules::{self, ip},
    scene::PLAIN,
    workload::Workload,
};
use crate::lab::{Node, Pod, directory};

/// Where Debian's containernetworking-plugins are.
const PLUGINS: &str = "/usr/lib/cni";
/// The plugin that pods are attached with beside ours.
pub(super) const BRIDGE: &str = "/usr/lib/cni/bridge";
/// A pod's interface.
pub(super) const INTERFACE: &str = "eth0";

/// Something else that wires two pods.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its name in JSON.
    pub(super) id: &'static str,
    /// Its name in the tables.
    pub(super) name: &'static str,
    /// What is measured.
    pub(super) workloads: &'static [Workload],
    /// Makes the pods. Its namespaces are of [`new_netns`], so that they go with the lab. An error is shown as the reason
    /// why there are no figures.
    pub(super) make: fn() -> Result<Path>,
}

/// All of them.
const ALL: [Peer; 1] = [ptp::PEER];

/// One of [`ALL`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct PeerId(usize);

impl PeerId {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..ALL.len()).map(Self)
    }

    pub(super) fn peer(self) -> &'static Peer {
        &ALL[self.0]
    }
}

impl From<PeerId> for String {
    fn from(id: PeerId) -> Self {
        id.peer().id.to_owned()
    }
}

impl TryFrom<String> for PeerId {
    type Error = String;

    fn try_from(id: String) -> Result<Self, String> {
        Self::all().find(|it| it.peer().id == id).ok_or_else(|| format!("there is no peer {id:?}"))
    }
}

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
    attached(&node, name, &json!({ "type": "bridge", "bridge": "cni0", "isDefaultGateway": true }))
}

/// Two pods of a plugin with host-local, on a node with kube-proxy's rules.
fn attached(node: &Netns, name: &str, config: &Value) -> Result<Path> {
    let mut config = config.clone();
    config["cniVersion"] = json!("1.0.0");
    config["name"] = json!(name);
    config["ipam"]["type"] = json!("host-local");
    config["ipam"]["ranges"] = json!([[{ "subnet": "10.252.0.0/24" }]]);
    config["ipam"]["dataDir"] = json!(directory(PLAIN).join("host-local"));
    let program = FilePath::new(PLUGINS).join(config["type"].as_str().context("the plugin has no name")?);
    let attach = |pod: &str| -> Result<(Netns, Ipv4Addr)> {
        let id = format!("{name}-{pod}");
        let (netns, path) = new_netns(&id)?;
        let mut plugin = Command::new(&program);
        plugin.env_clear().env("CNI_NETNS", path).envs([
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", id.as_str()),
            ("CNI_IFNAME", INTERFACE),
            ("CNI_PATH", PLUGINS),
        ]);
        rules::feed(node, plugin, &config.to_string())?;
        let addresses = netns.run(|| -> Result<_> { Ok(Socket::open()?.addresses(if_nametoindex(INTERFACE)?)?) })??;
        let v4 = addresses.iter().find_map(|prefix| match prefix {
            ipnet::IpNet::V4(prefix) => Some(prefix.addr()),
            ipnet::IpNet::V6(_) => None,
        });
        Ok((netns, v4.context("the plugin gave no address")?))
    };
    let ((client, _), (server, address)) = (attach("a")?, attach("b")?);
    rules::like_kube_proxy(node, address)?;
    Ok(Path::new(client, server, address))
}

/// Puts an empty program wherever one of ours would stand: at both hooks of each pod's interface, in blocks that they share.
pub(super) fn empty_programs(node: &Node, pods: &[Pod]) -> Result<()> {
    const BLOCKS: [u32; 2] = [1, 2];
    node.netns.run(|| -> Result<()> {
        let program = bpf::empty()?;
        let mut requests = Vec::new();
        for pod in pods {
            requests.push(clsact(if_nametoindex(pod.host_interface()?)?, BLOCKS[0], BLOCKS[1]));
        }
        requests.extend(BLOCKS.map(|block| block_filter(block, program.as_fd(), "empty", false)));
        Ok(Socket::open()?.batch(requests)?)
    })?
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_is_read_again_by_the_name_that_is_written() {
        for id in PeerId::all() {
            let text = serde_json::to_string(&id).unwrap();
            assert_eq!(serde_json::from_str::<PeerId>(&text).unwrap(), id, "{text}");
        }
        assert!(serde_json::from_str::<PeerId>("\"nobody\"").is_err());
    }
}
