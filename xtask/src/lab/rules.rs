//! Firewall rules on a node, as kube-proxy or an administrator would set them.

use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::Node;

/// Loads an nftables script on a node.
pub fn nft(node: &Node, script: &str) -> Result<()> {
    let mut nft = Command::new("nft");
    nft.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = node.netns.run(|| nft.spawn())?.context("run nft")?;
    child.stdin.take().context("nft has no stdin")?.write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("nft: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
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
