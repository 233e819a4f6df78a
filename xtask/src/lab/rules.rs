//! Firewall rules on a node, as kube-proxy or an administrator would set them.

pub mod host_port;
mod iptables;
mod ipvs;
pub mod kube_proxy;
pub mod masquerade;
mod nftables;
pub mod policy;

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::Node;

/// Loads an nftables script on a node.
pub fn nft(node: &Node, script: &str) -> Result<()> {
    feed(node, Command::new("nft").args(["-f", "-"]), script)
}

/// Runs a command on a node with a script on its stdin.
fn feed(node: &Node, command: &mut Command, script: &str) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.env("XTABLES_LOCKFILE", node.xtables_lock());
    let mut child = node.netns.run(|| command.spawn())?.with_context(|| format!("run {name}"))?;
    child.stdin.take().with_context(|| format!("{name} has no stdin"))?.write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// What firewall rules are written with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Backend {
    /// `iptables-legacy`: the tables of before nftables.
    IptablesLegacy,
    /// `iptables-nft`: the iptables language on nftables.
    IptablesNft,
    /// nftables' own language.
    Nftables,
    /// IPVS, with `iptables-nft` for what IPVS does not do.
    Ipvs,
}

impl Backend {
    /// Adds rules to a node. The script is for `iptables-restore --noflush` or for `nft -f`, by backend, and of one family.
    pub fn load(self, node: &Node, ipv6: bool, script: &str) -> Result<()> {
        let program = match self {
            Self::Nftables => return nft(node, script),
            Self::IptablesLegacy => "tables-legacy-restore",
            Self::IptablesNft | Self::Ipvs => "tables-nft-restore",
        };
        let program = format!("{}{program}", if ipv6 { "ip6" } else { "ip" });
        feed(node, Command::new(program).arg("--noflush"), script)
    }
}

/// Translates a virtual address and port to a pod's, as kube-proxy does for a `ClusterIP`, and drops what conntrack finds
/// invalid, as kube-proxy does too. Both addresses are of one family.
pub fn cluster_ip(virtual_ip: impl Into<IpAddr>, port: u16, pod: impl Into<IpAddr>, pod_port: u16) -> String {
    let virtual_ip = virtual_ip.into();
    let family = if virtual_ip.is_ipv4() { "ip" } else { "ip6" };
    let pod = SocketAddr::new(pod.into(), pod_port);
    format!(
        "table {family} services {{\n\
           chain prerouting {{\n\
             type nat hook prerouting priority dstnat; policy accept;\n\
             {family} daddr {virtual_ip} meta l4proto {{ tcp, udp }} th dport {port} dnat to {pod}\n\
           }}\n\
           chain forward {{\n\
             type filter hook forward priority filter; policy accept;\n\
             ct state invalid counter drop\n\
           }}\n\
         }}\n"
    )
}
