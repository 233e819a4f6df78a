//! The network between the nodes: a bridge in a namespace of its own, which is also their router to the outside.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use minicni::link::{Netns, sysctl};

use crate::{
    command,
    lab::{NETNS_DIR, UPLINK, entries, netns_path},
};

/// The host outside of the cluster.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 2);
/// The same over IPv6.
pub const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0xfd31, 0, 0, 0, 0, 0, 0, 2);

/// Who is wired to the underlay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// The control plane.
    Control,
    /// A node, from 1.
    Node(u8),
    /// A host on another network, which knows none of the cluster's.
    Outside,
}

impl Place {
    /// Its addresses, IPv4 first.
    pub fn addresses(self) -> [IpAddr; 2] {
        let host = match self {
            Self::Control => 10,
            Self::Node(number) => 10 + number,
            Self::Outside => return [OUTSIDE.into(), OUTSIDE6.into()],
        };
        [Ipv4Addr::new(172, 30, 0, host).into(), Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, host.into()).into()]
    }

    /// The router's addresses on its network.
    fn gateways(self) -> [IpAddr; 2] {
        let network = if self == Self::Outside { 31 } else { 30 };
        let network6 = if self == Self::Outside { 0xfd31 } else { 0xfd30 };
        [Ipv4Addr::new(172, network, 0, 1).into(), Ipv6Addr::new(network6, 0, 0, 0, 0, 0, 0, 1).into()]
    }

    /// How its namespace is called after the cluster, and its cable in the switch.
    fn name(self) -> String {
        match self {
            Self::Control => "control".to_owned(),
            Self::Node(number) => format!("node{number}"),
            Self::Outside => "outside".to_owned(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Underlay {
    cluster: String,
}

impl Underlay {
    pub(super) fn create(cluster: &str) -> Result<Self> {
        fs::create_dir_all(NETNS_DIR).context("create the directory of named namespaces")?;
        let this = Self { cluster: cluster.to_owned() };
        let switch = Netns::create_named(netns_path(&this.switch()))?;
        switch.run(|| -> Result<()> {
            // Frames between nodes are not the router's business.
            for key in ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"] {
                let path = Path::new("/proc/sys/net").join(key);
                if path.exists() {
                    fs::write(path, "0")?;
                }
            }
            fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            Ok(fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?)
        })??;
        ip(&this.switch(), &["link", "add", "nodes", "type", "bridge"])?;
        Self::give(&this.switch(), "nodes", Place::Control.gateways())?;
        Ok(this)
    }

    /// Makes the namespace of a place and wires it, and says where the namespace is.
    pub(super) fn attach(&self, place: Place) -> Result<PathBuf> {
        let (switch, name) = (self.switch(), place.name());
        let netns = format!("{}-{name}", self.cluster);
        Netns::create_named(self.path(place))?;
        ip(&switch, &["link", "add", &name, "type", "veth", "peer", "name", UPLINK, "netns", &netns])?;
        if place == Place::Outside {
            Self::give(&switch, &name, place.gateways())?;
        } else {
            ip(&switch, &["link", "set", &name, "master", "nodes", "up"])?;
        }
        Self::give(&netns, UPLINK, place.addresses())?;
        for gateway in place.gateways() {
            ip(&netns, &["route", "add", "default", "via", &gateway.to_string()])?;
        }
        Ok(self.path(place))
    }

    /// Removes the namespace of a place, and with it the cable.
    pub(super) fn detach(&self, place: Place) -> Result<()> {
        // The kernel takes a namespace apart later than its name goes; another of this name needs the cable's now.
        ip(&self.switch(), &["link", "delete", &place.name()])?;
        Ok(Netns::delete_named(&self.path(place))?)
    }

    /// Where the namespace of a place is.
    pub(super) fn path(&self, place: Place) -> PathBuf {
        netns_path(&format!("{}-{}", self.cluster, place.name()))
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.cluster)
    }

    fn give(netns: &str, device: &str, addresses: [IpAddr; 2]) -> Result<()> {
        // Until its link-local address is proven unique, a node asks for no neighbour on behalf of others.
        Netns::open(netns_path(netns))?
            .run(|| sysctl::write(&sysctl::device_key("ipv6", device, "accept_dad")?, "0"))??;
        for address in addresses {
            let prefix = format!("{address}/{}", if address.is_ipv4() { 24 } else { 64 });
            ip(netns, &["address", "add", &prefix, "dev", device])?;
        }
        ip(netns, &["link", "set", device, "up"])
    }
}

fn ip(netns: &str, arguments: &[&str]) -> Result<()> {
    command::run(Command::new("ip").args(["-n", netns]).args(arguments))
}

/// Removes the namespaces of a cluster, and with them the cables between them.
pub(super) fn remove(cluster: &str) -> Result<()> {
    for netns in entries(Path::new(NETNS_DIR))? {
        if netns.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&format!("{cluster}-"))) {
            Netns::delete_named(&netns)?;
        }
    }
    Ok(())
}
