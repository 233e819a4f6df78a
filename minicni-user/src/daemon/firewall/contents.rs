//! What stands in minicni's own tables of nftables. Pure: reads and changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};

use ipnet::IpNet;

use super::{super::nodes::Node, Asked, elements::Change};
use crate::node::{CHECKED_GROUP, HOST_PREFIX};

/// The table. Its name and family are an interface: people look at it, and whoever uninstalls removes it.
pub(super) const TABLE: &str = "inet minicni";
/// The table of [`SOURCES`], which IPv4 packets do not meet. An interface, too.
pub(super) const TABLE6: &str = "ip6 minicni";
/// Both.
pub(super) const TABLES: [&str; 2] = [TABLE, TABLE6];

/// The chain in which pods get this node's address where they leave the cluster.
const MASQUERADE: &str = "postrouting";
/// The chain that drops what pods without the programs send from addresses of others. The kernel's own `rp_filter` knows IPv4 alone.
/// It is asked about every packet, so it stands in a table of IPv6: `inet` would cost IPv4 packets one to two percent.
const SOURCES: &str = "prerouting";
/// The chain that keeps pods from the tunnel of this node.
const INPUT: &str = "input";
/// The chain that keeps this node's pods from the tunnels of others. There [`INPUT`] drops what bears a pod's address, so this one
/// is for what would be translated, and is of type `nat`: another one would cost each packet that the stack forwards, where this is
/// asked about the first of a connection alone. It comes before others of its kind, because the walk ends with who translates.
/// <https://elixir.bootlin.com/linux/v6.12/source/net/netfilter/nf_nat_core.c#L904>
const TUNNEL: &str = "tunnel";

/// The chains by table, and what each of them is asked about.
const CHAINS: [(&str, &str, &str); 4] = [
    (TABLE, MASQUERADE, "type nat hook postrouting priority srcnat"),
    (TABLE, INPUT, "type filter hook input priority filter"),
    (TABLE, TUNNEL, "type nat hook postrouting priority filter"),
    (TABLE6, SOURCES, "type filter hook prerouting priority raw"),
];

fn is_in(table: &str, chain: &str) -> bool {
    CHAINS.iter().any(|(there, name, _)| (*there, *name) == (table, chain))
}

/// What the tables are to do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Contents {
    /// Whether there is masquerading at all.
    pub(super) masquerade: bool,
    /// The prefixes of this node's pods, of which the other nodes know.
    pub(super) pods: Vec<IpNet>,
    /// Prefixes that this node had before, with pods in them. No other node has a route to them any more.
    pub(super) former: Vec<IpNet>,
    /// Where pods keep their address: the pods and addresses of all nodes, and what else was asked for.
    pub(super) cluster: Vec<IpNet>,
    /// Where nodes receive what comes through the tunnel, where there is one.
    pub(super) tunnel: Option<TunnelEnds>,
}

/// The UDP port of nodes. What is sent there passes for a packet of any pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TunnelEnds {
    pub(super) port: u16,
    /// The pods of all nodes, who may send to that port of each other and of nobody else: elsewhere may be a node tomorrow, and
    /// nobody is asked about a connection that is there by then.
    pub(super) pods: Vec<IpNet>,
}

/// The parts of a table, as they are compared with what is there.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Parts {
    /// The policy of each chain.
    pub(super) chains: BTreeMap<String, Option<String>>,
    /// The chain and the comment of each rule, by chain and in their order.
    pub(super) rules: Vec<(String, Option<String>)>,
    /// The elements of each set.
    pub(super) sets: BTreeMap<String, BTreeSet<IpNet>>,
}

impl Parts {
    /// The order of chains says nothing.
    pub(super) fn sort(&mut self) {
        self.rules.sort_by(|(one, _), (other, _)| one.cmp(other));
    }
}

/// A rule and what it is for. The comment stands in the table, too.
type Rule = (&'static str, String, &'static str);

impl Contents {
    /// What the nodes ask for, seen from the node `me`; `None` while that one has no usable pod CIDR.
    pub(super) fn new(nodes: &[Node], me: &str, former: &[IpNet], asked: &Asked) -> Option<Self> {
        let ips: BTreeSet<IpAddr> = nodes.iter().flat_map(|node| &node.internal_ips).copied().collect();
        // As with the routes: who claims the addresses of nodes claims too much.
        let usable = |cidr: &&IpNet| ips.range(cidr.network()..=cidr.broadcast()).next().is_none();
        let own = nodes.iter().find(|node| node.name == me)?;
        let pods: Vec<IpNet> = own.pod_cidrs.iter().filter(usable).map(IpNet::trunc).collect();
        if pods.is_empty() {
            return None;
        }
        let mut cluster: Vec<IpNet> = nodes.iter().flat_map(|node| &node.pod_cidrs).filter(usable).copied().collect();
        let tunnel = asked.tunnel_port.map(|port| TunnelEnds { port, pods: IpNet::aggregate(&cluster) });
        cluster.extend(ips.into_iter().map(IpNet::from));
        cluster.extend(&asked.masquerade.except);
        Some(Self {
            masquerade: asked.masquerade.on,
            pods,
            former: former.to_vec(),
            cluster: IpNet::aggregate(&cluster),
            tunnel,
        })
    }

    /// The prefixes of pods that may be on this node.
    pub(super) fn local(&self) -> Vec<IpNet> {
        self.pods.iter().chain(&self.former).copied().collect()
    }

    /// The parts of one of the [`TABLES`] as they are when nobody changed them.
    pub(super) fn parts(&self, table: &str) -> Parts {
        let rules: Vec<_> = self.rules().into_iter().filter(|(chain, ..)| is_in(table, chain)).collect();
        let sets = if table == TABLE { self.sets() } else { BTreeMap::new() };
        let mut parts = Parts {
            chains: rules.iter().map(|(chain, ..)| ((*chain).to_owned(), Some("accept".to_owned()))).collect(),
            rules: rules.iter().map(|(chain, _, why)| ((*chain).to_owned(), Some((*why).to_owned()))).collect(),
            sets: sets.into_iter().map(|(name, elements)| (name.to_owned(), elements)).collect(),
        };
        parts.sort();
        parts
    }

    /// A script that puts both tables, whole, in the place of whatever is there, in one transaction.
    pub(super) fn script(&self) -> String {
        let mut script = removal();
        let rules = self.rules();
        for table in TABLES {
            if !rules.iter().any(|(chain, ..)| is_in(table, chain)) {
                continue;
            }
            let _ = writeln!(script, "table {table} {{");
            if table == TABLE {
                self.declare_sets(&mut script);
            }
            for (_, chain, hook) in CHAINS.iter().filter(|(there, ..)| *there == table) {
                let mut own = rules.iter().filter(|rule| rule.0 == *chain).peekable();
                if own.peek().is_none() {
                    continue;
                }
                let _ = writeln!(script, "  chain {chain} {{\n    {hook}; policy accept;");
                for (_, rule, why) in own {
                    let _ = writeln!(script, "    {rule} comment \"{why}\"");
                }
                script.push_str("  }\n");
            }
            script.push_str("}\n");
        }
        script
    }

    fn declare_sets(&self, script: &mut String) {
        for (name, elements) in self.sets() {
            let kind = if name.ends_with('6') { "ipv6_addr" } else { "ipv4_addr" };
            let elements =
                if elements.is_empty() { String::new() } else { format!("; elements = {{ {} }}", listed(&elements)) };
            let _ = writeln!(script, "  set {name} {{ type {kind}; flags interval{elements}; }}");
        }
    }

    /// What makes the table this, where it is `old`, without touching what is the same; `None` where only the whole script
    /// does.
    pub(super) fn changes(&self, old: &Self) -> Option<Vec<Change>> {
        if old.rules() != self.rules() || self.rules().is_empty() {
            return None;
        }
        let (before, mut changes) = (old.sets(), Vec::new());
        for (set, elements) in self.sets() {
            let before = before.get(set)?;
            let removed: BTreeSet<_> = before.difference(&elements).copied().collect();
            let added: BTreeSet<_> = elements.difference(before).copied().collect();
            if !(removed.is_empty() && added.is_empty()) {
                changes.push(Change { set, removed, added });
            }
        }
        Some(changes)
    }

    fn sets(&self) -> BTreeMap<&'static str, BTreeSet<IpNet>> {
        let of = |prefixes: &[IpNet], ipv6| {
            // Without what lies in another, which a set of intervals refuses.
            let aggregated = IpNet::aggregate(&prefixes.to_vec());
            aggregated.into_iter().filter(|prefix| prefix.addr().is_ipv6() == ipv6).collect()
        };
        let mut sets = BTreeMap::new();
        if self.masquerade {
            sets.extend([
                ("pods4", of(&self.pods, false)),
                ("pods6", of(&self.pods, true)),
                ("former4", of(&self.former, false)),
                ("former6", of(&self.former, true)),
                ("cluster4", of(&self.cluster, false)),
                ("cluster6", of(&self.cluster, true)),
            ]);
        }
        if let Some(ends) = &self.tunnel {
            sets.extend([("networks4", of(&ends.pods, false)), ("networks6", of(&ends.pods, true))]);
        }
        sets
    }

    fn rules(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if self.masquerade {
            rules.extend([
                (MASQUERADE, format!("oifname \"{HOST_PREFIX}*\" return"), "to pods of this node"),
                (MASQUERADE, "ip daddr 224.0.0.0/4 return".to_owned(), "multicast"),
                (MASQUERADE, "ip6 daddr ff00::/8 return".to_owned(), "multicast"),
            ]);
            for (ip, family) in [("ip", '4'), ("ip6", '6')] {
                rules.push((
                    MASQUERADE,
                    format!("{ip} saddr @pods{family} {ip} daddr != @cluster{family} counter masquerade fully-random"),
                    "pods to hosts outside the cluster",
                ));
                rules.push((
                    MASQUERADE,
                    format!("{ip} saddr @former{family} counter masquerade fully-random"),
                    "pods of prefixes that no other node routes to here any more",
                ));
            }
        }
        if let Some(TunnelEnds { port, .. }) = &self.tunnel {
            let from_pods = format!("udp dport {port} iifname \"{HOST_PREFIX}*\"");
            rules.push((INPUT, format!("{from_pods} counter drop"), "a pod of this node, at its tunnel"));
            for (ip, family) in [("ip", '4'), ("ip6", '6')] {
                rules.push((
                    INPUT,
                    format!("udp dport {port} {ip} saddr @networks{family} counter drop"),
                    "a pod of another node, at this node's tunnel",
                ));
                rules.push((
                    TUNNEL,
                    format!("{from_pods} {ip} daddr != @networks{family} counter drop"),
                    "a pod, at the tunnel's port of what may be a node",
                ));
            }
        }
        if self.local().iter().any(|prefix| prefix.addr().is_ipv6()) {
            rules.push((
                SOURCES,
                format!(
                    "meta iifgroup {CHECKED_GROUP} ip6 saddr != {{ ::, fe80::/10 }} fib saddr . iif oif \
                     missing counter drop"
                ),
                "from a pod, and not from its address",
            ));
        }
        rules
    }
}

/// A script that removes both tables, whether or not they are there.
pub(super) fn removal() -> String {
    TABLES.map(|table| format!("table {table}\ndelete table {table}\n")).concat()
}

/// As `nft` takes them.
pub(super) fn listed(elements: &BTreeSet<IpNet>) -> String {
    elements.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
