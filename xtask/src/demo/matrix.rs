//! The ancestors' connectivity matrix, measured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
use minicni_common::{Counters, Reason, Verdict};
use serde::Serialize;

use crate::lab::{
    Lab, Node, Pod, rules,
    traffic::{Client, Protocol, Server},
};

/// Requests for each figure.
const ROUNDS: usize = 2_000;
/// Where the pods and nodes answer.
const PORT: u16 = 8080;
/// The virtual address of the translated rows, and its port.
const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const CLUSTER_PORT: u16 = 80;

/// One row of the matrix: one client, one destination, both protocols.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// Who asks.
    pub(super) from: String,
    /// Who is asked.
    pub(super) to: String,
    /// The address that is dialled.
    pub(super) address: SocketAddr,
    /// The path that the packets are to take.
    pub(super) expected: Path,
    /// What was seen over TCP, or why nothing was.
    pub(super) tcp: Result<Seen, String>,
    /// What was seen over UDP, or why nothing was.
    pub(super) udp: Result<Seen, String>,
}

/// Where packets go.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Path {
    /// Over the eBPF fast path, but for the first few.
    Fast,
    /// Through the stack, every one of them.
    Stack,
}

/// What a client saw.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Seen {
    /// Median round trip in microseconds.
    pub(super) round_trip_us: f64,
    /// Packets that the nodes redirected, of all that the pods sent, in percent.
    pub(super) fast_percent: f64,
}

impl Seen {
    fn is_on(self, path: Path) -> bool {
        match path {
            Path::Fast => self.fast_percent > 90.0,
            // Not one packet of a translated flow may be redirected.
            Path::Stack => self.fast_percent == 0.0,
        }
    }
}

impl Row {
    /// Whether both protocols work, and on the path that was promised.
    pub(super) fn as_promised(&self) -> bool {
        [&self.tcp, &self.udp].into_iter().all(|seen| seen.as_ref().is_ok_and(|seen| seen.is_on(self.expected)))
    }
}

/// Two pods on each node.
pub(super) fn add_pods(lab: &Lab) -> Result<Vec<[Pod; 2]>> {
    lab.nodes.iter().map(|node| Ok([node.pod("pod1")?, node.pod("pod2")?])).collect()
}

/// Measures every row, from the first pod of each node.
pub(super) fn measure(lab: &Lab, pods: &[[Pod; 2]], no_nft: Option<&str>) -> Result<Vec<Row>> {
    let servers = pods.iter().flatten().map(|pod| &pod.netns).chain(lab.nodes.iter().map(|node| &node.netns));
    let _servers = servers.map(|netns| Server::start(netns, PORT)).collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for (here, [client, neighbour]) in pods.iter().enumerate() {
        let there = (here + 1) % lab.nodes.len();
        let (own, other) = (&lab.nodes[here], &lab.nodes[there]);
        let remote = &pods[there][1];
        let to = |address: Ipv4Addr| SocketAddr::new(IpAddr::V4(address), PORT);
        let translation = match no_nft {
            Some(why) => Err(why.to_owned()),
            None => rules::nft(own, &rules::cluster_ip(CLUSTER_IP, CLUSTER_PORT, neighbour.address()?, PORT))
                .map_err(|error| error.to_string()),
        };
        let destinations = [
            (format!("{}, its own", own.name), to(own.address), Path::Stack, Ok(())),
            (other.name.clone(), to(other.address), Path::Fast, Ok(())),
            (format!("{} on {}", neighbour.name, own.name), to(neighbour.address()?), Path::Fast, Ok(())),
            (format!("{} on {}", remote.name, other.name), to(remote.address()?), Path::Fast, Ok(())),
            (
                format!("{} on {} by ClusterIP", neighbour.name, own.name),
                SocketAddr::new(IpAddr::V4(CLUSTER_IP), CLUSTER_PORT),
                Path::Stack,
                translation,
            ),
        ];
        for (name, address, expected, possible) in destinations {
            let seen = |protocol| {
                possible.clone()?;
                converse(lab, client, protocol, address).map_err(|error| format!("{error:#}"))
            };
            rows.push(Row {
                from: format!("{} on {}", client.name, own.name),
                to: name,
                address,
                expected,
                tcp: seen(Protocol::Tcp),
                udp: seen(Protocol::Udp),
            });
        }
    }
    Ok(rows)
}

fn converse(lab: &Lab, from: &Pod, protocol: Protocol, to: SocketAddr) -> Result<Seen> {
    let before = verdicts(&lab.nodes);
    let mut client = Client::connect(&from.netns, protocol, to)?;
    let round_trip = client.measure(ROUNDS)?;
    client.close()?;
    let after = verdicts(&lab.nodes);
    let (fast, stack) = (after.0 - before.0, after.1 - before.1);
    #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
    let fast_percent = fast as f64 * 100.0 / (fast + stack).max(1) as f64;
    Ok(Seen { round_trip_us: round_trip.as_secs_f64() * 1e6, fast_percent })
}

/// Packets redirected and left to the stack, on all nodes.
fn verdicts(nodes: &[Node]) -> (u64, u64) {
    let mut sum = Counters::default();
    for node in nodes {
        sum.add(&node.counters());
    }
    let with = |verdict| {
        let reasons = Reason::ALL.iter().filter(|reason| reason.verdict() == verdict);
        reasons.map(|reason| sum.get(*reason)).sum()
    };
    (with(Verdict::Fast), with(Verdict::Stack))
}
