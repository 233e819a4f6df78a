//! Notices that somebody changed routes, links or addresses.

use std::io;
use std::time::Duration;

use netlink_packet_core::{NLM_F_REPLACE, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteProtocol;
use rtnetlink::MulticastGroup;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};

use super::debounce::Debounce;
use super::plan::ROUTE_PROTOCOL;
use super::routes::Kernel;

const QUIET: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_millis(200);
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// The kernel's notifications cannot be received. Open another watch, and look at the kernel's state by timer meanwhile.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch the kernel's routes: {source}")]
pub struct WatchError {
    #[from]
    source: io::Error,
}

/// A subscription to what may concern our routes. It belongs to the network namespace of the thread that opened it.
pub struct RouteWatch {
    socket: TokioSocket,
    changes: Debounce,
    /// Whose changes are not reported.
    own: Option<u32>,
}

impl RouteWatch {
    /// Subscribes; what happens from now on is not missed. Needs a tokio runtime.
    pub fn new() -> Result<Self, WatchError> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let raw = socket.socket_mut();
        raw.bind(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            raw.add_membership(group as u32)?;
        }
        Ok(Self { socket, changes: Debounce::new(QUIET, LIMIT), own: None })
    }

    /// Does not report what is changed by way of this `kernel`: who does that knows it.
    #[must_use]
    pub fn except(self, kernel: &Kernel) -> Self {
        Self { own: Some(kernel.port()), ..self }
    }

    /// Waits until something of ours may have changed, and then for 20 ms of peace (at most 200 ms). Dropping the future
    /// loses nothing.
    pub async fn changed(&mut self) -> Result<(), WatchError> {
        while !self.changes.fire() {
            tokio::select! {
                () = self.changes.wait() => {}
                received = self.socket.recv_from_full() => match received {
                    Ok((datagram, _)) => {
                        if concerns_us(&datagram, self.own) {
                            self.changes.mark();
                        }
                    }
                    // The socket's buffer was full: nobody knows what was lost.
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.changes.mark(),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

/// The kernel sends one notification per datagram. What cannot be parsed may be about us.
fn concerns_us(datagram: &[u8], own: Option<u32>) -> bool {
    let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram) else { return true };
    // Who asked for it: https://github.com/torvalds/linux/blob/v6.12/net/ipv4/fib_semantics.c#L535
    if own == Some(message.header.port_number) {
        return false;
    }
    let ours = RouteProtocol::from(ROUTE_PROTOCOL);
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) => route.header.protocol == ours,
        // A route that replaces ours is announced under its own protocol; nothing announces the end of ours.
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
            route.header.protocol == ours || message.header.flags & NLM_F_REPLACE != 0
        }
        // A link that goes down or an address that goes away takes routes along, silently.
        _ => true,
    }
}
