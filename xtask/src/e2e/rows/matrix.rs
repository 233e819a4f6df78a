//! The ancestors' connectivity matrix, in real pods: TCP and UDP, IPv4 and IPv6.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail};

use super::super::bed::Bed;
use crate::lab::{
    kubernetes::cluster::Place,
    traffic::{Client, Protocol, Server},
};

const PORT: u16 = 7000;
/// Requests over each protocol and family.
const ROUNDS: usize = 500;
/// What the fast path has to carry where it is promised, in percent.
const SHARE: u64 = 90;

/// Where a pod's traffic goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum To {
    OwnNode,
    OtherNode,
    Neighbour,
    Remote,
}

/// Sends traffic from the first pod of each of two nodes.
pub(super) fn look(bed: &mut Bed, to: To) -> Result<String> {
    let four = bed.four()?;
    let mut worst = None;
    for (here, [from, neighbour]) in four.iter().enumerate() {
        let there = 1 - here;
        let remote = &four[there][1];
        let (pod, place) = match to {
            To::OwnNode => (None, here),
            To::OtherNode => (None, there),
            To::Neighbour => (Some(neighbour), here),
            To::Remote => (Some(remote), there),
        };
        let client = from.netns(bed.machine(&from.node)?)?;
        let machine = bed.machine(&four[place][0].node)?;
        let server = pod.map_or_else(|| machine.netns(), |pod| pod.netns(machine))?;
        let _server = Server::start(&server, PORT)?;
        for ipv6 in [false, true] {
            let address: IpAddr = match pod {
                Some(pod) => pod.address(ipv6)?,
                None => Place::Node(u8::try_from(place)? + 1).addresses()[usize::from(ipv6)],
            };
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let before = bed.verdicts();
                let mut client = Client::connect(&client, protocol, SocketAddr::new(address, PORT))?;
                client.measure(ROUNDS).with_context(|| format!("{} to {address} over {protocol:?}", from.name))?;
                client.close()?;
                let after = bed.verdicts();
                let (fast, stack) = (after.0 - before.0, after.1 - before.1);
                let share = fast * 100 / (fast + stack).max(1);
                if to != To::OwnNode && share < SHARE {
                    bail!("{} to {address} over {protocol:?}: {share} % on the fast path", from.name);
                }
                worst = worst.min(Some(share)).or(Some(share));
            }
        }
    }
    let least = worst.unwrap_or_default();
    Ok(format!("TCP and UDP, IPv4 and IPv6, both ways; at least {least} % on the fast path"))
}
