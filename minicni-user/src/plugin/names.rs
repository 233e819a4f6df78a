//! Names and addresses of an attachment's devices, derived from what identifies it, so that DEL finds them without any
//! record.

use crate::link::MacAddress;
pub use crate::node::HOST_PREFIX;

/// One attachment's names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Names {
    /// The host's end of the veth pair: [`HOST_PREFIX`] and 12 hexadecimal digits.
    pub(super) host: String,
    /// The MAC address of the host's end.
    pub(super) host_mac: MacAddress,
    /// The MAC address of the pod's end.
    pub(super) pod_mac: MacAddress,
}

impl Names {
    /// The names for an interface of a container in a network.
    pub(super) fn new(network: &str, container_id: &str, ifname: &str) -> Self {
        // None of the three can contain a slash.
        let hash = |salt: &str| fnv1a(format!("{network}/{container_id}/{ifname}{salt}").as_bytes());
        Self {
            host: format!("{HOST_PREFIX}{:012x}", hash("") >> 16),
            host_mac: MacAddress::local_from(hash("/host")),
            pod_mac: MacAddress::local_from(hash("/pod")),
        }
    }
}

/// 64 bits of FNV-1a, which stays the same from version to version: <http://www.isthe.com/chongo/tech/comp/fnv/>
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_an_attachment_never_change_from_version_to_version() {
        let names = Names::new("pods", "0123456789abcdef", "eth0");
        assert_eq!(names.host, "mni5e7ff887b105");
    }

    #[test]
    fn another_network_container_or_interface_has_other_names() {
        let names = [("pods", "a", "eth0"), ("pod", "sa", "eth0"), ("pods", "b", "eth0"), ("pods", "a", "eth1")]
            .map(|(network, container, ifname)| Names::new(network, container, ifname));
        for (index, one) in names.iter().enumerate() {
            assert_eq!(one.host.len(), 15);
            assert_ne!(one.host_mac, one.pod_mac);
            assert!(names[..index].iter().all(|other| other.host != one.host && other.pod_mac != one.pod_mac));
        }
    }
}
