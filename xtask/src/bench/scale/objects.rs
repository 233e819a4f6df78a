//! Node objects as a kubelet makes them.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// A machine of some age has so many images, which are most of a Node object.
const IMAGES: u32 = 50;

/// The name of a node, from 1.
pub(super) fn name(number: u32) -> String {
    format!("node{number}")
}

/// The first address of the pods of a node: one of the networks of 256 in 10.64.0.0/10.
pub(super) fn pod_network(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 64, 0, 0).to_bits() + number * 256)
}

/// The address of a node, on the network 172.28.0.0/16.
pub(super) fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(172, 28, 0, 0).to_bits() + number)
}

/// A Node with all that a kubelet says of it.
pub(super) fn node(number: u32) -> Value {
    let name = name(number);
    let cidr = format!("{}/24", pod_network(number));
    let images = (0..IMAGES).map(|image| {
        let repository = format!("registry.example.com/platform/team-{}/service-{image}", image % 7);
        let digest = format!("{:064x}", u128::from(image) << 64 | u128::from(number % 97));
        json!({
            "names": [format!("{repository}@sha256:{digest}"), format!("{repository}:v1.{image}.{}", number % 5)],
            "sizeBytes": 20_000_000 + image * 1_234_567,
        })
    });
    let quantities = json!({
        "cpu": "32", "memory": "131917444Ki", "pods": "110", "ephemeral-storage": "511750Mi",
        "hugepages-1Gi": "0", "hugepages-2Mi": "0",
    });
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", "kubernetes.io/hostname": name,
                "node.kubernetes.io/instance-type": "standard-32",
                "topology.kubernetes.io/region": "region-1", "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
            },
            "annotations": {
                "node.alpha.kubernetes.io/ttl": "300",
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
        },
        "spec": { "podCIDR": cidr, "podCIDRs": [cidr], "providerID": format!("example:///zone/{number:08x}") },
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": address(number) }, { "type": "Hostname", "address": name },
            ],
            "allocatable": quantities,
            "capacity": quantities,
            "conditions": conditions(0),
            "daemonEndpoints": { "kubeletEndpoint": { "Port": 10250 } },
            "images": images.collect::<Vec<_>>(),
            "nodeInfo": {
                "architecture": "amd64", "operatingSystem": "linux", "osImage": "Debian GNU/Linux 12 (bookworm)",
                "bootID": format!("00000000-0000-4000-8000-{number:012x}"),
                "machineID": format!("{number:032x}"), "systemUUID": format!("00000000-0000-4000-9000-{number:012x}"),
                "containerRuntimeVersion": "containerd://1.6.20", "kernelVersion": "6.1.0-35-amd64",
                "kubeProxyVersion": "v1.20.2", "kubeletVersion": "v1.20.2",
            },
        },
    })
}

/// What a heartbeat changes: the conditions, said again at a later time.
pub(super) fn heartbeat(beat: u32) -> Value {
    json!({ "status": { "conditions": conditions(beat) } })
}

fn conditions(beat: u32) -> Value {
    let time = format!("2024-01-01T{:02}:{:02}:{:02}Z", beat / 3600 % 24, beat / 60 % 60, beat % 60);
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": time, "lastTransitionTime": "2024-01-01T00:00:00Z",
        })
    };
    json!([
        condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        condition("Ready", "True", "KubeletReady", "kubelet is posting ready status. AppArmor enabled"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_as_large_as_real_ones() {
        let bytes = node(4_321).to_string().len();
        assert!((10_000..20_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn no_two_nodes_share_a_network_or_an_address() {
        let all: std::collections::BTreeSet<_> =
            (1..=16_000).map(|number| (pod_network(number), address(number))).collect();
        assert_eq!(all.len(), 16_000);
        assert_eq!(pod_network(16_000), Ipv4Addr::new(10, 126, 128, 0));
        assert_eq!(address(258), Ipv4Addr::new(172, 28, 1, 2));
    }
}
