//! kube-proxy's nftables mode: the table of `pkg/proxy/nftables/proxier.go`, as
//! <https://github.com/kubernetes/kubernetes/blob/v1.33.0/pkg/proxy/nftables/proxier_test.go> shows it.

use std::fmt::Write as _;

use super::kube_proxy::{Endpoint, KubeProxy, MASQUERADE_MARK, Service};

/// A script that replaces kube-proxy's table, and leaves every other one alone.
pub(super) fn rules(proxy: &KubeProxy) -> String {
    let mut table = Table { family: if proxy.node_ip.is_ipv6() { "ip6" } else { "ip" }, ..Table::default() };
    for service in proxy.services {
        translate(&mut table, proxy, service);
    }
    let Table { family, chains, cluster_ips, service_ips, node_ports } = &table;
    let (address, node_ip, virtual_ips) =
        (if *family == "ip" { "ipv4_addr" } else { "ipv6_addr" }, proxy.node_ip, proxy.virtual_ips);
    let key = "meta l4proto . th dport";
    let elements = |all: &[String]| {
        if all.is_empty() { String::new() } else { format!("elements = {{ {} }}", all.join(", ")) }
    };
    let (cluster_ips, service_ips, node_ports) = (elements(cluster_ips), elements(service_ips), elements(node_ports));
    // Two lines, so that the table may be there or not.
    format!(
        r#"table {family} kube-proxy
delete table {family} kube-proxy
table {family} kube-proxy {{
  comment "rules for kube-proxy"
  set cluster-ips {{ type {address}; comment "Active ClusterIPs"; {cluster_ips}; }}
  set nodeport-ips {{ type {address}; comment "IPs that accept NodePort traffic"; elements = {{ {node_ip} }}; }}
  map firewall-ips {{ type {address} . inet_proto . inet_service : verdict; }}
  map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}
  map no-endpoint-services {{ type {address} . inet_proto . inet_service : verdict; }}
  chain mark-for-masquerade {{ mark set mark or {MASQUERADE_MARK}; }}
  chain masquerading {{
    mark and {MASQUERADE_MARK} == 0 return
    mark set mark xor {MASQUERADE_MARK}
    masquerade fully-random
  }}
{chains}
  map service-ips {{
    type {address} . inet_proto . inet_service : verdict
    comment "ClusterIP, ExternalIP and LoadBalancer IP traffic"
    {service_ips}
  }}
  map service-nodeports {{ type inet_proto . inet_service : verdict; comment "NodePort traffic"; {node_ports}; }}
  chain services {{
    {family} daddr . {key} vmap @service-ips
    {family} daddr @nodeport-ips {key} vmap @service-nodeports
  }}
  chain cluster-ips-check {{
    {family} daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
    {family} daddr {{ {virtual_ips} }} drop comment "Drop traffic to unallocated ClusterIPs"
  }}
  chain service-endpoints-check {{ {family} daddr . {key} vmap @no-endpoint-services; }}
  chain nodeport-endpoints-check {{ {family} daddr @nodeport-ips {key} vmap @no-endpoint-nodeports; }}
  chain firewall-check {{ {family} daddr . {key} vmap @firewall-ips; }}
  chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}
  chain nat-output {{ type nat hook output priority -100; jump services; }}
  chain nat-postrouting {{ type nat hook postrouting priority 100; jump masquerading; }}
  chain filter-prerouting-pre-dnat {{
    type filter hook prerouting priority -110
    ct state new jump firewall-check
  }}
  chain filter-output-pre-dnat {{ type filter hook output priority -110; ct state new jump firewall-check; }}
  chain filter-forward {{
    type filter hook forward priority 0
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }}
  chain filter-input {{
    type filter hook input priority 0
    ct state new jump nodeport-endpoints-check
    ct state new jump service-endpoints-check
  }}
  chain filter-output {{
    type filter hook output priority 0
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }}
}}
"#
    )
}

/// What services add to the table.
#[derive(Default)]
struct Table {
    family: &'static str,
    chains: String,
    cluster_ips: Vec<String>,
    service_ips: Vec<String>,
    node_ports: Vec<String>,
}

impl Table {
    fn chain(&mut self, name: &str, rules: &[String]) {
        // Writing to a String does not fail.
        let _ = writeln!(self.chains, "  chain {name} {{");
        for rule in rules {
            let _ = writeln!(self.chains, "    {rule}");
        }
        self.chains.push_str("  }\n");
    }
}

fn translate(table: &mut Table, proxy: &KubeProxy, service: &Service) {
    let (family, pods, protocol) = (table.family, proxy.pods, service.protocol());
    let (ip, port) = (service.cluster.ip(), service.cluster.port());
    let id = format!("{}-{}", &service.hash(None)[..8], path(service));
    for endpoint in &service.endpoints {
        let address = endpoint.address;
        table.chain(
            &endpoint_chain(service, endpoint),
            &[
                format!("{family} saddr {} jump mark-for-masquerade", address.ip()),
                format!("meta l4proto {protocol} dnat to {address}"),
            ],
        );
    }
    let mut rules = vec![format!("{family} daddr {ip} {family} saddr != {pods} jump mark-for-masquerade")];
    rules.extend(distribute(service, &service.endpoints));
    table.chain(&format!("service-{id}"), &rules);
    if !table.cluster_ips.contains(&ip.to_string()) {
        table.cluster_ips.push(ip.to_string());
    }
    table.service_ips.push(format!("{ip} . {protocol} . {port} : goto service-{id}"));
    if !service.is_external() {
        return;
    }
    let rules = if service.local_only {
        let mut rules = vec![
            format!("{family} saddr {pods} goto service-{id} comment \"short-circuit pod traffic\""),
            "fib saddr type local jump mark-for-masquerade comment \"masquerade local traffic\"".to_owned(),
            format!("fib saddr type local goto service-{id} comment \"short-circuit local traffic\""),
        ];
        rules.extend(distribute(service, &service.local(proxy.node)));
        rules
    } else {
        vec!["jump mark-for-masquerade".to_owned(), format!("goto service-{id}")]
    };
    table.chain(&format!("external-{id}"), &rules);
    for ip in &service.external_ips {
        table.service_ips.push(format!("{ip} . {protocol} . {port} : goto external-{id}"));
    }
    if let Some(port) = service.node_port {
        table.node_ports.push(format!("{protocol} . {port} : goto external-{id}"));
    }
}

/// One rule that chooses among endpoints, where there are any.
fn distribute(service: &Service, endpoints: &[Endpoint]) -> Option<String> {
    let gotos = endpoints.iter().enumerate();
    let gotos: Vec<_> =
        gotos.map(|(index, endpoint)| format!("{index} : goto {}", endpoint_chain(service, endpoint))).collect();
    let count = gotos.len();
    (count > 0).then(|| format!("numgen random mod {count} vmap {{ {} }}", gotos.join(", ")))
}

/// `namespace/name/protocol/port`
fn path(service: &Service) -> String {
    let (name, port) = service.name.split_once(':').unwrap_or((&service.name, ""));
    format!("{name}/{}/{port}", service.protocol())
}

fn endpoint_chain(service: &Service, endpoint: &Endpoint) -> String {
    // A colon may not stand in a chain's name.
    let ip = endpoint.address.ip().to_string().replace(':', ".");
    let hash = service.hash(Some(endpoint));
    format!("endpoint-{}-{}__{ip}/{}", &hash[..8], path(service), endpoint.address.port())
}

#[cfg(test)]
mod tests {
    use super::{
        super::kube_proxy::tests::{proxy, service},
        *,
    };

    #[test]
    fn a_service_has_its_chains_and_an_element_for_each_address() {
        let rules = rules(&proxy(&[service(false)]));
        for line in [
            "10.96.0.10 . tcp . 80 : goto service-X27LE4BH-ns3/svc3/tcp/p80",
            "203.0.113.10 . tcp . 80 : goto external-X27LE4BH-ns3/svc3/tcp/p80",
            "tcp . 30080 : goto external-X27LE4BH-ns3/svc3/tcp/p80",
            "numgen random mod 3 vmap",
        ] {
            assert!(rules.contains(line), "{line}: {rules}");
        }
    }

    #[test]
    fn a_service_for_local_endpoints_chooses_among_those() {
        let rules = rules(&proxy(&[service(true)]));
        assert!(rules.contains("numgen random mod 2 vmap"), "{rules}");
        assert!(rules.contains("short-circuit pod traffic"), "{rules}");
    }
}
