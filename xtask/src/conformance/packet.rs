//! One packet there and one back: whether two namespaces reach each other now, and not in a second.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use minicni::link::Netns;

use super::outcome::{Check, wrong};
use crate::lab::traffic::uninterrupted;

/// How long one packet and its answer may take: less than what duplicate address detection takes.
const PATIENCE: Duration = Duration::from_millis(500);

/// Fails unless `address`, which is one of `to`, answers a packet of `from`.
pub(super) fn reach(from: &Netns, to: &Netns, address: IpAddr) -> Check {
    exchange(from, to, address).map_err(|error| wrong(format!("{address} answers"), format!("{error:#}")))
}

fn exchange(from: &Netns, to: &Netns, address: IpAddr) -> Result<()> {
    let any = if address.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = |netns: &Netns| -> Result<UdpSocket> {
        // A socket stays in the namespace in which it was made.
        let socket = netns.run(|| UdpSocket::bind((any, 0)))??;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    };
    let (client, server) = (socket(from)?, socket(to)?);
    let port = server.local_addr()?.port();
    client.send_to(b"?", (address, port)).with_context(|| format!("send to {address}"))?;
    let mut buffer = [0];
    let arrived = uninterrupted(|| server.recv_from(&mut buffer));
    let (_, sender) = arrived.with_context(|| format!("nothing arrived at {address}"))?;
    server.send_to(b"!", sender).with_context(|| format!("send the answer to {sender}"))?;
    uninterrupted(|| client.recv_from(&mut buffer))
        .with_context(|| format!("no answer of {address} came back to {sender}"))?;
    if buffer != *b"!" {
        bail!("the answer differs from what was sent");
    }
    Ok(())
}
