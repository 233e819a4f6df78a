//! The tunnel: one VXLAN device for all nodes and both address families. Which node a packet goes to says its route.

use ipnet::IpNet;
use nix::errno::Errno;
use tracing::info;

use super::host::loosen_rp_filter;
use crate::link::{
    LinkError, LinkInfo, Socket, Vxlan, address_aside, alias, delete_address, delete_link, link_up, set_mtu, vxlan,
    without_link_local,
};

/// The device's name.
pub const DEVICE: &str = "minicni-vxlan";

/// The mark by which the device is known as ours, whatever its configuration is.
const ALIAS: &str = "minicni: to the pods of other nodes";

/// Why there is no tunnel, or it is not all that it should be. The next pass tries again.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// A device of somebody else has the name.
    #[error(
        "the tunnel cannot be made: there is a device {DEVICE} that minicni did not make (see `ip -d link show \
         {DEVICE}`); rename or remove it. Until then nodes are reached directly, or not at all"
    )]
    Foreign,
    /// The port is taken.
    #[error(
        "the tunnel cannot be made: UDP port {port} is taken (see `ip -d link show type vxlan` and `ss -ulpn`); free \
         it, or choose another on every node with --vxlan-port. Until then nodes are reached directly, or not at all"
    )]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// The kernel refused.
    #[error("the tunnel {DEVICE}: {0}")]
    Link(#[from] LinkError),
}

/// What the device should be.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// The UDP port.
    pub port: u16,
    /// Its MTU in bytes; `None` leaves it as it is.
    pub mtu: Option<u32>,
    /// What this host itself uses towards pods at the other end, so that their answers come back through the tunnel, too:
    /// the first of the pods' addresses, which no pod gets. Routes through the tunnel name it. Towards pods of this host the
    /// kernel would prefer it to the `InternalIP`, because it resembles theirs (RFC 6724, rule 8), if it were not set aside.
    pub pod_cidrs: Vec<IpNet>,
}

impl Tunnel {
    /// Makes the device what it should be, whatever became of it. Gives its index, if packets can go through it then, and
    /// what is wrong with it. An error means that nobody knows whether it is there.
    pub(super) fn keep(&self) -> Result<(Option<u32>, Option<TunnelError>), LinkError> {
        let mut socket = Socket::open()?;
        let found = socket.link_by_name(DEVICE)?;
        let link = match self.made(&mut socket, found) {
            Ok(link) => link,
            Err(error) => return Ok((None, Some(error))),
        };
        let error = self.configure(&mut socket, &link).err();
        // What cannot be set is no reason to take the routes away from those that use them.
        Ok((Some(link.ifindex).filter(|_| link.up || error.is_none()), error))
    }

    /// The device itself, `found` or new.
    fn made(&self, socket: &mut Socket, found: Option<LinkInfo>) -> Result<LinkInfo, TunnelError> {
        match found {
            // Without an alias it may be one whose maker was killed half way.
            Some(link) if link.vxlan == Some(Vxlan::routed(self.port)) => Ok(link),
            Some(link) if is_ours(&link) => {
                info!(device = DEVICE, "is made anew, with another configuration");
                socket.batch(vec![delete_link(link.ifindex)])?;
                self.create(socket)
            }
            Some(_) => Err(TunnelError::Foreign),
            None => self.create(socket),
        }
    }

    fn create(&self, socket: &mut Socket) -> Result<LinkInfo, TunnelError> {
        socket.batch(vec![vxlan(DEVICE, Vxlan::routed(self.port))]).map_err(|error| self.explained(error))?;
        info!(device = DEVICE, port = self.port, "tunnel made");
        let gone = || LinkError::Refused {
            operation: format!("look up dev {DEVICE}"),
            errno: Errno::ENODEV,
            reason: "somebody removed it at once".to_owned(),
        };
        Ok(socket.link_by_name(DEVICE)?.ok_or_else(gone)?)
    }

    fn configure(&self, socket: &mut Socket, link: &LinkInfo) -> Result<(), TunnelError> {
        let mut requests = Vec::new();
        if !is_ours(link) {
            requests.push(alias(link.ifindex, ALIAS));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| link.mtu != *mtu) {
            info!(device = DEVICE, mtu, "MTU set");
            requests.push(set_mtu(link.ifindex, mtu));
        }
        if !link.up {
            requests.extend([without_link_local(link.ifindex), link_up(link.ifindex)]);
        }
        let wanted: Vec<IpNet> = self.pod_cidrs.iter().map(|cidr| IpNet::from(cidr.network())).collect();
        let present = socket.addresses(link.ifindex)?;
        let lacking = wanted.iter().filter(|address| !present.contains(address));
        requests.extend(lacking.map(|lacking| address_aside(link.ifindex, *lacking)));
        // Later, because with a device's last address the kernel takes its routes away.
        let stale = present.iter().filter(|address| !wanted.contains(address));
        requests.extend(stale.map(|stale| delete_address(link.ifindex, *stale)));
        let set = if requests.is_empty() { Ok(()) } else { socket.batch(requests) };
        // What a node sends from its own address to a pod is answered through the tunnel.
        let loosened = loosen_rp_filter(DEVICE);
        set.map_err(|error| self.explained(error))?;
        Ok(loosened?)
    }

    fn explained(&self, error: LinkError) -> TunnelError {
        match error.errno().map(Errno::from_raw) {
            Some(Errno::EEXIST | Errno::EADDRINUSE) => TunnelError::PortTaken { port: self.port },
            _ => error.into(),
        }
    }
}

fn is_ours(link: &LinkInfo) -> bool {
    link.vxlan.is_some() && link.alias.as_deref() == Some(ALIAS)
}

/// Whether there is anything for [`remove`].
pub fn is_there() -> Result<bool, TunnelError> {
    Ok(Socket::open()?.link_by_name(DEVICE)?.is_some_and(|link| is_ours(&link)))
}

/// Removes the device, and the routes through it with it. Says whether there was one; somebody else's stays.
pub fn remove() -> Result<bool, TunnelError> {
    let mut socket = Socket::open()?;
    match socket.link_by_name(DEVICE)?.filter(is_ours) {
        Some(link) => {
            socket.batch(vec![delete_link(link.ifindex)])?;
            info!(device = DEVICE, "tunnel removed");
            Ok(true)
        }
        None => Ok(false),
    }
}
