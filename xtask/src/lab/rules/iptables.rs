//! kube-proxy's iptables mode: the chains of `pkg/proxy/iptables/proxier.go`, as
//! <https://github.com/kubernetes/kubernetes/blob/v1.31.0/pkg/proxy/iptables/proxier_test.go> shows them.

use std::fmt::Write as _;

use super::kube_proxy::{Endpoint, KubeProxy, MASQUERADE_MARK, Service};

/// Where the built-in chains lead.
pub(super) const NAT_JUMPS: [&str; 3] =
    ["PREROUTING -j KUBE-SERVICES", "OUTPUT -j KUBE-SERVICES", "POSTROUTING -j KUBE-POSTROUTING"];
pub(super) const FILTER_JUMPS: [&str; 8] = [
    "INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL",
    "OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL",
    "FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL",
    "INPUT -j KUBE-NODEPORTS",
    "FORWARD -j KUBE-FORWARD",
    "INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES",
    "FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES",
    "FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES",
];

const NAT_CHAINS: [&str; 4] = ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"];
const FILTER_CHAINS: [&str; 5] =
    ["KUBE-FORWARD", "KUBE-PROXY-FIREWALL", "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS"];

/// What is put into the built-in chains, once.
pub(super) fn jumps() -> String {
    let table = |name, chains: &[&str], jumps: &[&str]| {
        let mut table = Table::default();
        table.chains(chains);
        table.rules(jumps);
        table.script(name)
    };
    table("nat", &NAT_CHAINS, &NAT_JUMPS) + &table("filter", &FILTER_CHAINS, &FILTER_JUMPS)
}

/// The input of `iptables-restore --noflush`: it replaces the content of kube-proxy's chains, and of no other.
pub(super) fn rules(proxy: &KubeProxy) -> String {
    let mut nat = Table::default();
    nat.chains(&NAT_CHAINS);
    nat.rule(format!("KUBE-MARK-MASQ -j MARK --or-mark {MASQUERADE_MARK}"));
    nat.rule(format!("KUBE-POSTROUTING -m mark ! --mark {MASQUERADE_MARK}/{MASQUERADE_MARK} -j RETURN"));
    nat.rule(format!("KUBE-POSTROUTING -j MARK --xor-mark {MASQUERADE_MARK}"));
    nat.rule(
        "KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully",
    );
    for service in proxy.services {
        translate(&mut nat, proxy, service);
    }
    nat.rule(
        "KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this \
         chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
    );
    nat.script("nat") + &filter().script("filter")
}

fn filter() -> Table {
    let mut filter = Table::default();
    filter.chains(&FILTER_CHAINS);
    // kube-proxy leaves this rule out where nf_conntrack_tcp_be_liberal was set before it started.
    filter.rule("KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP");
    filter.rule(format!(
        "KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark {MASQUERADE_MARK}/{MASQUERADE_MARK} -j ACCEPT"
    ));
    filter.rule(
        "KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate \
         RELATED,ESTABLISHED -j ACCEPT",
    );
    filter
}

fn translate(nat: &mut Table, proxy: &KubeProxy, service: &Service) {
    let Service { name, cluster, .. } = service;
    let (pods, protocol, hash) = (proxy.pods, service.protocol(), service.hash(None));
    let to = |address, port| format!("-m {protocol} -p {protocol} -d {address} --dport {port}");
    let (all, external, local) = (format!("KUBE-SVC-{hash}"), format!("KUBE-EXT-{hash}"), format!("KUBE-SVL-{hash}"));
    let at = to(cluster.ip(), cluster.port());
    nat.rule(format!("KUBE-SERVICES -m comment --comment \"{name} cluster IP\" {at} -j {all}"));
    nat.chain(&all);
    nat.rule(format!("{all} -m comment --comment \"{name} cluster IP\" {at} ! -s {pods} -j KUBE-MARK-MASQ"));
    distribute(nat, service, &all, &service.endpoints);
    for endpoint in &service.endpoints {
        let (chain, address) = (endpoint_chain(service, endpoint), endpoint.address);
        nat.chain(&chain);
        nat.rule(format!("{chain} -m comment --comment {name} -s {} -j KUBE-MARK-MASQ", address.ip()));
        nat.rule(format!(
            "{chain} -m comment --comment {name} -m {protocol} -p {protocol} -j DNAT --to-destination {address}"
        ));
    }
    if !service.is_external() {
        return;
    }
    nat.chain(&external);
    for ip in &service.external_ips {
        let at = to(*ip, cluster.port());
        nat.rule(format!("KUBE-SERVICES -m comment --comment \"{name} external IP\" {at} -j {external}"));
    }
    if let Some(port) = service.node_port {
        let at = format!("-m {protocol} -p {protocol} --dport {port}");
        nat.rule(format!("KUBE-NODEPORTS -m comment --comment {name} {at} -j {external}"));
    }
    if service.local_only {
        let comment = |what: &str| format!("-m comment --comment \"{what} {name} external destinations\"");
        let from_here = "-m addrtype --src-type LOCAL";
        nat.chain(&local);
        nat.rule(format!("{external} {} -s {pods} -j {all}", comment("pod traffic for")));
        nat.rule(format!("{external} {} {from_here} -j KUBE-MARK-MASQ", comment("masquerade LOCAL traffic for")));
        nat.rule(format!("{external} {} {from_here} -j {all}", comment("route LOCAL traffic for")));
        nat.rule(format!("{external} -j {local}"));
        distribute(nat, service, &local, &service.local(proxy.node));
    } else {
        nat.rule(format!(
            "{external} -m comment --comment \"masquerade traffic for {name} external destinations\" -j KUBE-MARK-MASQ"
        ));
        nat.rule(format!("{external} -j {all}"));
    }
}

/// Sends each connection to one endpoint: the first of n with a probability of 1/n, and so on.
fn distribute(nat: &mut Table, service: &Service, chain: &str, endpoints: &[Endpoint]) {
    for (index, endpoint) in endpoints.iter().enumerate() {
        let comment = format!("-m comment --comment \"{} -> {}\"", service.name, endpoint.address);
        let left = endpoints.len() - index;
        #[expect(clippy::cast_precision_loss, reason = "services have few endpoints")]
        let chance = match left {
            1 => String::new(),
            left => format!(" -m statistic --mode random --probability {:.10}", 1.0 / left as f64),
        };
        nat.rule(format!("{chain} {comment}{chance} -j {}", endpoint_chain(service, endpoint)));
    }
}

fn endpoint_chain(service: &Service, endpoint: &Endpoint) -> String {
    format!("KUBE-SEP-{}", service.hash(Some(endpoint)))
}

/// Lines for one table.
#[derive(Default)]
pub(super) struct Table {
    chains: String,
    rules: String,
}

impl Table {
    /// Makes a chain, or empties it.
    pub(super) fn chain(&mut self, name: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.chains, ":{name} - [0:0]");
    }

    pub(super) fn chains(&mut self, names: &[&str]) {
        for name in names {
            self.chain(name);
        }
    }

    pub(super) fn rules(&mut self, rules: &[&str]) {
        for rule in rules {
            self.rule(rule);
        }
    }

    pub(super) fn rule(&mut self, rule: impl AsRef<str>) {
        let _ = writeln!(self.rules, "-A {}", rule.as_ref());
    }

    pub(super) fn script(&self, table: &str) -> String {
        format!("*{table}\n{}{}COMMIT\n", self.chains, self.rules)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::kube_proxy::tests::{proxy, service},
        *,
    };

    fn lines<'a>(rules: &'a str, chain: &str) -> Vec<&'a str> {
        rules.lines().filter(|line| line.starts_with(&format!("-A {chain}"))).collect()
    }

    #[test]
    fn endpoints_share_what_the_ones_before_them_left() {
        let rules = rules(&proxy(&[service(false)]));
        let shares = lines(&rules, "KUBE-SVC-X27LE4BHSL4DOUIK");
        assert_eq!(shares.len(), 4, "{rules}");
        assert!(shares[1].contains("--probability 0.3333333333"), "{}", shares[1]);
        assert!(shares[2].contains("--probability 0.5000000000"), "{}", shares[2]);
        assert!(!shares[3].contains("probability"), "{}", shares[3]);
    }

    #[test]
    fn what_comes_from_outside_is_masqueraded_only_where_it_may_leave_the_node() {
        let cluster = rules(&proxy(&[service(false)]));
        assert!(lines(&cluster, "KUBE-EXT-X27LE4BHSL4DOUIK")[0].ends_with("-j KUBE-MARK-MASQ"));
        let local = rules(&proxy(&[service(true)]));
        let endpoints = lines(&local, "KUBE-SVL-X27LE4BHSL4DOUIK");
        assert_eq!(endpoints.len(), 2);
        assert!(!endpoints.iter().any(|rule| rule.contains("10.244.2.2")));
    }
}
