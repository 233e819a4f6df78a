//! What nodes have that forward pods' packets through netfilter.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use minicni::link::{Netns, sysctl};

use super::path::PORT;

/// An address that nodes translate, and its port, on which nothing listens.
pub(super) const SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)), 80);

/// The rules that every packet between pods meets where kube-proxy runs in iptables mode, without the chains of services
/// that new connections alone walk: <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/proxy/iptables/proxier.go>
/// And one service, for [`SERVICE`].
pub(super) fn like_kube_proxy(node: &Netns, backend: Ipv4Addr) -> Result<()> {
    let dnat = |protocol| {
        format!(
            "-A PREROUTING -d {} -p {protocol} --dport {} -j DNAT --to-destination {backend}:{PORT}\n",
            SERVICE.ip(),
            SERVICE.port()
        )
    };
    let script = format!(
        "*filter\n\
         -A FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         COMMIT\n\
         *nat\n\
         {}{}\
         -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE\n\
         COMMIT\n",
        dnat("tcp"),
        dnat("udp"),
    );
    feed(node, Command::new("iptables-restore"), &script)
}

/// Rules of [`like_kube_proxy`], and a flowtable for the pods behind two interfaces. Fails where the kernel has none.
pub(super) fn flowtable(node: &Netns, interfaces: [&str; 2]) -> Result<()> {
    let mut nft = Command::new("nft");
    nft.args(["-f", "-"]);
    let [one, other] = interfaces;
    let script = format!(
        "table ip accelerated {{\n\
           flowtable pods {{\n hook ingress priority 0; devices = {{ \"{one}\", \"{other}\" }};\n }}\n\
           chain forward {{\n\
             type filter hook forward priority -10; policy accept;\n\
             meta l4proto {{ tcp, udp }} ct state established flow add @pods\n\
           }}\n\
         }}\n"
    );
    feed(node, nft, &script)
}

/// Lets a namespace route, as the daemon does.
pub(super) fn forward(node: &Netns) -> Result<()> {
    Ok(node.run(|| sysctl::write("net/ipv4/ip_forward", "1"))??)
}

/// Runs lines of `ip`, without that word, in a namespace.
pub(super) fn ip(netns: &Netns, lines: &str) -> Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["-batch", "-"]);
    feed(netns, ip, lines)
}

/// Runs a command in a namespace, with this as its input.
pub(super) fn feed(netns: &Netns, mut command: Command, input: &str) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = netns.run(|| command.spawn())?.with_context(|| format!("run {name}"))?;
    // Whoever ends without reading it all says why.
    let _ = child.stdin.take().context("no stdin")?.write_all(input.as_bytes());
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = [output.stderr, output.stdout].concat();
        bail!("{name} ended with {}: {}", output.status, String::from_utf8_lossy(&said).trim());
    }
    Ok(())
}
