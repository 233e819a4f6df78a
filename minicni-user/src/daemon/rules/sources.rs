//! Where changes are heard: netlink, and the lock of iptables.

use std::{
    env,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
};

use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use nix::sys::{
    inotify::{AddWatchFlags, InitFlags, Inotify},
    socket::{setsockopt, sockopt::RcvBufForce},
};
use rtnetlink::MulticastGroup;

use super::super::changes::voids_flows;

/// Every change of nftables' rules, by `nft`, `iptables-nft` or anyone; `NFNLGRP_NFTABLES` of the kernel's
/// `linux/netfilter/nfnetlink.h`.
const NFTABLES: u32 = 7;
/// Next-hop objects, which routes refer to; `RTNLGRP_NEXTHOP` of the kernel's `linux/rtnetlink.h`.
const NEXTHOP: u32 = 32;
const ROUTES: [u32; 8] = [
    MulticastGroup::Link as u32,
    MulticastGroup::Ipv4Ifaddr as u32,
    MulticastGroup::Ipv6Ifaddr as u32,
    MulticastGroup::Ipv4Route as u32,
    MulticastGroup::Ipv6Route as u32,
    MulticastGroup::Ipv4Rule as u32,
    MulticastGroup::Ipv6Rule as u32,
    NEXTHOP,
];
/// Room for what a hundred pods that end at once have to say, in bytes as the kernel counts them.
const BUFFER: usize = 4 << 20;
/// So many messages are read before it is said what they meant.
const BATCH: usize = 4_096;

/// The lock that iptables-legacy takes, where no `XTABLES_LOCKFILE` names another.
const XTABLES_LOCK: &str = "/run/xtables.lock";

/// Some changes are not heard; what was promoted before one ends later then.
#[derive(Debug, thiserror::Error)]
#[error("changes of {what} take effect on flows of the fast path after 6 s only, because {action} failed: {source}")]
pub(in crate::daemon) struct DeafError {
    what: &'static str,
    action: String,
    source: io::Error,
}

/// One thing to listen to.
pub(in crate::daemon) enum Source {
    Nftables(Socket),
    Routes(Socket),
    /// The kernel tells nobody of iptables-legacy's rules, but whoever changes them opens a lock file and, when that is
    /// done, closes it.
    Xtables(Inotify),
}

impl Source {
    /// Opens each kind.
    pub(in crate::daemon) fn open_each() -> [Result<Self, DeafError>; 3] {
        let nftables = subscribe(NETLINK_NETFILTER, &[NFTABLES]).map(Self::Nftables);
        let routes = subscribe(NETLINK_ROUTE, &ROUTES).map(Self::Routes);
        let lock = env::var_os("XTABLES_LOCKFILE").map_or_else(|| XTABLES_LOCK.into(), PathBuf::from);
        let xtables = watch(&lock).map(Self::Xtables);
        [
            nftables.map_err(deaf("nftables rules", "listening to nfnetlink".to_owned())),
            routes.map_err(deaf("routes", "listening to route netlink".to_owned())),
            xtables.map_err(deaf("iptables-legacy rules", format!("watching {}", lock.display()))),
        ]
    }

    /// Readable when there is something to drain.
    pub(in crate::daemon) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Nftables(socket) | Self::Routes(socket) => socket.as_fd(),
            Self::Xtables(inotify) => inotify.as_fd(),
        }
    }

    /// Reads what there is, without waiting, and says whether any of it may void what flows proved.
    pub(in crate::daemon) fn drain(&self) -> Result<bool, DeafError> {
        let mut voids = false;
        for _ in 0..BATCH {
            match self.receive() {
                Ok(found) => voids |= found,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The socket's buffer was full: nobody knows what was lost.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => voids = true,
                Err(error) => return Err(deaf(self.what(), "receiving".to_owned())(error)),
            }
        }
        Ok(voids)
    }

    fn receive(&self) -> io::Result<bool> {
        match self {
            // Whatever it is about. Not only the end of a transaction counts: a quota that is used up is told, too.
            Self::Nftables(socket) => socket.recv(&mut &mut [0; 1][..], 0).map(|_| true),
            Self::Routes(socket) => socket.recv_from_full().map(|(datagram, _)| voids_flows(&datagram)),
            Self::Xtables(inotify) => {
                let events = inotify.read_events()?;
                if events.iter().any(|event| event.mask.contains(AddWatchFlags::IN_IGNORED)) {
                    return Err(io::Error::new(io::ErrorKind::NotFound, "the file was removed"));
                }
                Ok(true)
            }
        }
    }

    fn what(&self) -> &'static str {
        match self {
            Self::Nftables(_) => "nftables rules",
            Self::Routes(_) => "routes",
            Self::Xtables(_) => "iptables-legacy rules",
        }
    }
}

fn deaf(what: &'static str, action: String) -> impl FnOnce(io::Error) -> DeafError {
    move |source| DeafError { what, action, source }
}

fn subscribe(protocol: isize, groups: &[u32]) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.set_non_blocking(true)?;
    // Refused, for want of a capability, it only means that an overrun is likelier.
    let _ = setsockopt(&socket, RcvBufForce, &BUFFER);
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    Ok(socket)
}

/// Watches the lock file, which is made, as iptables would, if there is none.
pub(in crate::daemon) fn watch(lock: &Path) -> io::Result<Inotify> {
    File::options().append(true).create(true).mode(0o600).open(lock)?;
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    inotify.add_watch(lock, AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_CLOSE_NOWRITE)?;
    Ok(inotify)
}
