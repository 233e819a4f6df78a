//! What kube-proxy knows: services, their endpoints, and the node it runs on. The rules that it makes of that are in one
//! module for each of its modes: `iptables`, `nftables`, `ipvs`.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

use super::{Backend, iptables, ipvs, nftables};
use crate::lab::{Node, traffic::Protocol};

/// The bit that marks what is to be masqueraded, as kube-proxy has it.
pub(super) const MASQUERADE_MARK: &str = "0x4000";

/// One port of a service.
#[derive(Clone, Debug)]
pub struct Service {
    /// `namespace/name:port`.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its `ClusterIP` and port.
    pub cluster: SocketAddr,
    /// Its `nodePort`, where it has one.
    pub node_port: Option<u16>,
    /// Its `externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Whether its `externalTrafficPolicy` is `Local`, not `Cluster`.
    pub local_only: bool,
    /// The ready endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint of a service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// The pod's address and port.
    pub address: SocketAddr,
    /// The number of the pod's node.
    pub node: u8,
}

/// What one kube-proxy, of one node and one address family, knows.
#[derive(Debug)]
pub struct KubeProxy<'a> {
    /// The prefix of all pods (`--cluster-cidr`).
    pub pods: IpNet,
    /// The prefix of all `ClusterIP`s.
    pub virtual_ips: IpNet,
    /// The address of the node.
    pub node_ip: IpAddr,
    /// The number of the node.
    pub node: u8,
    /// The services.
    pub services: &'a [Service],
}

impl KubeProxy<'_> {
    /// Puts the rules on a node that has none.
    pub fn start(&self, node: &Node, backend: Backend) -> Result<()> {
        match backend {
            Backend::Nftables => {}
            Backend::Ipvs => ipvs::start(self, node)?,
            Backend::IptablesLegacy | Backend::IptablesNft => {
                backend.load(node, self.node_ip.is_ipv6(), &iptables::jumps())?;
            }
        }
        self.sync(node, backend)
    }

    /// Puts the rules in place of those that an earlier call made.
    pub fn sync(&self, node: &Node, backend: Backend) -> Result<()> {
        let script = match backend {
            Backend::Ipvs => return ipvs::sync(self, node),
            Backend::Nftables => nftables::rules(self),
            Backend::IptablesLegacy | Backend::IptablesNft => iptables::rules(self),
        };
        backend.load(node, self.node_ip.is_ipv6(), &script)
    }
}

impl Service {
    /// `tcp` or `udp`.
    pub(super) fn protocol(&self) -> &'static str {
        match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }

    /// Whether it can be reached from outside, which takes further chains.
    pub(super) fn is_external(&self) -> bool {
        self.node_port.is_some() || !self.external_ips.is_empty()
    }

    /// The endpoints on a node.
    pub(super) fn local(&self, node: u8) -> Vec<Endpoint> {
        self.endpoints.iter().copied().filter(|endpoint| endpoint.node == node).collect()
    }

    /// The part of a chain's name that stands for the service, or for one endpoint of it: a hash, as chain names are short.
    pub(super) fn hash(&self, endpoint: Option<&Endpoint>) -> String {
        let mut hash = Sha256::new_with_prefix(&self.name);
        hash.update(self.protocol());
        if let Some(endpoint) = endpoint {
            hash.update(endpoint.address.to_string());
        }
        base32(&hash.finalize())
    }
}

/// The first 16 characters of bytes in base 32 (RFC 4648).
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bit = |index: usize| usize::from(bytes[index / 8] >> (7 - index % 8) & 1);
    let character = |index: usize| (0..5).fold(0, |value, offset| value << 1 | bit(5 * index + offset));
    (0..16).map(|index| char::from(ALPHABET[character(index)])).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A service with a node port, an external address and endpoints on two nodes.
    pub(in super::super) fn service(local_only: bool) -> Service {
        let endpoint = |text: &str, node| Endpoint { address: text.parse().unwrap(), node };
        Service {
            name: "ns3/svc3:p80".to_owned(),
            protocol: Protocol::Tcp,
            cluster: "10.96.0.10:80".parse().unwrap(),
            node_port: Some(30_080),
            external_ips: vec!["203.0.113.10".parse().unwrap()],
            local_only,
            endpoints: vec![
                endpoint("10.244.1.2:8080", 1),
                endpoint("10.244.1.3:8080", 1),
                endpoint("10.244.2.2:8080", 2),
            ],
        }
    }

    pub(in super::super) fn proxy(services: &[Service]) -> KubeProxy<'_> {
        KubeProxy {
            pods: "10.244.0.0/16".parse().unwrap(),
            virtual_ips: "10.96.0.0/16".parse().unwrap(),
            node_ip: "192.168.77.1".parse().unwrap(),
            node: 1,
            services,
        }
    }

    #[test]
    fn a_service_has_the_hash_that_kube_proxy_gives_it() {
        // The names of kube-proxy's own tests: KUBE-SVC-X27LE4BHSL4DOUIK.
        assert_eq!(service(false).hash(None), "X27LE4BHSL4DOUIK");
    }

    #[test]
    fn endpoints_of_one_service_have_different_hashes() {
        let service = service(false);
        assert_ne!(service.hash(Some(&service.endpoints[0])), service.hash(Some(&service.endpoints[1])));
    }
}
