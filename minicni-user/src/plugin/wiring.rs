//! A pod's wiring: a veth pair, routes and neighbours on the host, addresses and routes in the pod.

use std::{
    net::IpAddr,
    os::fd::AsFd as _,
    thread::sleep,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use minicni_common::{Endpoint, EndpointKind};
use nix::{errno::Errno, net::if_::if_nametoindex};

use super::{
    names::Names,
    pod::{PodRoute, anywhere, gateway, host_route, link_local, pod_route},
    unwire::unwire,
};
use crate::{
    cni::CniError,
    datapath::{Endpoints, Pins, Programs},
    link::{
        LinkError, MacAddress, Netns, Request, Socket, VethEnd, address, alias, delete_root_qdisc, link_up, neighbour,
        noqueue, route, set_group, sysctl, veth, without_link_local,
    },
    node::{CHECKED_GROUP, StateDir, attach},
};

/// How long an ADD waits for the kernel to take a pod's address for its own. After that the pod has to.
const RECEIVES_WITHIN: Duration = Duration::from_secs(2);

/// What is to be wired.
#[derive(Debug)]
pub(super) struct Wiring<'a> {
    pub(super) names: &'a Names,
    pub(super) ifname: &'a str,
    pub(super) netns: &'a Netns,
    /// One address, or one of each family.
    pub(super) addresses: &'a [IpAddr],
    pub(super) pod_mac: MacAddress,
    /// As in [`Endpoint::flags`].
    pub(super) flags: u32,
    pub(super) routes: &'a [PodRoute],
    pub(super) mtu: u32,
    /// For people who look at the host's end.
    pub(super) alias: &'a str,
}

/// A pod that could not be wired.
#[derive(Debug)]
pub(super) struct Unwired {
    pub(super) error: CniError,
    /// Whether something of it may be there still, so that its addresses must not go to another pod.
    pub(super) left: bool,
}

/// The programs of a node in eBPF mode, and where their maps are.
#[derive(Debug)]
pub(super) struct Attachable<'a> {
    pub(super) programs: Programs,
    pub(super) pins: &'a Pins,
}

impl Wiring<'_> {
    /// Wires the pod, or removes what was made of it. Gives the gateways of those default routes that are ours: an
    /// interface that was there before may have one already.
    pub(super) fn wire(&self, state: &StateDir, datapath: Option<&Attachable<'_>>) -> Result<Vec<IpAddr>, Unwired> {
        let nothing_left = |error: CniError| Unwired { error, left: false };
        let mut socket = Socket::open().map_err(|error| nothing_left(error.into()))?;
        // Where the pair could not be made, what bears its name belongs to someone else, unless nobody knows whether the
        // kernel made it.
        self.create_pair(&mut socket).map_err(|error| Unwired {
            left: !matches!(error, LinkError::Refused { .. } | LinkError::Invalid { .. }),
            error: self.explained(error),
        })?;
        self.wire_pair(&mut socket, datapath).map_err(|error| {
            match unwire(state, self.names, self.addresses, datapath.map(|datapath| datapath.pins)) {
                Ok(()) => nothing_left(error),
                Err(also) => Unwired { error: error.details(format!("and then: {also}")), left: true },
            }
        })
    }

    fn create_pair(&self, socket: &mut Socket) -> Result<(), LinkError> {
        let host = VethEnd { name: &self.names.host, ifindex: None, mac: self.names.host_mac, mtu: self.mtu };
        let pod = VethEnd { name: self.ifname, ifindex: None, mac: self.pod_mac, mtu: self.mtu };
        // Alone: a batch goes on after a failure, and would then change someone else's device.
        socket.batch(vec![veth(&host, &pod, self.netns.as_fd())?])
    }

    fn explained(&self, error: LinkError) -> CniError {
        let exists = error.errno() == Some(Errno::EEXIST as i32);
        let error = CniError::from(error);
        if !exists {
            return error;
        }
        let (pod, host) = (self.ifname, &self.names.host);
        error.details(format!("there is an interface {pod} in the container, or {host} on the host, already"))
    }

    fn wire_pair(&self, socket: &mut Socket, datapath: Option<&Attachable<'_>>) -> Result<Vec<IpAddr>, CniError> {
        let ifindex = index_of(&self.names.host)?;
        socket.batch(vec![alias(ifindex, self.alias), without_link_local(ifindex)])?;
        // A pod must not be the host's router: https://nvd.nist.gov/vuln/detail/CVE-2020-10749
        without_ipv6(set_sysctl("ipv6", &self.names.host, "accept_ra", "0"))?;
        if self.addresses.iter().any(IpAddr::is_ipv6) {
            sysctl::ensure(&sysctl::device_key("ipv6", &self.names.host, "disable_ipv6")?, "0")?;
        }
        let (gateways, mut pod) = self.netns.run(|| self.wire_pod())??;
        // Only now that the pod's end is up: the kernel lets the host's end send when its other end comes up, but does so
        // from a work queue, and drops what comes before. Adding a qdisc to a device that has its carrier does it at once
        // (`dev_activate` in `qdisc_graft`): https://elixir.bootlin.com/linux/v6.12/source/net/sched/sch_api.c#L1130
        let mut host = match datapath {
            Some(datapath) => Vec::from(attach::attachments(ifindex, &datapath.programs)),
            None => self.without_programs(ifindex)?,
        };
        for address in self.addresses {
            host.push(neighbour(ifindex, *address, self.pod_mac));
            host.push(route(&host_route(*address, ifindex)));
        }
        socket.batch(host)?;
        if let Some(datapath) = datapath {
            // Last, so that the programs trust an interface only once it is complete.
            Endpoints::open(datapath.pins)?.insert(ifindex, &self.endpoint())?;
        }
        self.until_received(&mut pod)?;
        Ok(gateways)
    }

    /// Waits until the pod receives what is sent to its addresses. Of an IPv6 address the kernel sees to that from a work queue,
    /// behind whoever has its network lock, also without duplicate address detection, and what comes before is lost:
    /// <https://elixir.bootlin.com/linux/v6.12/source/net/ipv6/addrconf.c#L4157>
    fn until_received(&self, pod: &mut Socket) -> Result<(), LinkError> {
        let start = Instant::now();
        for address in self.addresses.iter().filter(|address| address.is_ipv6()) {
            while !pod.is_local(*address)? && start.elapsed() < RECEIVES_WITHIN {
                sleep(Duration::from_micros(100));
            }
        }
        Ok(())
    }

    /// Activates a device, and leaves it as a plugin behind us expects it: without a qdisc. No program looks after the
    /// pod's source address there, so that the kernel has to.
    fn without_programs(&self, ifindex: u32) -> Result<Vec<Request<'static>>, LinkError> {
        let mut requests = vec![noqueue(ifindex), delete_root_qdisc(ifindex)];
        if self.flags & Endpoint::NO_SPOOF_CHECK == 0 {
            set_sysctl("ipv4", &self.names.host, "rp_filter", "1")?;
            // What rp_filter does not do for IPv6, a rule of the daemon's does for this group.
            requests.push(set_group(ifindex, CHECKED_GROUP));
        }
        Ok(requests)
    }

    /// Gives the gateways of [`Wiring::wire`], and a socket of the pod's namespace.
    fn wire_pod(&self) -> Result<(Vec<IpAddr>, Socket), LinkError> {
        let mut socket = Socket::open()?;
        let ifindex = index_of(self.ifname)?;
        let mut requests = Vec::new();
        if self.addresses.iter().any(IpAddr::is_ipv6) {
            for device in ["lo", self.ifname] {
                sysctl::ensure(&sysctl::device_key("ipv6", device, "disable_ipv6")?, "0")?;
            }
            set_sysctl("ipv6", self.ifname, "accept_ra", "0")?;
            // As IPv4 does without being asked.
            set_sysctl("ipv6", self.ifname, "keep_addr_on_down", "1")?;
            // The kernel's own would be tentative for a second, and with it whatever is sent from it.
            requests.extend([without_link_local(ifindex), address(ifindex, link_local(self.pod_mac), true)]);
        }
        requests.push(link_up(ifindex));
        let mut gateways = Vec::new();
        for own in self.addresses {
            let gateway = gateway(*own);
            requests.extend([
                address(ifindex, IpNet::from(*own), own.is_ipv6()),
                neighbour(ifindex, gateway, self.names.host_mac),
                route(&pod_route(anywhere(*own), None, ifindex)),
            ]);
            match socket.batch(std::mem::take(&mut requests)) {
                Ok(()) => gateways.push(gateway),
                // On a new device nothing but the default route can be there already.
                Err(error) if error.errno() == Some(Errno::EEXIST as i32) => {}
                Err(error) => return Err(error),
            }
        }
        let routes = self.routes.iter().map(|further| route(&pod_route(further.destination, further.mtu, ifindex)));
        socket.batch(routes.collect())?;
        Ok((gateways, socket))
    }

    /// What the endpoint map says of the pod.
    pub(super) fn endpoint(&self) -> Endpoint {
        let mut endpoint = Endpoint {
            kind: EndpointKind::Pod as u32,
            flags: self.flags,
            ipv4: [0; 4],
            mac: self.pod_mac.0,
            reserved: [0; 2],
            ipv6: [0; 16],
        };
        for address in self.addresses {
            match address {
                IpAddr::V4(address) => endpoint.ipv4 = address.octets(),
                IpAddr::V6(address) => endpoint.ipv6 = address.octets(),
            }
        }
        endpoint
    }
}

/// The index of a device in this thread's namespace.
fn index_of(name: &str) -> Result<u32, LinkError> {
    if_nametoindex(name).map_err(|errno| LinkError::Refused {
        operation: format!("look for dev {name}"),
        errno,
        reason: String::new(),
    })
}

fn set_sysctl(family: &str, device: &str, setting: &str, value: &str) -> Result<(), LinkError> {
    sysctl::write(&sysctl::device_key(family, device, setting)?, value)
}

/// Takes it for success that a kernel has no IPv6.
fn without_ipv6(result: Result<(), LinkError>) -> Result<(), LinkError> {
    match result {
        Err(error) if error.errno() == Some(Errno::ENOENT as i32) => Ok(()),
        result => result,
    }
}
