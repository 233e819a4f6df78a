//! Attachments that no DEL comes for: for GC, for the daemon's sweep, and for people.

use std::{collections::HashSet, fs, io, net::IpAddr, time::Duration};

use super::{HOST_PREFIX, names::Names, pod::ENDPOINT_ROUTE_PROTOCOL, unwire::unwire};
use crate::{
    cni::{CniError, Code},
    datapath::Pins,
    ipam::{Lease, LeaseState, Owner, Store, boottime},
    link::{RouteFilter, Socket},
    node::{Facts, NodeError, StateDir, boot_id},
};

/// How old the lease of a missing device must be to count as dead where the runtime does not say what is valid: an ADD
/// takes its lease before it makes the device.
pub const UNFINISHED_ADD: Duration = Duration::from_mins(1);

/// An attachment that has a lease and no device, and with the device no namespace it led into. Nor does a route to its
/// address lead to a device of another name: the kernel removes routes with their device, so somebody renamed it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Dead {
    /// The network's name.
    pub network: String,
    /// Whose lease it is.
    pub owner: Owner,
    /// When it was leased, see [`boottime`]. A later ADD of the same owner has another one.
    pub since: u64,
}

/// The networks that ever had a lease here, by name.
pub fn networks(state: &StateDir) -> Result<Vec<String>, CniError> {
    let path = state.root().join("ipam");
    let list = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort_unstable();
        Ok(names)
    };
    match list() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        names => names.map_err(|source| NodeError::File { action: "list", path, source }.into()),
    }
}

/// The leases of a network; `None` where there was none in this boot.
pub fn leases(state: &StateDir, network: &str) -> Result<Option<Store>, CniError> {
    Ok(Store::recorded(&state.ipam(network), &boot_id()?))
}

/// The name of an attachment's device on the host.
pub fn device(network: &str, owner: &Owner) -> String {
    Names::new(network, owner.container_id(), owner.ifname()).host
}

/// The attachments of a network whose device is missing in this thread's namespace, and whose lease is at least so old.
pub fn dead(state: &StateDir, network: &str, age: Duration) -> Result<Vec<Dead>, CniError> {
    let Some(store) = leases(state, network)? else { return Ok(Vec::new()) };
    Facts::check_home(state)?;
    let leases = store.list()?;
    // After the leases: what is leased later is not among them.
    let wired = Wired::look()?;
    let now = boottime();
    let mut dead = Vec::new();
    for lease in leases {
        let LeaseState::Leased { owner, since, .. } = lease.state else { continue };
        let one = Dead { network: network.to_owned(), owner, since };
        let old = now.saturating_sub(since) >= age.as_secs();
        // An owner of two families has two leases.
        if old && !wired.has(network, &one.owner, lease.address) && !dead.contains(&one) {
            dead.push(one);
        }
    }
    Ok(dead)
}

/// Releases the lease of an attachment of [`dead`], if it still is dead, and removes what its wiring left; says which
/// addresses that were.
pub fn reclaim(state: &StateDir, pins: &Pins, dead: &Dead) -> Result<Vec<IpAddr>, CniError> {
    let Dead { network, owner, since: seen } = dead;
    let Some(store) = leases(state, network)? else { return Ok(Vec::new()) };
    // Whoever holds it is at work on it, so it is not dead.
    let Some(_held) = store.try_hold(owner)? else { return Ok(Vec::new()) };
    let leases = store.leases_of(owner)?;
    let wired = Wired::look()?;
    let still = |lease: &Lease| {
        matches!(lease.state, LeaseState::Leased { since, .. } if since == *seen)
            && !wired.has(network, owner, lease.address)
    };
    if !leases.iter().all(still) {
        return Ok(Vec::new());
    }
    release(state, &store, pins, network, owner)
}

/// Detaches a container as DEL does, whether or not its device is there; says which addresses it had.
pub fn detach(state: &StateDir, pins: &Pins, network: &str, owner: &Owner) -> Result<Vec<IpAddr>, CniError> {
    let Some(store) = leases(state, network)? else { return Ok(Vec::new()) };
    let Some(_held) = store.try_hold(owner)? else {
        return Err(CniError::new(Code::TryAgain, format!("an ADD or DEL of {owner} is at work; try again")));
    };
    release(state, &store, pins, network, owner)
}

/// Whether the device of an attachment is in this thread's namespace.
pub fn has_device(network: &str, owner: &Owner) -> Result<bool, CniError> {
    let link = Socket::open()?.link_by_name(&device(network, owner))?;
    Ok(link.is_some_and(|link| link.kind.as_deref() == Some("veth")))
}

/// What this thread's namespace has of pods.
struct Wired {
    devices: HashSet<String>,
    /// Addresses whose route leads to a device with another name than minicni gives.
    renamed: HashSet<IpAddr>,
}

impl Wired {
    fn look() -> Result<Self, CniError> {
        let mut socket = Socket::open()?;
        let mut links = socket.links()?;
        links.retain(|link| link.kind.as_deref() == Some("veth") && link.name.starts_with(HOST_PREFIX));
        let named: HashSet<_> = links.iter().map(|link| link.ifindex).collect();
        let routes = socket.routes(RouteFilter { protocol: Some(ENDPOINT_ROUTE_PROTOCOL), ifindex: None })?.into_iter();
        let renamed = routes.filter(|route| !named.contains(&route.ifindex)).map(|route| route.destination.addr());
        Ok(Self { renamed: renamed.collect(), devices: links.into_iter().map(|link| link.name).collect() })
    }

    fn has(&self, network: &str, owner: &Owner, address: IpAddr) -> bool {
        self.devices.contains(&device(network, owner)) || self.renamed.contains(&address)
    }
}

fn release(
    state: &StateDir,
    store: &Store,
    pins: &Pins,
    network: &str,
    owner: &Owner,
) -> Result<Vec<IpAddr>, CniError> {
    Facts::check_home(state)?;
    let addresses = store.addresses_of(owner)?;
    unwire(state, &Names::new(network, owner.container_id(), owner.ifname()), &addresses, Some(pins))?;
    Ok(store.release(owner)?)
}
