//! Whose address others see.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, Result, bail};

use super::{
    super::{bed::Bed, pods::HTTP, requests::ask},
    services,
};
use crate::lab::kubernetes::cluster::{OUTSIDE, OUTSIDE6, Place};

const PORT: u16 = 7001;

/// Pods see pods' addresses: direct on the node and between nodes, and through a Service.
pub(super) fn source(bed: &mut Bed) -> Result<String> {
    let four = bed.four()?;
    let [client, neighbour] = &four[0];
    let [_, remote] = &four[1];
    let netns = client.netns(bed.machine(&client.node)?)?;
    let mut requests = 0;
    for ipv6 in [false, true] {
        let own = client.address(ipv6)?;
        let service = services::of_one(bed, "source", remote, ipv6, &netns)?;
        let targets = [(neighbour.address(ipv6)?, HTTP), (remote.address(ipv6)?, HTTP), (service, 80)];
        for (address, port) in targets {
            let answer = ask(&netns, SocketAddr::new(address, port))?;
            if answer.client != own {
                bail!("{address} was asked by {own} and saw {}", answer.client);
            }
            requests += 1;
        }
        services::delete(bed, "source")?;
    }
    Ok(format!("{requests} of {requests} requests came from the pod's own address"))
}

/// A host that knows no pod sees the node.
pub(super) fn egress(bed: &mut Bed) -> Result<String> {
    let four = bed.four()?;
    let outside = bed.cluster.outside()?;
    for (index, [pod, _]) in four.iter().enumerate() {
        let netns = pod.netns(bed.machine(&pod.node)?)?;
        let node = Place::Node(u8::try_from(index)? + 1).addresses();
        for (address, node) in [IpAddr::V4(OUTSIDE), OUTSIDE6.into()].into_iter().zip(node) {
            let to = SocketAddr::new(address, PORT);
            let listener = outside.run(|| TcpListener::bind(to))??;
            // The connection is made by the kernel, before it is accepted.
            let timeout = std::time::Duration::from_secs(5);
            let _client = netns
                .run(|| TcpStream::connect_timeout(&to, timeout))?
                .with_context(|| format!("{} to the outside at {to}", pod.name))?;
            let seen = listener.accept()?.1.ip();
            if seen != node {
                bail!("the outside saw {seen} where {} asked", pod.name);
            }
        }
    }
    Ok("pods of both nodes, IPv4 and IPv6, appear as their nodes".to_owned())
}
