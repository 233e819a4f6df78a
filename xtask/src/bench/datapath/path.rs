//! From a client to a server.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};
use minicni::link::Netns;
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::TimeVal,
};

/// Where servers listen.
pub(in crate::bench) const PORT: u16 = 8080;
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(3);

/// Two namespaces, and what the one calls the other.
#[derive(Debug)]
pub(in crate::bench) struct Path {
    pub(super) client: Netns,
    server: Netns,
    to: SocketAddr,
}

impl Path {
    pub(super) fn new(client: Netns, server: Netns, to: impl Into<IpAddr>) -> Self {
        Self { client, server, to: SocketAddr::new(to.into(), PORT) }
    }

    /// The same, by another address and port that the node translates.
    pub(in crate::bench) fn by(self, to: SocketAddr) -> Self {
        Self { to, ..self }
    }

    /// A listening socket; its `accept` gives up after a while.
    pub(super) fn listen(&self) -> Result<TcpListener> {
        let listener = self.server.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?.context("listen")?;
        setsockopt(&listener, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE.as_secs().cast_signed(), 0))?;
        Ok(listener)
    }

    /// Connections: of each the client's end and the server's.
    pub(super) fn tcp(&self, count: usize) -> Result<Vec<[TcpStream; 2]>> {
        let listener = self.listen()?;
        let connection = |_| -> Result<_> {
            let client = self.client.run(|| self.connect())??;
            let (server, _) = listener.accept().context("accept")?;
            [&client, &server].into_iter().try_for_each(|end| {
                end.set_nodelay(true)?;
                end.set_read_timeout(Some(PATIENCE))
            })?;
            Ok([client, server])
        };
        (0..count).map(connection).collect()
    }

    /// Connects from the namespace of the calling thread.
    pub(super) fn connect(&self) -> Result<TcpStream> {
        TcpStream::connect(self.to).with_context(|| format!("connect to {}", self.to))
    }

    /// The client's socket, connected, and the server's, which is not.
    pub(super) fn udp(&self) -> Result<[UdpSocket; 2]> {
        let server = self.server.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))?.context("bind")?;
        let client = self.client.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?.context("bind")?;
        client.connect(self.to).with_context(|| format!("connect to {}", self.to))?;
        [&client, &server].into_iter().try_for_each(|end| end.set_read_timeout(Some(PATIENCE)))?;
        Ok([client, server])
    }
}
