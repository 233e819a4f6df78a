//! Probes that are answered with an ICMP error, which has to find its way back through the translation.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    bed::{Bed, NARROW},
    conversation::{Conversation, client},
    matrix::{Kind, Phase, Traffic},
    outcome::{Check, ensure},
    server::Server,
    services::{CLOSED_PORT, Door},
};
use crate::{command, lab::traffic::uninterrupted};

/// The size of a `c_int`, as the socket calls want it.
const INT: libc::socklen_t = 4;
/// How long an error may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// More exchanges than a promotion needs.
const WARM: usize = 40;

/// A message to a port at which nobody listens, or nobody listens any more, is answered so that its sender learns of it.
pub(super) fn unreachable(bed: &Bed, kind: Kind, phase: Phase, switched: bool) -> Check {
    let mut conversation = open(bed, kind, switched, Door::Closed)?;
    if phase == Phase::Promoted {
        let names = bed.targets.answering(kind, Door::Closed, switched);
        let start = |name: &&str| Server::start(bed.netns(name), name, (bed.targets.pod(name), CLOSED_PORT).into());
        let _servers = names.iter().map(start).collect::<Result<Vec<_>>>()?;
        (0..WARM).try_for_each(|_| conversation.exchange(bed))?;
    }
    ensure_error(conversation.udp()?, &[7; 16], libc::ECONNREFUSED)
}

/// What is too large for a route behind the node makes the sender learn the MTU, and what fits then arrives.
pub(super) fn path_mtu(bed: &Bed, kind: Kind, phase: Phase, switched: bool) -> Check {
    forget_mtus(bed, kind)?;
    let mut conversation = open(bed, kind, switched, Door::Narrow)?;
    let dialled = bed.targets.dialled(kind, Door::Narrow);
    never_fragment(conversation.udp()?, dialled).context("forbid fragments")?;
    if phase == Phase::Promoted {
        (0..WARM).try_for_each(|_| conversation.exchange(bed))?;
    }
    // With its headers, it fits into the interface's 1500 bytes.
    ensure_error(conversation.udp()?, &[7; 1450], libc::EMSGSIZE)?;
    let mtu = known_mtu(conversation.udp()?, dialled).context("ask for the path's MTU")?;
    ensure(mtu == NARROW, format!("a path MTU of {NARROW}"), mtu)?;
    // Headers are at most 48 bytes.
    conversation.exchange_bytes(bed, NARROW as usize - 48)?;
    forget_mtus(bed, kind)?;
    let mut connection = Conversation::open_at(bed, kind, Traffic::Tcp, switched, Door::Narrow)?;
    connection.exchange_bytes(bed, 20_000).context("over TCP")?;
    Ok(connection.close()?)
}

/// A socket that gets errors, which only a connected one does.
fn open(bed: &Bed, kind: Kind, switched: bool, door: Door) -> Result<Conversation> {
    let conversation = Conversation::open_at(bed, kind, Traffic::Udp, switched, door)?;
    conversation.udp()?.connect(bed.targets.dialled(kind, door)).context("connect")?;
    Ok(conversation)
}

/// Sends, and fails unless the kernel then has this error for the sender.
fn ensure_error(socket: &UdpSocket, bytes: &[u8], errno: i32) -> Check {
    let expected = format!("the error {}", io::Error::from_raw_os_error(errno));
    socket.set_read_timeout(Some(PATIENCE)).context("set a timeout")?;
    // This one cannot know yet.
    socket.send(bytes).context("send")?;
    match uninterrupted(|| socket.recv(&mut [0; 2048])) {
        Err(error) => ensure(error.raw_os_error() == Some(errno), expected, error),
        Ok(length) => ensure(false, expected, format!("{length} bytes")),
    }
}

/// Lets a client's kernel forget what it learnt of paths.
fn forget_mtus(bed: &Bed, kind: Kind) -> Result<()> {
    let family = if bed.setting.ipv6 { "-6" } else { "-4" };
    bed.netns(client(kind)).run(|| command::run(Command::new("ip").args([family, "route", "flush", "cache"])))?
}

fn never_fragment(socket: &UdpSocket, to: SocketAddr) -> io::Result<()> {
    let (level, name) = match to {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    };
    // IPV6_PMTUDISC_DO has the same value.
    let value: libc::c_int = libc::IP_PMTUDISC_DO;
    // SAFETY: the option is an int, and is copied before the call returns.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), INT) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The MTU of the path to where a socket is connected, as the kernel knows it by now.
fn known_mtu(socket: &UdpSocket, to: SocketAddr) -> io::Result<u32> {
    let (level, name) = match to {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let mut value: libc::c_int = 0;
    let mut length = INT;
    // SAFETY: the option is an int, for which there is room, and the length says so.
    let done = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length) };
    if done == 0 { u32::try_from(value).map_err(io::Error::other) } else { Err(io::Error::last_os_error()) }
}
