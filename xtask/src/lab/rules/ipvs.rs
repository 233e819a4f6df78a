//! kube-proxy's IPVS mode: virtual servers on addresses of `kube-ipvs0`, sets of what is to be masqueraded, and the chains of
//! <https://github.com/kubernetes/kubernetes/blob/v1.31.0/pkg/proxy/ipvs/README.md> that ask those sets.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    process::Command,
};

use anyhow::Result;
use minicni::link::sysctl;

use super::{
    Backend, feed,
    iptables::{FILTER_JUMPS, NAT_JUMPS, Table},
    kube_proxy::{Endpoint, KubeProxy, MASQUERADE_MARK, Service},
};
use crate::{command, lab::Node};

/// What kube-proxy sets when it starts in this mode.
const SETTINGS: [(&str, &str); 6] = [
    ("net/ipv4/vs/conntrack", "1"),
    ("net/ipv4/vs/conn_reuse_mode", "0"),
    ("net/ipv4/vs/expire_nodest_conn", "1"),
    ("net/ipv4/vs/expire_quiescent_template", "1"),
    ("net/ipv4/conf/all/arp_ignore", "1"),
    ("net/ipv4/conf/all/arp_announce", "2"),
];

/// Everything but the endpoints, once.
pub(super) fn start(proxy: &KubeProxy, node: &Node) -> Result<()> {
    node.netns.run(|| -> Result<()> {
        // The settings are there when the first virtual server is asked for.
        command::output(Command::new("ipvsadm").arg("-Ln"))?;
        for (key, value) in SETTINGS {
            sysctl::write(key, value)?;
        }
        command::run(Command::new("ip").args(["link", "add", "kube-ipvs0", "type", "dummy"]))
    })??;
    let ips = proxy
        .services
        .iter()
        .flat_map(|service| [service.cluster.ip()].into_iter().chain(service.external_ips.clone()));
    for ip in ips.collect::<BTreeSet<_>>() {
        let prefix = format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 });
        node.run(Command::new("ip").args(["address", "add", &prefix, "dev", "kube-ipvs0"]))?;
    }
    // The chains ask them.
    load_sets(proxy, node)?;
    Backend::Ipvs.load(node, proxy.node_ip.is_ipv6(), &chains(proxy))
}

/// Sets and virtual servers as they have to be by now.
pub(super) fn sync(proxy: &KubeProxy, node: &Node) -> Result<()> {
    load_sets(proxy, node)?;
    let there = node.run(Command::new("ipvsadm").args(["--save", "--numeric"]))?;
    let there = there.lines().map(|line| line.trim_end().to_owned()).collect();
    feed(node, Command::new("ipvsadm").arg("--restore"), &changes(&there, &servers(proxy)))
}

/// The lines, as `ipvsadm --save` prints them.
fn servers(proxy: &KubeProxy) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for service in proxy.services {
        let flag = if service.protocol() == "tcp" { "-t" } else { "-u" };
        let mut server = |at: SocketAddr, endpoints: &[Endpoint]| {
            lines.insert(format!("-A {flag} {at} -s rr"));
            lines.extend(endpoints.iter().map(|endpoint| format!("-a {flag} {at} -r {} -m -w 1", endpoint.address)));
        };
        server(service.cluster, &service.endpoints);
        let (external, all) = (service.local(proxy.node), &service.endpoints);
        let external = if service.local_only { &external } else { all };
        for ip in &service.external_ips {
            server(SocketAddr::new(*ip, service.cluster.port()), external);
        }
        if let Some(port) = service.node_port {
            server(SocketAddr::new(proxy.node_ip, port), external);
        }
    }
    lines
}

/// What leads from some lines to others. Connections over TCP stay with an endpoint that is gone, and no new ones come.
fn changes(there: &BTreeSet<String>, wanted: &BTreeSet<String>) -> String {
    let mut script = String::new();
    // `-A` comes before `-a`.
    for line in wanted.difference(there) {
        // Writing to a String does not fail.
        let _ = writeln!(script, "{line}");
    }
    for line in there.difference(wanted).filter(|line| line.starts_with("-a")) {
        let _ = match line.strip_prefix("-a -u ") {
            Some(rest) => writeln!(script, "-d -u {}", rest.split(" -m").next().unwrap_or(rest)),
            None => writeln!(script, "{}", line.replacen("-a", "-e", 1).replace("-w 1", "-w 0")),
        };
    }
    script
}

/// The names of the sets of a family begin so.
fn prefix(ipv6: bool) -> &'static str {
    if ipv6 { "KUBE-6-" } else { "KUBE-" }
}

fn load_sets(proxy: &KubeProxy, node: &Node) -> Result<()> {
    feed(node, Command::new("ipset").arg("restore"), &sets(proxy))
}

fn sets(proxy: &KubeProxy) -> String {
    let ipv6 = proxy.node_ip.is_ipv6();
    let (prefix, family) = (prefix(ipv6), if ipv6 { "inet6" } else { "inet" });
    let mut script = String::new();
    for (name, kind) in
        [("CLUSTER-IP", "hash:ip,port"), ("EXTERNAL-IP", "hash:ip,port"), ("LOOP-BACK", "hash:ip,port,ip")]
    {
        let _ = writeln!(script, "create -exist {prefix}{name} {kind} family {family}\nflush {prefix}{name}");
    }
    for protocol in ["TCP", "UDP"] {
        for name in ["NODE-PORT-", "NODE-PORT-LOCAL-"] {
            let name = format!("{prefix}{name}{protocol}");
            let _ = writeln!(script, "create -exist {name} bitmap:port range 0-65535\nflush {name}");
        }
    }
    let mut add = |set: String, element: String| {
        let _ = writeln!(script, "add -exist {prefix}{set} {element}");
    };
    let element = |ip: IpAddr, service: &Service, port: u16| format!("{ip},{}:{port}", service.protocol());
    for service in proxy.services {
        let port = service.cluster.port();
        add("CLUSTER-IP".to_owned(), element(service.cluster.ip(), service, port));
        for ip in &service.external_ips {
            add("EXTERNAL-IP".to_owned(), element(*ip, service, port));
        }
        for endpoint in service.local(proxy.node) {
            let (ip, port) = (endpoint.address.ip(), endpoint.address.port());
            add("LOOP-BACK".to_owned(), format!("{},{ip}", element(ip, service, port)));
        }
        if let Some(port) = service.node_port {
            let protocol = service.protocol().to_uppercase();
            add(format!("NODE-PORT-{protocol}"), port.to_string());
            if service.local_only {
                add(format!("NODE-PORT-LOCAL-{protocol}"), port.to_string());
            }
        }
    }
    script
}

fn chains(proxy: &KubeProxy) -> String {
    let (prefix, pods) = (prefix(proxy.node_ip.is_ipv6()), proxy.pods);
    let mut nat = Table::default();
    nat.chains(&["KUBE-SERVICES", "KUBE-NODE-PORT", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"]);
    nat.rules(&NAT_JUMPS);
    let set = |name: &str, flags: &str| format!("-m set --match-set {prefix}{name} {flags}");
    let (cluster, external) = (set("CLUSTER-IP", "dst,dst"), set("EXTERNAL-IP", "dst,dst"));
    for rule in [
        format!("KUBE-SERVICES {cluster} ! -s {pods} -j KUBE-MARK-MASQ"),
        format!("KUBE-SERVICES {external} -j KUBE-MARK-MASQ"),
        format!("KUBE-SERVICES {external} -m addrtype ! --src-type LOCAL -j ACCEPT"),
        format!("KUBE-SERVICES {external} -m addrtype --dst-type LOCAL -j ACCEPT"),
        "KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT".to_owned(),
        format!("KUBE-SERVICES {cluster} -j ACCEPT"),
        format!("KUBE-MARK-MASQ -j MARK --or-mark {MASQUERADE_MARK}"),
        format!("KUBE-POSTROUTING {} -j MASQUERADE", set("LOOP-BACK", "dst,dst,src")),
        format!("KUBE-POSTROUTING -m mark ! --mark {MASQUERADE_MARK}/{MASQUERADE_MARK} -j RETURN"),
        format!("KUBE-POSTROUTING -j MARK --xor-mark {MASQUERADE_MARK}"),
        "KUBE-POSTROUTING -j MASQUERADE --random-fully".to_owned(),
    ] {
        nat.rule(rule);
    }
    for protocol in ["TCP", "UDP"] {
        let at = format!("KUBE-NODE-PORT -p {}", protocol.to_lowercase());
        nat.rule(format!("{at} {} -j RETURN", set(&format!("NODE-PORT-LOCAL-{protocol}"), "dst")));
        nat.rule(format!("{at} {} -j KUBE-MARK-MASQ", set(&format!("NODE-PORT-{protocol}"), "dst")));
    }
    let mut filter = Table::default();
    filter.chain("KUBE-FORWARD");
    for jump in FILTER_JUMPS.iter().filter(|jump| jump.ends_with("KUBE-FORWARD")) {
        filter.rule(jump);
    }
    filter.rule(format!("KUBE-FORWARD -m mark --mark {MASQUERADE_MARK}/{MASQUERADE_MARK} -j ACCEPT"));
    filter.rule("KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    nat.script("nat") + &filter.script("filter")
}

#[cfg(test)]
mod tests {
    use super::{
        super::kube_proxy::tests::{proxy, service},
        *,
    };

    #[test]
    fn a_service_has_a_virtual_server_at_each_of_its_addresses() {
        let services = [service(true)];
        let lines = servers(&proxy(&services));
        for line in [
            "-A -t 10.96.0.10:80 -s rr",
            "-a -t 10.96.0.10:80 -r 10.244.2.2:8080 -m -w 1",
            "-a -t 192.168.77.1:30080 -r 10.244.1.2:8080 -m -w 1",
        ] {
            assert!(lines.contains(line), "{line}: {lines:?}");
        }
        assert!(!lines.contains("-a -t 192.168.77.1:30080 -r 10.244.2.2:8080 -m -w 1"));
    }

    #[test]
    fn an_endpoint_that_is_gone_keeps_its_connections_over_tcp_alone() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect();
        let there = lines(
            "-A -t 1.1.1.1:80 -s rr\n-a -t 1.1.1.1:80 -r 2.2.2.2:8 -m -w 1\n-a -u 1.1.1.1:80 -r 2.2.2.2:8 -m -w 1",
        );
        let wanted = lines("-A -t 1.1.1.1:80 -s rr\n-a -t 1.1.1.1:80 -r 3.3.3.3:8 -m -w 1");
        assert_eq!(
            changes(&there, &wanted),
            "-a -t 1.1.1.1:80 -r 3.3.3.3:8 -m -w 1\n-e -t 1.1.1.1:80 -r 2.2.2.2:8 -m -w 0\n-d -u 1.1.1.1:80 -r 2.2.2.2:8\n"
        );
    }
}
