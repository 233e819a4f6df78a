//! Daemons and nodes that go and come.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::{
    super::{
        bed::{Bed, wait},
        install,
        pods::{HTTP, Pod},
        requests::{Stream, ask},
    },
    deployment, services,
};
use crate::lab::traffic::Server;

/// Where connections that last lead.
const LASTING: u16 = 7002;

/// The daemon of every node is replaced while pods talk: direct, between nodes and through a Service.
pub(super) fn restart(bed: &mut Bed) -> Result<String> {
    let four = bed.four()?;
    let netns = || four[0][0].netns(bed.machine(&four[0][0].node)?);
    let service = services::of_one(bed, "restart", &four[1][1], false, &netns()?)?;
    let targets = [
        SocketAddr::new(four[0][1].address(false)?, HTTP),
        SocketAddr::new(four[1][1].address(false)?, HTTP),
        SocketAddr::new(four[1][1].address(true)?, HTTP),
        SocketAddr::new(service, 80),
    ];
    // Connections that last are on the fast path.
    let _servers = [&four[0][1], &four[1][1]]
        .map(|pod| Server::start(&pod.netns(bed.machine(&pod.node)?)?, LASTING))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let lasting = targets[..3].iter().map(|to| Stream::converse(netns()?, SocketAddr::new(to.ip(), LASTING)));
    let mut streams = lasting.collect::<Result<Vec<_>>>()?;
    for to in targets {
        streams.push(Stream::start(netns()?, to));
    }
    install::restart(&bed.cluster)?;
    let answered = streams.into_iter().map(Stream::finish).sum::<Result<usize>>()?;
    services::delete(bed, "restart")?;
    Ok(format!(
        "{answered} of {answered} requests: same node, other node, IPv6, over one connection and over one each; by ClusterIP"
    ))
}

/// The last node gives its pods away.
pub(super) fn drain(bed: &mut Bed) -> Result<String> {
    const REPLICAS: usize = 4;
    deployment::create(bed, "drained", REPLICAS)?;
    Pod::wait_for(bed.kubectl(), "drained", REPLICAS)?;
    let last = last_node(bed)?;
    bed.forget_four();
    bed.kubectl().run(&[
        "drain",
        &last,
        "--ignore-daemonsets",
        "--force",
        "--delete-emptydir-data",
        "--timeout=180s",
    ])?;
    let pods = Pod::wait_for(bed.kubectl(), "drained", REPLICAS)?;
    if let Some(pod) = pods.iter().find(|pod| pod.node == last) {
        bail!("{} is on {last} still", pod.name);
    }
    let from = pods[0].netns(bed.machine(&pods[0].node)?)?;
    for pod in &pods {
        ask(&from, SocketAddr::new(pod.address(false)?, HTTP))?;
    }
    deployment::delete(bed, "drained")?;
    Pod::delete(bed.kubectl(), "four")?;
    Ok(format!("{REPLICAS} of {REPLICAS} replicas elsewhere, and reached"))
}

fn last_node(bed: &Bed) -> Result<String> {
    Ok(bed.cluster.nodes.last().context("a cluster has nodes")?.name.clone())
}

/// The last node's machine ends, and its object is deleted.
pub(super) fn delete(bed: &mut Bed) -> Result<String> {
    let last = last_node(bed)?;
    let cidrs = bed.kubectl().get(&["node", &last])?["spec"]["podCIDRs"].clone();
    let cidrs: Vec<String> = serde_json::from_value(cidrs)?;
    let routes = |bed: &Bed| -> Result<String> {
        let node = &bed.cluster.nodes[0];
        Ok(node.run("ip", &["-4", "route"])? + &node.run("ip", &["-6", "route"])?)
    };
    let before = routes(bed)?;
    if let Some(missing) = cidrs.iter().find(|cidr| !before.contains(cidr.as_str())) {
        bail!("node1 had no route to {missing}");
    }
    bed.cluster.remove_last_node()?;
    bed.kubectl().run(&["delete", "node", &last])?;
    wait("the routes to a deleted node are gone", || {
        let routes = routes(bed)?;
        Ok(cidrs.iter().all(|cidr| !routes.contains(cidr.as_str())).then_some(()))
    })?;
    Ok(format!("no route to {} on node1 any more", cidrs.join(" and ")))
}

/// A node of that name comes again, with nothing on its disk.
pub(super) fn add(bed: &mut Bed) -> Result<String> {
    let number = u8::try_from(bed.cluster.nodes.len())? + 1;
    bed.cluster.add_node(number)?;
    bed.prepare(bed.cluster.nodes.last().context("a node was added")?)?;
    bed.wait_for_ready()?;
    install::wait(bed.kubectl())?;
    let here = bed.cluster.nodes[0].name.clone();
    let last = last_node(bed)?;
    for (name, node) in [("old", &here), ("new", &last)] {
        Pod::create(bed.kubectl(), name, "added", |spec| spec["nodeName"] = json!(node))?;
    }
    let pods = Pod::wait_for(bed.kubectl(), "added", 2)?;
    let mut requests = 0;
    for from in &pods {
        let netns = from.netns(bed.machine(&from.node)?)?;
        for to in pods.iter().flat_map(|pod| &pod.addresses) {
            services::until_it_answers(&netns, SocketAddr::new(*to, HTTP))?;
            requests += 1;
        }
    }
    Pod::delete(bed.kubectl(), "added")?;
    Ok(format!("{requests} of {requests} ways between the old and the new"))
}
