//! What the kernel and the datapath counted, and what conntrack and the sockets are left with.

use std::{fs, net::SocketAddr, process::Command};

use anyhow::{Context as _, Result};
use minicni::link::Netns;

use super::bed::Bed;
use crate::lab::Node;

/// Counts of both nodes, node1's first.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Gauges {
    /// Packets on the fast path.
    pub(super) redirected: [u64; 2],
    /// Packets that conntrack found invalid.
    pub(super) invalid: [u64; 2],
}

impl Gauges {
    pub(super) fn read(bed: &Bed) -> Result<Self> {
        let mut gauges = Self::default();
        for (index, node) in bed.lab.nodes.iter().enumerate() {
            gauges.redirected[index] = node.counters().redirected;
            gauges.invalid[index] = node.netns.run(invalid)??;
        }
        Ok(gauges)
    }

    /// What was counted since.
    pub(super) fn since(self, before: Self) -> Self {
        let since = |now: [u64; 2], before: [u64; 2]| [now[0] - before[0], now[1] - before[1]];
        Self { redirected: since(self.redirected, before.redirected), invalid: since(self.invalid, before.invalid) }
    }
}

/// The counter of the calling thread's namespace, over all CPUs.
fn invalid() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack").context("read conntrack's counters")?;
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column =
        header.split_whitespace().position(|name| name == "invalid").context("conntrack counts no `invalid`")?;
    let counts = lines.filter_map(|line| u64::from_str_radix(line.split_whitespace().nth(column)?, 16).ok());
    Ok(counts.sum())
}

/// The conntrack table of a node, one entry a line.
pub(super) fn conntrack(node: &Node, protocol: &str, ipv6: bool) -> Result<String> {
    let family = if ipv6 { "ipv6" } else { "ipv4" };
    let mut command = Command::new("conntrack");
    // The number of entries, which it says on stderr, is for people.
    command.args(["-L", "-f", family, "-p", protocol]);
    let output = node.netns.run(|| command.output())?.context("run conntrack")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The entries of connections that began at an address.
pub(super) fn begun_at(table: &str, origin: SocketAddr) -> Vec<&str> {
    let (source, port) = (format!("src={}", origin.ip()), format!("sport={}", origin.port()));
    let is = |line: &&str| {
        let mut words = line.split_whitespace();
        // The first of each is that of the original direction.
        words.clone().find(|word| word.starts_with("src=")) == Some(&source)
            && words.find(|word| word.starts_with("sport=")) == Some(&port)
    };
    table.lines().filter(is).collect()
}

/// States of the TCP sockets of a namespace that have a port, at either end; without those that are over.
pub(super) fn sockets(netns: &Netns, port: u16) -> Result<Vec<u8>> {
    let text = netns.run(|| {
        ["tcp", "tcp6"].map(|file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default())
    })?;
    Ok(text.iter().flat_map(|text| text.lines().skip(1)).filter_map(|line| state(line, port)).collect())
}

/// The state in a line of `/proc/net/tcp`, if it has the port, and is neither `TIME_WAIT` nor `CLOSE` nor `LISTEN`.
fn state(line: &str, port: u16) -> Option<u8> {
    let mut words = line.split_whitespace().skip(1);
    let has = |word: &str| word.rsplit(':').next().and_then(|port| u16::from_str_radix(port, 16).ok()) == Some(port);
    let (local, remote) = (words.next()?, words.next()?);
    let ours = has(local) || has(remote);
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    (ours && ![6, 7, 10].contains(&state)).then_some(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_belongs_to_the_end_that_began() {
        let table = "udp 17 5 src=10.0.0.1 dst=10.0.0.2 sport=7 dport=80 src=10.0.0.2 dst=10.0.0.1 sport=80 dport=7 [ASSURED] use=1";
        assert_eq!(begun_at(table, "10.0.0.1:7".parse().unwrap()), [table]);
        for other in ["10.0.0.2:80", "10.0.0.1:80", "10.0.0.1:70"] {
            assert!(begun_at(table, other.parse().unwrap()).is_empty(), "{other}");
        }
    }

    #[test]
    fn a_socket_that_is_over_does_not_count() {
        let line = |state: &str| format!("  0: 0100000A:1F90 0200000A:9C40 {state} 00000000:00000000 00:00000000");
        assert_eq!(state(&line("01"), 40_000), Some(1));
        assert_eq!(state(&line("08"), 8080), Some(8));
        assert_eq!(state(&line("06"), 8080), None);
        assert_eq!(state(&line("01"), 81), None);
    }
}
