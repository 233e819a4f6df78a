//! A client that talks over all phases, and is particular about its answers.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{
    bed::Bed,
    expect::Twins,
    matrix::{Kind, Traffic},
    server::{Answer, receive_framed, send_framed},
    services::Door,
};
use crate::lab::traffic::uninterrupted;

/// How long a client waits for an answer, unless it is told otherwise.
const PATIENCE: Duration = Duration::from_secs(3);
/// A small message, in bytes.
const SMALL: usize = 16;
/// One that does not fit into the MTU, there and back.
const LARGE: usize = 4_000;
/// So many messages, one of them is large where large ones are sent at all.
pub(super) const LARGE_EVERY: usize = 4;

/// A client with its sockets.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) kind: Kind,
    pub(super) traffic: Traffic,
    /// Whether it began after the switch of endpoints.
    pub(super) after_switch: bool,
    door: Door,
    /// What the server saw of the last exchange.
    pub(super) last: Option<Answer>,
    /// How many requests were sent.
    sent: usize,
    lines: Vec<Line>,
}

/// One socket.
#[derive(Debug)]
enum Line {
    Tcp(TcpStream),
    Udp {
        socket: UdpSocket,
        /// The addresses that get each request, in this order; with the server's name where it is a pod's own address.
        to: Vec<(Option<&'static str>, SocketAddr)>,
    },
}

impl Conversation {
    /// Opens the sockets; TCP connects.
    pub(super) fn open(bed: &Bed, kind: Kind, traffic: Traffic, after_switch: bool) -> Result<Self> {
        Self::open_at(bed, kind, traffic, after_switch, Door::Open)
    }

    /// As [`Conversation::open`], at another door.
    pub(super) fn open_at(bed: &Bed, kind: Kind, traffic: Traffic, after_switch: bool, door: Door) -> Result<Self> {
        let dialled = bed.targets.dialled(kind, door);
        let netns = bed.netns(client(kind));
        let udp = |to| -> Result<Line> { Ok(Line::Udp { socket: netns.run(|| bind(dialled))??, to }) };
        let lines = match traffic {
            Traffic::Tcp => {
                let stream = netns.run(|| TcpStream::connect_timeout(&dialled, PATIENCE))?;
                let stream = stream.with_context(|| format!("connect to {dialled}"))?;
                stream.set_nodelay(true)?;
                vec![Line::Tcp(stream)]
            }
            Traffic::Twin => {
                let mut first = vec![(None, dialled)];
                first.extend(bed.targets.twins(kind).into_iter().map(|(name, address)| (Some(name), address)));
                // Whichever conntrack meets second has its port changed.
                let last = first.iter().rev().copied().collect();
                vec![udp(first)?, udp(last)?]
            }
            _ => vec![udp(vec![(None, dialled)])?],
        };
        Ok(Self { kind, traffic, after_switch, door, last: None, sent: 0, lines })
    }

    /// Sends one request over each socket to each of its addresses, and checks the answers.
    pub(super) fn exchange(&mut self, bed: &Bed) -> Result<()> {
        self.exchange_within(bed, PATIENCE)
    }

    /// As [`Conversation::exchange`], waiting so long for each answer.
    pub(super) fn exchange_within(&mut self, bed: &Bed, patience: Duration) -> Result<()> {
        let large = self.traffic == Traffic::Fragments && self.sent.is_multiple_of(LARGE_EVERY);
        self.send(bed, patience, if large { LARGE } else { SMALL })
    }

    /// As [`Conversation::exchange`], with so many bytes.
    pub(super) fn exchange_bytes(&mut self, bed: &Bed, length: usize) -> Result<()> {
        self.send(bed, PATIENCE, length)
    }

    fn send(&mut self, bed: &Bed, patience: Duration, length: usize) -> Result<()> {
        let mut request = vec![7; length];
        self.sent += 1;
        let number = self.sent;
        request[..8].copy_from_slice(&number.to_be_bytes());
        let mut last = None;
        for line in &mut self.lines {
            match line {
                Line::Tcp(stream) => {
                    stream.set_read_timeout(Some(patience))?;
                    send_framed(stream, &request).context("send")?;
                    let message = receive_framed(stream).with_context(|| format!("answer {number}"))?;
                    last = Some(Answer::read(&message.context("the server closed the connection")?)?);
                }
                Line::Udp { socket, to } => {
                    socket.set_read_timeout(Some(patience))?;
                    for (pod, address) in to {
                        socket.send_to(&request, *address).with_context(|| format!("send to {address}"))?;
                        let (answer, from) =
                            receive(socket, &request[..8]).with_context(|| format!("answer {number} of {address}"))?;
                        if from != *address {
                            bail!("{} answered {address} with the source address {from}", answer.server);
                        }
                        match pod {
                            Some(name) if answer.server != *name => {
                                bail!("{} answered in the place of {name}, at {address}", answer.server)
                            }
                            Some(_) => {}
                            None => last = Some(answer),
                        }
                    }
                }
            }
        }
        let answer = last.context("nothing was sent")?;
        self.judge(bed, &answer, &request)?;
        self.last = Some(answer);
        Ok(())
    }

    /// Whether an answer of the dialled address is what it has to be.
    fn judge(&self, bed: &Bed, answer: &Answer, request: &[u8]) -> Result<()> {
        let Answer { server, client, request: got } = answer;
        let expected = bed.targets.answering(self.kind, self.door, self.after_switch);
        if !expected.contains(&server.as_str()) {
            bail!("{server} answered, not {}", expected.join(" or "));
        }
        let seen = bed.targets.seen(self.kind);
        if client.ip() != seen {
            bail!("{server} saw the client as {}, not as {seen}", client.ip());
        }
        if got != request {
            bail!("{server} got {} bytes, which are not the {} that were sent", got.len(), request.len());
        }
        Ok(())
    }

    /// The socket of a conversation over UDP.
    pub(super) fn udp(&self) -> Result<&UdpSocket> {
        let sockets = self.lines.iter().find_map(|line| match line {
            Line::Udp { socket, .. } => Some(socket),
            Line::Tcp(_) => None,
        });
        sockets.context("the conversation is over TCP")
    }

    /// Where its sockets send to pods and to an address that leads to them: how.
    pub(super) fn twins(&self, bed: &Bed) -> Option<Twins> {
        let direct = bed.targets.twins(self.kind).len();
        let clash = bed.targets.seen(self.kind) == bed.targets.pod("a");
        (self.traffic == Traffic::Twin).then_some(Twins { direct, clash })
    }

    /// Protocol, address and port of each socket as conntrack has them, and how many entries there are of it.
    pub(super) fn origins(&self, bed: &Bed) -> Result<Vec<(SocketAddr, usize)>> {
        let ip = if self.kind.is_from_outside() { bed.targets.outside } else { bed.targets.pod("a") };
        let of = |line: &Line| {
            let (address, count) = match line {
                Line::Tcp(stream) => (stream.local_addr()?, 1),
                Line::Udp { socket, to } => (socket.local_addr()?, to.len()),
            };
            Ok((SocketAddr::new(ip, address.port()), count))
        };
        self.lines.iter().map(of).collect()
    }

    /// Closes our direction of a connection and waits until the server closes its own.
    pub(super) fn close(&mut self) -> Result<()> {
        for line in &mut self.lines {
            if let Line::Tcp(stream) = line {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.shutdown(Shutdown::Write)?;
                if receive_framed(stream).context("waiting for the server's FIN")?.is_some() {
                    bail!("the server sent data instead of closing");
                }
            }
        }
        self.lines.clear();
        Ok(())
    }
}

/// The name of a cell's client.
pub(super) fn client(kind: Kind) -> &'static str {
    if kind.is_from_outside() { "outside" } else { "a" }
}

/// An UDP socket of the family of an address.
fn bind(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0))
}

/// The answer to a request that began so. Answers to earlier ones, which came too late, are passed over.
fn receive(socket: &UdpSocket, begin: &[u8]) -> Result<(Answer, SocketAddr)> {
    let mut buffer = vec![0; 65_536];
    loop {
        let (length, from) = uninterrupted(|| socket.recv_from(&mut buffer))?;
        let answer = Answer::read(&buffer[..length])?;
        if answer.request.starts_with(begin) {
            return Ok((answer, from));
        }
    }
}
