//! What our program costs by itself.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, bail};
use etherparse::PacketBuilder;
use minicni::link;
use nix::net::if_::if_nametoindex;

use super::{bpf, path::PORT, request_response::exchange_udp};
use crate::lab::{Node, Pod, traffic::Server};

/// Repetitions of a test run. Each of them takes one off the packet's TTL, which must not reach 1.
const REPEAT: u32 = 200;
/// Test runs of which the fastest counts: what holds one up is not the program.
const RUNS: usize = 25;
/// `TC_ACT_REDIRECT`.
const REDIRECT: u32 = 7;
/// Exchanges after which a flow is promoted for certain.
const PROMOTING: usize = 50;

/// Two pods, and a program to compare with.
#[derive(Debug)]
pub(super) struct Program {
    client: Pod,
    server: Pod,
    empty: OwnedFd,
    _answers: Server,
}

impl Program {
    pub(super) fn new(node: &Node) -> Result<Self> {
        let (client, server) = (node.pod("timed-a")?, node.pod("timed-b")?);
        let answers = Server::start(&server.netns, PORT)?;
        Ok(Self { client, server, empty: bpf::empty()?, _answers: answers })
    }

    /// Nanoseconds of the program on a packet of a promoted UDP flow, and of the empty one, by turns. The redirect itself
    /// comes after the program and is not in it.
    pub(super) fn nanoseconds(&self, node: &Node) -> Result<[f64; 2]> {
        let address = SocketAddr::new(IpAddr::V4(self.server.address()?), PORT);
        let socket = self.client.netns.run(|| -> Result<UdpSocket> {
            let socket = UdpSocket::bind((self.client.address()?, 0))?;
            socket.connect(address)?;
            Ok(socket)
        })??;
        (0..PROMOTING).try_for_each(|_| exchange_udp(&socket))?;
        let frame = self.frame(node, socket.local_addr()?.port())?;
        let programs = node.pins().open_programs()?;
        node.netns.run(|| {
            let ifindex = if_nametoindex(self.client.host_interface()?)?;
            let (mut ours, mut empty) = (f64::INFINITY, f64::INFINITY);
            for _ in 0..RUNS {
                let run = bpf::test_run(programs.ingress(), ifindex, &frame, REPEAT)?;
                if run.verdict != REDIRECT {
                    bail!("the packet of a promoted flow was not redirected; the verdict is {}", run.verdict);
                }
                ours = ours.min(run.nanoseconds);
                empty = empty.min(bpf::test_run(self.empty.as_fd(), ifindex, &frame, REPEAT)?.nanoseconds);
            }
            Ok([ours, empty])
        })?
    }

    /// A datagram as the client sends it.
    fn frame(&self, node: &Node, port: u16) -> Result<Vec<u8>> {
        let mac = self.client.netns.run(|| link::mac_of("eth0"))??.context("the pod has no interface")?;
        let host = node.netns.run(|| -> Result<_> { Ok(link::mac_of(self.client.host_interface()?)?) })??;
        let (source, destination) = (self.client.address()?.octets(), self.server.address()?.octets());
        let builder = PacketBuilder::ethernet2(mac.0, host.context("the pod's other end is gone")?.0)
            .ipv4(source, destination, u8::MAX)
            .udp(port, PORT);
        let mut frame = Vec::new();
        builder.write(&mut frame, b"x")?;
        Ok(frame)
    }
}
