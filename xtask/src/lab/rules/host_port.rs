//! Host ports, as the `portmap` plugin makes them.

use std::{fmt::Write as _, net::SocketAddr};

use anyhow::Result;

use super::{Backend, iptables::Table};
use crate::lab::Node;

/// A port of the node that leads to a pod's, over TCP and UDP.
#[derive(Clone, Copy, Debug)]
pub struct HostPort {
    /// The node's port.
    pub port: u16,
    /// The pod's address and port.
    pub pod: SocketAddr,
}

/// Puts rules for ports of one family on a node that has none.
pub fn map(node: &Node, backend: Backend, ports: &[HostPort]) -> Result<()> {
    let ipv6 = ports.first().is_some_and(|port| port.pod.is_ipv6());
    let script = match backend {
        Backend::Nftables => nftables(ports, ipv6),
        Backend::IptablesLegacy | Backend::IptablesNft | Backend::Ipvs => iptables(ports),
    };
    backend.load(node, ipv6, &script)
}

/// What `portmap` 1.1.1 leaves in `iptables-save`.
fn iptables(ports: &[HostPort]) -> String {
    let mut nat = Table::default();
    nat.chains(&["CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SETMARK"]);
    nat.rule("PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT");
    nat.rule("OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT");
    nat.rule("POSTROUTING -m comment --comment \"CNI portfwd requiring masquerade\" -j CNI-HOSTPORT-MASQ");
    nat.rule(
        "CNI-HOSTPORT-SETMARK -m comment --comment \"CNI portfwd masquerade mark\" -j MARK --set-xmark 0x2000/0x2000",
    );
    nat.rule("CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE");
    for HostPort { port, pod } in ports {
        let chain = format!("CNI-DN-{port:021x}");
        nat.chain(&chain);
        for protocol in ["tcp", "udp"] {
            let at = format!("-p {protocol} -m {protocol} --dport {port}");
            nat.rule(format!(
                "CNI-HOSTPORT-DNAT -p {protocol} -m comment --comment \"dnat name: \\\"pods\\\" id: \\\"{port}\\\"\" -m multiport \
                 --dports {port} -j {chain}"
            ));
            nat.rule(format!("{chain} -s {} {at} -j CNI-HOSTPORT-SETMARK", pod.ip()));
            if pod.is_ipv4() {
                nat.rule(format!("{chain} -s 127.0.0.1 {at} -j CNI-HOSTPORT-SETMARK"));
            }
            nat.rule(format!("{chain} {at} -j DNAT --to-destination {pod}"));
        }
    }
    nat.script("nat")
}

/// What `portmap` 1.6 makes where it uses nftables:
/// <https://github.com/containernetworking/plugins/blob/v1.6.0/plugins/meta/portmap/portmap_nftables.go>.
fn nftables(ports: &[HostPort], ipv6: bool) -> String {
    let family = if ipv6 { "ip6" } else { "ip" };
    let (mut mappings, mut masquerading) = (String::new(), String::new());
    for HostPort { port, pod } in ports {
        let ip = pod.ip();
        for protocol in ["tcp", "udp"] {
            // Writing to a String does not fail.
            let _ = writeln!(mappings, "    {protocol} dport {port} dnat to {pod} comment \"pod-{port}\"");
        }
        let _ = writeln!(masquerading, "    {family} saddr {ip} {family} daddr {ip} masquerade comment \"pod-{port}\"");
        if !ipv6 {
            let _ = writeln!(masquerading, "    ip saddr 127.0.0.1 ip daddr {ip} masquerade comment \"pod-{port}\"");
        }
    }
    format!(
        "table {family} cni_hostport {{\n  comment \"CNI portmap plugin\"\n  chain hostports {{\n{mappings}  }}\n  chain hostip_hostports {{\n  }}\n  \
         chain prerouting {{\n    type nat hook prerouting priority dstnat\n    jump hostip_hostports\n    jump hostports\n  }}\n  \
         chain output {{\n    type nat hook output priority -100\n    jump hostip_hostports\n    fib daddr type local jump hostports\n  }}\n  \
         chain masquerading {{\n    type nat hook postrouting priority srcnat\n{masquerading}  }}\n}}\n"
    )
}
