//! The kernel's routes and addresses, by rtnetlink.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::dumps::Dumps;
use super::encapsulation;
use super::plan::{LocalPrefix, Op, ROUTE_PROTOCOL, RouteSpec};
use crate::link::{LinkError, Request, Socket};

/// The kernel's state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Open(io::Error),
    /// No netlink socket for changes.
    #[error(transparent)]
    Changes(#[from] LinkError),
    /// A dump failed.
    #[error("cannot list the kernel's {what}: {source}")]
    Dump {
        /// What was asked for.
        what: &'static str,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// A change that did not happen. The next pass tries again.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else has a route to the same destination, which is left alone.
    #[error(
        "cannot {op}: a route that is not minicni's has the same destination (protocol {protocol}, see `ip {}route \
         show {dst}`); remove it, or stop what adds it", if dst.addr().is_ipv4() { "" } else { "-6 " }
    )]
    Foreign {
        /// What was attempted.
        op: Op,
        /// The destination.
        dst: IpNet,
        /// Who made the other route (`rtm_protocol`).
        protocol: u8,
    },
    /// The kernel refused.
    #[error("cannot {op}: {source}")]
    Refused {
        /// What was attempted.
        op: Op,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl ApplyError {
    /// What was attempted.
    pub fn op(&self) -> &Op {
        match self {
            Self::Foreign { op, .. } | Self::Refused { op, .. } => op,
        }
    }
}

/// The routes of one network namespace: of the thread that opened it.
pub struct Kernel {
    dumps: Dumps,
    /// By which routes are changed. One for all time, so that notifications tell these changes from those of others.
    changes: Mutex<Socket>,
    port: u32,
}

impl Kernel {
    /// Opens the netlink sockets. Needs a tokio runtime.
    pub fn new() -> Result<Self, KernelError> {
        let dumps = Dumps::open().map_err(KernelError::Open)?;
        let changes = Socket::open()?;
        Ok(Self { dumps, port: changes.port()?, changes: Mutex::new(changes) })
    }

    /// The netlink port from which routes are changed here.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Our routes in the main table, IPv4 first, in the kernel's order.
    pub async fn actual(&self) -> Result<Vec<RouteSpec>, KernelError> {
        self.routes(ROUTE_PROTOCOL).await
    }

    /// Addresses of all interfaces that are up; the kernel refuses routes through the others. Without those that are valid
    /// on one link only, and those that may yet turn out to be another host's (duplicate address detection).
    pub async fn local_prefixes(&self) -> Result<Vec<LocalPrefix>, KernelError> {
        let mut up = HashMap::new();
        for answer in self.dumps.list("interfaces", RouteNetlinkMessage::GetLink(LinkMessage::default())).await? {
            let RouteNetlinkMessage::NewLink(link) = answer else { continue };
            if link.header.flags.contains(LinkFlags::Up) {
                let (mut name, mut mtu) = (String::new(), 0);
                for attribute in link.attributes {
                    match attribute {
                        LinkAttribute::IfName(text) => name = text,
                        LinkAttribute::Mtu(bytes) => mtu = bytes,
                        _ => {}
                    }
                }
                up.insert(link.header.index, (name, mtu));
            }
        }
        let addresses =
            self.dumps.list("addresses", RouteNetlinkMessage::GetAddress(AddressMessage::default())).await?;
        let prefixes = addresses.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => local_prefix(address, up.get(&address.header.index)?),
            _ => None,
        });
        Ok(prefixes.collect())
    }

    /// Applies all, whatever happens to each of them, and returns what failed. Never touches a route that is not ours.
    pub async fn apply(&self, ops: &[Op]) -> Vec<ApplyError> {
        // `NLM_F_REPLACE` would replace the route of somebody else as gladly as ours. One that is added replaces none.
        let replaces = ops.iter().any(|op| matches!(op, Op::Replace { .. }));
        let foreign = if replaces { self.foreign().await } else { Ok(HashMap::new()) };
        let foreign = match foreign {
            Ok(foreign) => foreign,
            // Not knowing what is there, nothing is safe.
            Err(error) => {
                let refused =
                    |op: &Op| ApplyError::Refused { op: op.clone(), source: io::Error::other(error.to_string()) };
                return ops.iter().map(refused).collect();
            }
        };
        let (mut errors, mut wanted) = (Vec::new(), Vec::new());
        for op in ops {
            match in_the_way(op, &foreign) {
                Some(error) => errors.push(error),
                None => wanted.push(op),
            }
        }
        // Many in one system call: there are thousands where a node of a large cluster starts.
        let requests = wanted.iter().map(|op| request(op)).collect();
        // Answers are matched by number, so what a panic left unread disturbs nothing.
        let failures = self.changes.lock().unwrap_or_else(PoisonError::into_inner).batch_each(requests);
        match failures {
            Ok(failures) => {
                let failed = wanted.into_iter().zip(failures).filter_map(|(op, failure)| Some((op, failure?)));
                errors.extend(self.explained(failed.collect()).await);
            }
            // Some may have been applied: the next pass sees which.
            Err(error) => errors.extend(wanted.into_iter().map(|op| refused(op, &error))),
        }
        errors
    }

    /// Finds out whose route was in the way of those that could not be added.
    async fn explained(&self, failed: Vec<(&Op, LinkError)>) -> Vec<ApplyError> {
        let exists = |error: &LinkError| matches!(error, LinkError::Refused { errno: Errno::EEXIST, .. });
        let foreign = if failed.iter().any(|(_, error)| exists(error)) {
            // If that cannot be found out, what the kernel said has to do.
            self.foreign().await.unwrap_or_default()
        } else {
            HashMap::new()
        };
        let explain = |(op, error): (&Op, LinkError)| {
            in_the_way(op, &foreign).filter(|_| exists(&error)).unwrap_or_else(|| refused(op, &error))
        };
        failed.into_iter().map(explain).collect()
    }

    /// Who made the routes that are not ours, by destination and metric, which must differ between two routes.
    async fn foreign(&self) -> Result<HashMap<(IpNet, u32), u8>, KernelError> {
        let mut routes = self.routes(u8::from(RouteProtocol::Unspec)).await?;
        routes.retain(|route| route.protocol != ROUTE_PROTOCOL);
        Ok(routes.into_iter().map(|route| ((route.dst, route.metric), route.protocol)).collect())
    }

    /// Routes of the main table; `RTPROT_UNSPEC` for all protocols.
    async fn routes(&self, protocol: u8) -> Result<Vec<RouteSpec>, KernelError> {
        let mut specs = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            filter.header.table = RouteHeader::RT_TABLE_MAIN;
            filter.header.protocol = protocol.into();
            let routes = match self.dumps.list("routes", RouteNetlinkMessage::GetRoute(filter)).await {
                // A namespace that never had a route has no table.
                Err(KernelError::Dump { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => Vec::new(),
                routes => routes?,
            };
            specs.extend(routes.iter().filter_map(|answer| match answer {
                // A kernel without IPv6 answers with the routes that it has.
                RouteNetlinkMessage::NewRoute(route) if route.header.address_family == family => route_spec(route),
                _ => None,
            }));
        }
        specs.retain(|spec| protocol == u8::from(RouteProtocol::Unspec) || spec.protocol == protocol);
        Ok(specs)
    }
}

/// What the kernel is asked for.
fn request(op: &Op) -> Request<'static> {
    let operation = op.to_string();
    match op {
        Op::Add(route) => {
            Request::new(operation, RouteNetlinkMessage::NewRoute(message(route)), NLM_F_CREATE | NLM_F_EXCL)
        }
        Op::Replace { new, .. } => {
            Request::new(operation, RouteNetlinkMessage::NewRoute(message(new)), NLM_F_CREATE | NLM_F_REPLACE)
        }
        Op::Delete(route) => {
            let mut message = message(route);
            // Match whatever type and scope it has: a blackhole of ours is swept, too.
            message.header.kind = RouteType::Unspec;
            message.header.scope = RouteScope::NoWhere;
            Request::new(operation, RouteNetlinkMessage::DelRoute(message), 0).tolerate(Errno::ESRCH)
        }
    }
}

/// What is wrong where a route that is not ours is to the same destination.
fn in_the_way(op: &Op, foreign: &HashMap<(IpNet, u32), u8>) -> Option<ApplyError> {
    let (Op::Add(route) | Op::Replace { new: route, .. }) = op else { return None };
    let protocol = *foreign.get(&(route.dst, route.metric))?;
    Some(ApplyError::Foreign { op: op.clone(), dst: route.dst, protocol })
}

fn refused(op: &Op, error: &LinkError) -> ApplyError {
    let source = match error {
        LinkError::Refused { errno, reason, .. } if reason.is_empty() => (*errno).into(),
        LinkError::Refused { errno, reason, .. } => io::Error::other(format!("{errno} ({reason})")),
        other => io::Error::other(other.to_string()),
    };
    ApplyError::Refused { op: op.clone(), source }
}

fn message(route: &RouteSpec) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = if route.dst.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = route.protocol.into();
    message.header.kind = RouteType::Unicast;
    message.header.destination_prefix_length = route.dst.prefix_len();
    message.attributes.push(RouteAttribute::Destination(route.dst.addr().into()));
    message.attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    message.attributes.extend(route.ifindex.map(RouteAttribute::Oif));
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    if let Some(encap) = &route.encap {
        message.attributes.extend(encapsulation::attributes(encap));
    }
    if route.metric != 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}

/// `None` for what is not a route of the main table, or only one for some type of service, which clashes with no other, or
/// what the kernel learnt about one destination of a route, such as its MTU.
fn route_spec(message: &RouteMessage) -> Option<RouteSpec> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.tos != 0 || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut dst = match header.address_family {
        AddressFamily::Inet6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::from(Ipv4Addr::UNSPECIFIED),
    };
    let (mut gateway, mut ifindex, mut source, mut encap, mut metric) = (None, None, None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => dst = ip_addr(address)?,
            RouteAttribute::Gateway(address) => gateway = ip_addr(address),
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::PrefSource(address) => source = ip_addr(address),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Encap(attributes) => encap = Some(encapsulation::parse(attributes)),
            _ => {}
        }
    }
    let dst = IpNet::new(dst, message.header.destination_prefix_length).ok()?;
    Some(RouteSpec { dst, gateway, ifindex, source, encap, metric, protocol: message.header.protocol.into() })
}

fn ip_addr(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// `IFA_LOCAL` is the host's address, `IFA_ADDRESS` the peer's on a point-to-point interface. IPv6 mostly has only the
/// latter.
fn local_prefix(message: &AddressMessage, (ifname, mtu): &(String, u32)) -> Option<LocalPrefix> {
    let (mut address, mut local) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Local(ip) => local = Some(*ip),
            _ => {}
        }
    }
    let own = local.or(address)?;
    let link_local = matches!(own, IpAddr::V6(ip) if ip.is_unicast_link_local());
    // An address that was found to be another host's stays tentative.
    if link_local || message.header.flags.contains(AddressHeaderFlags::Tentative) {
        return None;
    }
    let on_link = IpNet::new(address.or(local)?, message.header.prefix_len).ok()?.trunc();
    Some(LocalPrefix { ifindex: message.header.index, ifname: ifname.clone(), address: own, on_link, mtu: *mtu })
}
