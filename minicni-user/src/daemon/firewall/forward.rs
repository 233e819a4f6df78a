//! Lets packets of pods be forwarded where iptables drops what no rule accepts, as Docker and ufw tell it to.
//!
//! An accept in a table of our own does not overrule the drop of another one, so a rule has to stand beside the policy.
//! Which backend of iptables is the active one needs no guess: each is looked at, and the one that drops gets the rule.

use std::fs;

use ipnet::IpNet;
use tracing::info;

use super::{FirewallError, table::Chain, tool::Tool};

/// Our chain in the table `filter`.
const CHAIN: &str = "MINICNI-FORWARD";
const COMMENT: &str = "-m comment --comment \"minicni: forward pod traffic\"";

/// One set of tables: of one implementation of iptables and one address family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Backend {
    nft: bool,
    ipv6: bool,
}

pub(super) const BACKENDS: [Backend; 4] = [
    Backend { nft: true, ipv6: false },
    Backend { nft: true, ipv6: true },
    Backend { nft: false, ipv6: false },
    Backend { nft: false, ipv6: true },
];

/// What there is in a table `filter`.
#[derive(Debug, Default, Eq, PartialEq)]
struct Saved {
    /// Whether the policy of `FORWARD` is DROP.
    drops: bool,
    /// The rules of `FORWARD` that lead to our chain, as they were saved.
    jumps: Vec<String>,
    /// The rules of our chain, where it is there; `None` stands for a rule that is not of ours.
    chain: Option<Vec<Option<Accept>>>,
}

/// An accepted prefix, as source (`-s`) or destination (`-d`).
type Accept = (&'static str, IpNet);

impl Backend {
    /// Whether it has a table `filter`. To ask iptables itself would make one.
    pub(super) fn is_used(self, chains: &[Chain]) -> bool {
        let family = if self.ipv6 { "ip6" } else { "ip" };
        if self.nft {
            return chains.iter().any(|chain| chain.is_iptables() && chain.family == family);
        }
        let names = format!("/proc/thread-self/net/{family}_tables_names");
        fs::read_to_string(names).is_ok_and(|names| names.lines().any(|name| name == "filter"))
    }

    /// Makes sure that packets from and to these prefixes are forwarded, and that there is nothing of ours where they are
    /// anyway. Changes nothing else.
    pub(super) fn keep(self, pods: &[IpNet]) -> Result<(), FirewallError> {
        let saved = Saved::parse(&self.save().run(&["-t", "filter"], "")?);
        let pods: Vec<IpNet> = pods.iter().copied().filter(|prefix| prefix.addr().is_ipv6() == self.ipv6).collect();
        let wanted = if saved.drops { &pods[..] } else { &[] };
        let Some(script) = saved.script(wanted) else { return Ok(()) };
        let restore = self.restore();
        // The lock is kube-proxy's, too, which may be long at it.
        restore.run(&["--noflush", "-w", "5"], &script)?;
        let pods = wanted.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        if wanted.is_empty() {
            info!(by = restore.program, "rules that forward packets of pods removed");
        } else {
            info!(by = restore.program, pods, "packets of pods are forwarded now");
        }
        Ok(())
    }

    /// Whether there is anything of ours.
    pub(super) fn is_there(self) -> bool {
        let saved = self.save().run(&["-t", "filter"], "").map(|text| Saved::parse(&text));
        saved.is_ok_and(|saved| saved.chain.is_some() || !saved.jumps.is_empty())
    }

    fn save(self) -> Tool {
        self.tool(match (self.ipv6, self.nft) {
            (false, false) => "iptables-legacy-save",
            (false, true) => "iptables-nft-save",
            (true, false) => "ip6tables-legacy-save",
            (true, true) => "ip6tables-nft-save",
        })
    }

    fn restore(self) -> Tool {
        self.tool(match (self.ipv6, self.nft) {
            (false, false) => "iptables-legacy-restore",
            (false, true) => "iptables-nft-restore",
            (true, false) => "ip6tables-legacy-restore",
            (true, true) => "ip6tables-nft-restore",
        })
    }

    fn tool(self, program: &'static str) -> Tool {
        let consequence = if self.ipv6 {
            "packets of pods may be dropped by a policy of FORWARD of ip6tables"
        } else {
            "packets of pods may be dropped by a policy of FORWARD of iptables"
        };
        Tool { program, package: "iptables", consequence }
    }
}

impl Chain {
    /// Whether it is the one that `iptables-nft` made for `FORWARD`.
    pub(super) fn is_iptables(&self) -> bool {
        ["ip", "ip6"].contains(&self.family.as_str()) && self.table == "filter" && self.name == "FORWARD"
    }
}

impl Saved {
    /// Reads what `iptables-save` prints.
    fn parse(text: &str) -> Self {
        let mut saved = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some(":FORWARD"), Some(policy)) => saved.drops = policy == "DROP",
                (Some(":MINICNI-FORWARD"), _) => drop(saved.chain.get_or_insert_default()),
                (Some("-A"), Some("FORWARD")) if line.ends_with(&format!(" -j {CHAIN}")) => {
                    saved.jumps.push(line.to_owned());
                }
                (Some("-A"), Some(CHAIN)) => saved.chain.get_or_insert_default().push(accept(line)),
                _ => {}
            }
        }
        saved
    }

    /// The input of `iptables-restore --noflush` that accepts packets from and to these prefixes, or of none at all;
    /// `None` where that is so already.
    fn script(&self, pods: &[IpNet]) -> Option<String> {
        let rules: Vec<Accept> = pods.iter().flat_map(|prefix| [("-s", *prefix), ("-d", *prefix)]).collect();
        let mut lines = vec!["*filter".to_owned()];
        if rules.is_empty() {
            if self.jumps.is_empty() && self.chain.is_none() {
                return None;
            }
            // Named like this it is emptied, so that it can be removed.
            lines.push(format!(":{CHAIN} - [0:0]"));
            lines.extend(self.jumps.iter().map(|jump| jump.replacen("-A", "-D", 1)));
            lines.push(format!("-X {CHAIN}"));
        } else {
            let chain =
                self.chain.as_ref().is_some_and(|chain| chain.iter().copied().eq(rules.iter().copied().map(Some)));
            if chain && self.jumps.len() == 1 {
                return None;
            }
            lines.push(format!(":{CHAIN} - [0:0]"));
            lines.extend(rules.iter().map(|(side, prefix)| format!("-A {CHAIN} {side} {prefix} {COMMENT} -j ACCEPT")));
            // At the end, because that is where the policy is. What others decide before stays decided.
            match self.jumps.as_slice() {
                [] => lines.push(format!("-A FORWARD {COMMENT} -j {CHAIN}")),
                [_, more @ ..] => lines.extend(more.iter().map(|jump| jump.replacen("-A", "-D", 1))),
            }
        }
        lines.push("COMMIT\n".to_owned());
        Some(lines.join("\n"))
    }
}

/// The prefix that one of our rules accepts.
fn accept(line: &str) -> Option<Accept> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (["-A", _, side, prefix], rest) = words.split_at_checked(4)? else { return None };
    let side = ["-s", "-d"].into_iter().find(|known| known == side)?;
    (rest.join(" ") == format!("{COMMENT} -j ACCEPT")).then_some((side, prefix.parse().ok()?))
}

#[cfg(test)]
mod tests;
