//! Masquerade for what leaves the cluster, as `ip-masq-agent` does it.

use anyhow::Result;
use ipnet::IpNet;

use super::{Backend, iptables::Table};
use crate::lab::Node;

/// Gives packets from pods to anywhere but these prefixes the node's address. The first is that of the pods.
pub fn leaving(node: &Node, backend: Backend, pods: IpNet, others: &[IpNet]) -> Result<()> {
    let ipv6 = matches!(pods, IpNet::V6(_));
    let script = match backend {
        Backend::Nftables => nftables(ipv6, pods, others),
        Backend::IptablesLegacy | Backend::IptablesNft | Backend::Ipvs => iptables(pods, others),
    };
    backend.load(node, ipv6, &script)
}

fn iptables(pods: IpNet, others: &[IpNet]) -> String {
    let mut nat = Table::default();
    nat.chain("IP-MASQ-AGENT");
    nat.rule("POSTROUTING -m comment --comment \"ip-masq-agent\" -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT");
    for prefix in [pods].iter().chain(others) {
        nat.rule(format!("IP-MASQ-AGENT -d {prefix} -j RETURN"));
    }
    nat.rule(format!("IP-MASQ-AGENT -s {pods} -j MASQUERADE --random-fully"));
    nat.script("nat")
}

fn nftables(ipv6: bool, pods: IpNet, others: &[IpNet]) -> String {
    let family = if ipv6 { "ip6" } else { "ip" };
    let inside: Vec<_> = [pods].iter().chain(others).map(ToString::to_string).collect();
    format!(
        "table {family} ip-masq {{\n  chain postrouting {{\n    type nat hook postrouting priority srcnat\n    \
         {family} saddr {pods} {family} daddr != {{ {} }} masquerade fully-random\n  }}\n}}\n",
        inside.join(", ")
    )
}
