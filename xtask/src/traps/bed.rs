//! Two nodes and a host outside on one network, with pods, servers and rules.

use std::{collections::BTreeMap, fs, net::IpAddr, os::unix::fs::PermissionsExt as _, process::Command};

use anyhow::{Context as _, Result};
use minicni::link::{Netns, sysctl};

use super::{
    matrix::{Conntrack, Rules, Setting},
    server::Server,
    services::{self, PORT, Targets},
};
use crate::{
    command,
    lab::{
        Families, Lab, Node, Pod, Programs, directory,
        rules::{Backend, kube_proxy::Service},
    },
};

/// The lab's name.
pub(super) const LAB: &str = "minicni-traps";
/// After how many seconds without packets conntrack forgets a UDP flow.
pub(super) const UDP_TIMEOUT: u64 = 6;
/// The MTU of the route to the narrow pods; the interfaces have 1500.
pub(super) const NARROW: u32 = 1400;
/// The pods of each node; the last one's route is narrow.
const PODS: [&[&str]; 2] = [&["a", "b", "c", "d", "n"], &["r", "s", "t", "m"]];
const NARROW_PODS: [&str; 2] = ["n", "m"];

/// Where the cells of one setting are looked at.
pub(super) struct Bed {
    pub(super) setting: Setting,
    pub(super) backend: Backend,
    pub(super) outside: Netns,
    pub(super) targets: Targets,
    pub(super) services: Vec<Service>,
    servers: Vec<Server>,
    pods: BTreeMap<&'static str, Pod>,
    pub(super) lab: Lab,
}

impl Bed {
    /// Makes everything that the cells of a setting need.
    pub(super) fn new(setting: Setting, programs: &Programs) -> Result<Self> {
        let families = if setting.ipv6 { Families::V6 } else { Families::V4 };
        let backend = match setting.rules {
            Rules::IptablesLegacy => Backend::IptablesLegacy,
            Rules::IptablesNft => Backend::IptablesNft,
            Rules::Nftables => Backend::Nftables,
            Rules::Ipvs => Backend::Ipvs,
        };
        let mut used = programs.clone();
        if setting.conntrack == Conntrack::Strict {
            used.minicnid = directory(LAB).join("strict/minicnid");
        }
        let mut lab = Lab::with_families(LAB, 2, used, families)?;
        if setting.conntrack == Conntrack::Strict {
            hold_back(&lab, programs)?;
        }
        let outside = connect(&lab, setting.ipv6)?;
        lab.nodes.iter().try_for_each(|node| node.netns.run(set_node)?)?;
        lab.start_daemons()?;
        let mut pods = BTreeMap::new();
        for (node, names) in lab.nodes.iter().zip(PODS) {
            for name in names {
                pods.insert(*name, node.pod(name)?);
            }
        }
        let address = |name: &str| -> Result<IpAddr> {
            let pod = pods.get(name).with_context(|| format!("there is no pod {name}"))?;
            pod.addresses().first().copied().with_context(|| format!("pod {name} has no address"))
        };
        let targets = Targets::new(setting.ipv6, &lab.nodes[0], address)?;
        let services = targets.services();
        let mut bed = Self { setting, backend, outside, targets, services, servers: Vec::new(), pods, lab };
        bed.prepare()?;
        Ok(bed)
    }

    fn prepare(&mut self) -> Result<()> {
        let ipv6 = self.setting.ipv6;
        for (name, pod) in &self.pods {
            pod.netns.run(unlimited_errors)??;
            self.servers.push(Server::start(&pod.netns, name, (self.targets.pod(name), PORT).into())?);
        }
        self.outside.run(unlimited_errors)??;
        for address in [self.targets.outside, self.targets.narrow_outside] {
            self.servers.push(Server::start(&self.outside, "outside", (address, PORT).into())?);
        }
        for (node, name) in self.lab.nodes.iter().zip(NARROW_PODS) {
            let (pod, family) = (&self.pods[name], if ipv6 { "-6" } else { "-4" });
            let prefix = format!("{}/{}", pod.addresses()[0], if ipv6 { 128 } else { 32 });
            // The plugin's route is replaced, with all that it says but the MTU.
            narrow(node, &[family, "route", "replace", &prefix, "proto", "110", "dev", pod.host_interface()?])?;
        }
        let narrow_outside = self.targets.narrow_outside.to_string();
        narrow(self.node(), &[if ipv6 { "-6" } else { "-4" }, "route", "add", &narrow_outside, "dev", "eth0"])?;
        services::install(self)
    }

    /// The namespace of a pod, or of the host outside.
    pub(super) fn netns(&self, name: &str) -> &Netns {
        self.pods.get(name).map_or(&self.outside, |pod| &pod.netns)
    }

    /// The node whose kube-proxy translates what the cells send.
    pub(super) fn node(&self) -> &Node {
        &self.lab.nodes[0]
    }

    /// Ends the daemons.
    pub(super) fn stop_daemons(&self) -> Result<()> {
        self.lab.nodes.iter().try_for_each(Node::stop_daemon)
    }
}

/// Sets a route on a node that is narrower than its interface.
fn narrow(node: &Node, route: &[&str]) -> Result<()> {
    node.run(Command::new("ip").args(route).args(["mtu", &NARROW.to_string()])).map(drop)
}

/// A node whose conntrack forgets UDP soon, and that tells every error.
fn set_node() -> Result<()> {
    for timeout in ["udp_timeout", "udp_timeout_stream"] {
        sysctl::write(&format!("net/netfilter/nf_conntrack_{timeout}"), &UDP_TIMEOUT.to_string())?;
    }
    unlimited_errors()
}

/// The kernel sends one ICMP error a second to each peer, unless it is told otherwise.
fn unlimited_errors() -> Result<()> {
    sysctl::write("net/ipv4/icmp_ratelimit", "0")?;
    sysctl::write("net/ipv6/icmp/ratelimit", "0")?;
    Ok(())
}

/// Lets the daemons find all settings of the kernel read-only, as in a container without privileges: those that it cannot do
/// without are made, `nf_conntrack_tcp_be_liberal` is not.
fn hold_back(lab: &Lab, programs: &Programs) -> Result<()> {
    let wrapper = directory(LAB).join("strict/minicnid");
    fs::create_dir_all(wrapper.parent().context("the wrapper has a directory")?)?;
    let script = format!(
        "#!/bin/sh\nexec unshare --mount sh -c 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && \
         exec \"$0\" \"$@\"' {} \"$@\"\n",
        programs.minicnid.display()
    );
    fs::write(&wrapper, script)?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    let settings = || -> Result<()> {
        sysctl::write("net/ipv4/ip_forward", "1")?;
        sysctl::write("net/ipv6/conf/all/forwarding", "1")?;
        Ok(sysctl::write("net/netfilter/nf_conntrack_tcp_ignore_invalid_rst", "1")?)
    };
    lab.nodes.iter().try_for_each(|node| node.netns.run(settings)?)
}

/// Puts a switch in the place of the wire between the nodes, and a host outside beside them.
fn connect(lab: &Lab, ipv6: bool) -> Result<Netns> {
    let path = |name: &str| format!("/run/netns/{LAB}-{name}");
    let switch = Netns::create_named(path("switch"))?;
    let outside = Netns::create_named(path("outside"))?;
    let ip = |netns: &Netns, line: &str| -> Result<()> {
        netns.run(|| command::run(Command::new("ip").args(line.split(' '))))?
    };
    ip(&switch, "link add switch type bridge")?;
    ip(&switch, "link set switch up")?;
    ip(&lab.nodes[0].netns, "link del eth0")?;
    for (number, name) in [(1, "node1"), (2, "node2"), (9, "outside")] {
        ip(&switch, &format!("link add port{number} type veth peer name eth0 netns {LAB}-{name}"))?;
        ip(&switch, &format!("link set port{number} master switch up"))?;
        let netns = lab.nodes.iter().find(|node| node.name == name).map_or(&outside, |node| &node.netns);
        let last: &[u8] = if number == 9 { &[9, 10] } else { &[number] };
        // Until its link-local address is proven unique, a node asks for no neighbour on behalf of others.
        netns.run(|| sysctl::write(&sysctl::device_key("ipv6", "eth0", "accept_dad")?, "0"))??;
        for last in last {
            // IPv6 may choose among addresses; it does not choose one that is not preferred.
            let rest = if *last == 10 { "nodad preferred_lft 0" } else { "nodad" };
            let address = if ipv6 { format!("fd77:77::{last:x}/64 {rest}") } else { format!("192.168.77.{last}/24") };
            ip(netns, &format!("address add {address} dev eth0"))?;
        }
        ip(netns, "link set eth0 up")?;
    }
    let route = |prefix: &str, gateway| ip(&outside, &format!("route add {prefix} via {gateway}"));
    let (prefix, gateway): (_, IpAddr) = if ipv6 {
        (services::EXTERNAL_PREFIX6, lab.nodes[0].address6.into())
    } else {
        (services::EXTERNAL_PREFIX4, lab.nodes[0].address.into())
    };
    route(prefix, gateway)?;
    Ok(outside)
}
