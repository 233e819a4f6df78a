//! A network policy that lets nothing through, as an agent inserts one.

use anyhow::Result;

use super::{Backend, iptables::Table, nft};
use crate::lab::Node;

/// Drops whatever is forwarded, in one family, before any other rule is asked.
pub fn deny(node: &Node, backend: Backend, ipv6: bool) -> Result<()> {
    if backend == Backend::Nftables {
        let family = if ipv6 { "ip6" } else { "ip" };
        let chain = "chain forward { type filter hook forward priority filter - 5; policy accept; counter drop\n }";
        return nft(node, &format!("table {family} network-policies {{\n{chain}\n}}\n"));
    }
    let mut filter = Table::default();
    filter.chain("NETWORK-POLICIES");
    filter.rule("NETWORK-POLICIES -j DROP");
    let script = filter.script("filter").replace("COMMIT", "-I FORWARD 1 -j NETWORK-POLICIES\nCOMMIT");
    backend.load(node, ipv6, &script)
}

/// Takes the rule of [`deny`] away.
pub fn allow(node: &Node, backend: Backend, ipv6: bool) -> Result<()> {
    if backend == Backend::Nftables {
        return nft(node, &format!("delete table {} network-policies\n", if ipv6 { "ip6" } else { "ip" }));
    }
    let script = "*filter\n-D FORWARD -j NETWORK-POLICIES\n-F NETWORK-POLICIES\n-X NETWORK-POLICIES\nCOMMIT\n";
    backend.load(node, ipv6, script)
}
