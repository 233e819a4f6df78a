//! All the nodes and pods between which something is measured.

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    path::Path,
    peers::{self, netns},
    plan::Plan,
    rules::{self, SERVICE, ip},
    topology::Topology,
};
use crate::lab::{self, Lab, Node, Pod, Programs};

/// The labs, each with nodes of one kind.
const FAST: &str = "minicni-fast";
const CROWDED: &str = "minicni-crowded";
const ROUTED: &str = "minicni-routed";
const EMPTY: &str = "minicni-empty";
const FLOWTABLE: &str = "minicni-flowtable";
/// Nodes without netfilter, and whatever is no node of minicni's.
pub(super) const PLAIN: &str = "minicni-plain";

/// What could not be measured here.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Missing {
    pub(super) topology: Topology,
    pub(super) reason: String,
}

/// Everything, until it is dropped.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) paths: BTreeMap<Topology, Path>,
    pub(super) missing: Vec<Missing>,
    fast: Lab,
    crowded: Option<Lab>,
    _others: Vec<Lab>,
}

impl Scene {
    pub(super) fn new(plan: &Plan, programs: &Programs) -> Result<Self> {
        // The others are cleaned up where they are made; this one is not made in every run.
        lab::clean(CROWDED)?;
        let lab = |name, nodes| Lab::new(name, nodes, programs.clone());
        let (mut paths, mut missing) = (BTreeMap::new(), Vec::new());
        let mut fast = lab(FAST, 2)?;
        fast.start_daemons()?;
        two_nodes(&fast, &mut paths, [Topology::Minicni, Topology::Service, Topology::RemoteMinicni], Node::pod)?;

        let routed = lab(ROUTED, 2)?;
        let kinds = [Topology::Routed, Topology::ServiceRouted, Topology::RemoteRouted];
        two_nodes(&routed, &mut paths, kinds, routed_pod)?;
        let [one, other] = &routed.nodes[..] else { anyhow::bail!("the lab has not two nodes") };
        // As the daemon sets them on the others.
        for (node, peer) in [(one, other), (other, one)] {
            ip(&node.netns, &format!("route add {} via {}\n", peer.pod_cidr(), peer.address))?;
        }
        let hosts = Path::new(netns(&one.netns_name())?, netns(&other.netns_name())?, other.address);
        paths.insert(Topology::RemoteHosts, hosts);
        paths.insert(Topology::RemoteVxlan, vxlan(one, other)?);

        let bare = lab(PLAIN, 1)?;
        let node = &bare.nodes[0];
        rules::forward(&node.netns)?;
        paths.insert(Topology::Plain, between(&pair(node, routed_pod)?)?);
        paths.insert(Topology::RedirectPeer, peers::redirect_peer(node, &pair_named(node, ["c", "d"], routed_pod)?)?);
        paths.insert(Topology::Direct, peers::direct()?);
        paths.insert(Topology::Loopback, peers::loopback()?);
        paths.insert(Topology::Bridge, peers::bridge("filtered", true)?);
        paths.insert(Topology::BridgeAlone, peers::bridge("alone", false)?);

        let empty = lab(EMPTY, 1)?;
        let node = &empty.nodes[0];
        let pods = one_node(node, &mut paths, [Topology::Empty, Topology::ServiceEmpty], routed_pod)?;
        peers::empty_programs(node, &pods)?;
        let mut others = vec![routed, bare, empty];

        match flowtable(lab(FLOWTABLE, 1)?)? {
            Ok((lab, path)) => {
                others.push(lab);
                paths.insert(Topology::Flowtable, path);
            }
            Err(reason) => missing.push(Missing { topology: Topology::Flowtable, reason }),
        }
        let mut crowded = None;
        if plan.pods == 0 {
            missing.push(Missing { topology: Topology::Crowded, reason: "left out of a quick run".to_owned() });
        } else {
            let lab = lab(CROWDED, 1)?;
            paths.insert(Topology::Crowded, crowd(&lab, plan)?);
            crowded = Some(lab);
        }
        Ok(Self { paths, missing, fast, crowded, _others: others })
    }

    /// The node whose programs redirect the packets of [`Topology::Minicni`].
    pub(super) fn node(&self) -> &Node {
        &self.fast.nodes[0]
    }

    /// Packets that our programs have redirected there so far; none where there are no programs of ours.
    pub(super) fn redirected(&self, topology: Topology) -> Option<u64> {
        let nodes = match topology {
            Topology::Minicni | Topology::Service => &self.fast.nodes[..1],
            Topology::RemoteMinicni => &self.fast.nodes,
            Topology::Crowded => &self.crowded.as_ref()?.nodes,
            _ => return None,
        };
        Some(nodes.iter().map(|node| node.counters().redirected).sum())
    }
}

/// Pods on the first node, through a service there, and on both nodes.
fn two_nodes(
    lab: &Lab,
    paths: &mut BTreeMap<Topology, Path>,
    [local, service, remote]: [Topology; 3],
    pod: impl Fn(&Node, &str) -> Result<Pod>,
) -> Result<()> {
    let [one, other] = &lab.nodes[..] else { anyhow::bail!("the lab has not two nodes") };
    let [client, _, backend] = one_node(one, paths, [local, service], &pod)?;
    let far = pod(other, "far")?;
    rules::forward(&other.netns)?;
    rules::like_kube_proxy(&other.netns, backend.address()?)?;
    paths.insert(remote, between(&[&client, &far])?);
    Ok(())
}

/// Pods on one node: from the first to the second, and through a service to the third.
fn one_node(
    node: &Node,
    paths: &mut BTreeMap<Topology, Path>,
    [local, service]: [Topology; 2],
    pod: impl Fn(&Node, &str) -> Result<Pod>,
) -> Result<[Pod; 3]> {
    let [client, server] = pair(node, &pod)?;
    // Of its own: where a pod is spoken to by two addresses, conntrack translates the port of a flow whose tuple another
    // flow had within two minutes, and a translated flow is never promoted.
    let backend = pod(node, "backend")?;
    rules::forward(&node.netns)?;
    rules::like_kube_proxy(&node.netns, backend.address()?)?;
    paths.insert(local, between(&[&client, &server])?);
    paths.insert(service, between(&[&client, &backend])?.by(SERVICE));
    Ok([client, server, backend])
}

/// Two pods on a node with many others, and with many routes.
fn crowd(lab: &Lab, plan: &Plan) -> Result<Path> {
    let node = &lab.nodes[0];
    node.start_daemon(&lab.nodes_file())?;
    let pods = pair(node, Node::pod)?;
    eprintln!("making {} pods and {} routes", plan.pods, plan.routes);
    // The node's own prefix has room for half as many.
    for number in pods.len()..plan.pods {
        let mut pod = node.sandbox(&format!("pod{number}"))?;
        pod.config["name"] = json!("crowd");
        pod.config["subnet"] = json!("10.250.0.0/16");
        pod.add(node)?;
    }
    rules::like_kube_proxy(&node.netns, pods[1].address()?)?;
    let route = |number: usize| format!("route add 10.{}.{}.0/24 dev many\n", 100 + number / 250, number % 250);
    let routes: String = (0..plan.routes).map(route).collect();
    ip(&node.netns, &format!("link add many type veth peer name end\nlink set many up\n{routes}"))?;
    between(&pods)
}

/// Two pods with a flowtable, or why the kernel has none.
fn flowtable(lab: Lab) -> Result<Result<(Lab, Path), String>> {
    let node = &lab.nodes[0];
    rules::forward(&node.netns)?;
    let pods = pair(node, routed_pod)?;
    rules::like_kube_proxy(&node.netns, pods[1].address()?)?;
    if let Err(error) = rules::flowtable(&node.netns, [pods[0].host_interface()?, pods[1].host_interface()?]) {
        let line = error.to_string();
        return Ok(Err(format!("the kernel takes no flowtable: {}", line.lines().next().unwrap_or_default())));
    }
    let path = between(&pods)?;
    Ok(Ok((lab, path)))
}

/// Pods that reach each other through a tunnel, on nodes that have others too:
/// <https://github.com/flannel-io/flannel/blob/v0.27.0/pkg/backend/vxlan/vxlan_network.go>
fn vxlan(one: &Node, other: &Node) -> Result<Path> {
    let mac = |node: &Node| format!("02:00:00:00:03:{:02x}", node.number);
    let pod = |node: &Node| -> Result<Pod> {
        let mut pod = node.sandbox("vxlan")?;
        pod.config["name"] = json!("vxlan");
        pod.config["subnet"] = json!(format!("10.245.{}.0/24", node.number));
        // What VXLAN adds to a packet does not count as the pod's.
        pod.config["mtu"] = json!(1450);
        pod.config["datapath"] = json!("route");
        pod.add(node)?;
        Ok(pod)
    };
    for (node, peer) in [(one, other), (other, one)] {
        let (number, far, mac_of_far) = (node.number, peer.number, mac(peer));
        ip(
            &node.netns,
            &format!(
                "link add flannel.1 address {} mtu 1450 type vxlan id 1 local {} dev eth0 dstport 8472 nolearning\n\
                 addr add 10.245.{number}.0/32 dev flannel.1\n\
                 link set flannel.1 up\n\
                 neigh add 10.245.{far}.0 lladdr {mac_of_far} dev flannel.1 nud permanent\n\
                 route add 10.245.{far}.0/24 via 10.245.{far}.0 dev flannel.1 onlink\n",
                mac(node),
                node.address,
            ),
        )?;
        let mut bridge = std::process::Command::new("bridge");
        bridge.args(["-batch", "-"]);
        let line = format!("fdb append {mac_of_far} dev flannel.1 dst {} self permanent\n", peer.address);
        rules::feed(&node.netns, bridge, &line)?;
    }
    between(&[&pod(one)?, &pod(other)?])
}

/// A pod without our programs.
pub(in crate::bench) fn routed_pod(node: &Node, name: &str) -> Result<Pod> {
    let mut pod = node.sandbox(name)?;
    pod.config["datapath"] = json!("route");
    pod.add(node)?;
    Ok(pod)
}

pub(in crate::bench) fn pair(node: &Node, pod: impl Fn(&Node, &str) -> Result<Pod>) -> Result<[Pod; 2]> {
    pair_named(node, ["a", "b"], pod)
}

fn pair_named(node: &Node, names: [&str; 2], pod: impl Fn(&Node, &str) -> Result<Pod>) -> Result<[Pod; 2]> {
    Ok([pod(node, names[0])?, pod(node, names[1])?])
}

/// From the first pod to the second.
pub(in crate::bench) fn between<P: std::borrow::Borrow<Pod>>(pods: &[P; 2]) -> Result<Path> {
    let [client, server] = pods.each_ref().map(std::borrow::Borrow::borrow);
    let address: Ipv4Addr = server.address().context("the server's pod")?;
    Ok(Path::new(netns(&client.netns_name())?, netns(&server.netns_name())?, address))
}
