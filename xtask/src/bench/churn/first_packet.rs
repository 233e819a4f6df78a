//! Whether a pod's first packet arrives, once its ADD has returned.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::Result;
use minicni::link::Netns;

use super::{at_once::at_once, report::FirstPackets};
use crate::{
    bench::plugins::peers::{Peer, Pod, pods},
    lab::traffic::{Server, uninterrupted},
};

const PORT: u16 = 8080;
/// How many pods come at once.
const AT_ONCE: usize = 50;
/// An answer that is not there by then does not come: nobody sends a datagram again.
const PATIENCE: Duration = Duration::from_secs(1);

/// So many pods one after another, and so many in crowds, each with a datagram to a pod that answers. Runs inside of the
/// node's namespace.
pub(super) fn run(peer: &Peer, count: usize) -> Result<FirstPackets> {
    let mut server = pods("answers", 1)?;
    peer.call("ADD", &mut server[0])?;
    let answers = Server::start(&Netns::open(&server[0].path)?, PORT)?;
    let to = SocketAddr::new(server[0].address()?, PORT);
    let mut pods = pods("first", AT_ONCE.min(count))?;
    let arrives = |pod: &mut Pod| -> Result<bool> {
        peer.call("ADD", pod)?;
        first_packet(pod, to)
    };
    let mut lost_in_turn = 0;
    for _ in 0..count {
        lost_in_turn += usize::from(!arrives(&mut pods[0])?);
        peer.call("DEL", &mut pods[0])?;
    }
    let (mut lost_at_once, mut left) = (0, count);
    while left > 0 {
        let crowd = left.min(pods.len());
        let crowd = &mut pods[..crowd];
        left -= crowd.len();
        let (_, answered) = at_once(crowd, arrives)?;
        lost_at_once += answered.iter().filter(|answered| !**answered).count();
        at_once(crowd, |pod| peer.call("DEL", pod))?;
    }
    drop(answers);
    peer.call("DEL", &mut server[0])?;
    Ok(FirstPackets { lost_in_turn, at_once: pods.len(), lost_at_once })
}

/// Whether one datagram was answered.
fn first_packet(pod: &Pod, to: SocketAddr) -> Result<bool> {
    Netns::open(&pod.path)?.run(|| {
        let socket = UdpSocket::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(b"x")?;
        Ok(uninterrupted(|| socket.recv(&mut [0; 8])).is_ok())
    })?
}
