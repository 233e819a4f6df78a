use std::{io, time::Duration};

use nix::errno::Errno;

/// What the firewall rules cannot be looked at or changed for.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// A program is not there.
    #[error("{program} is not installed, so {consequence}; install the package {package}")]
    NotInstalled {
        /// The program.
        program: &'static str,
        /// The package of Debian and others that has it.
        package: &'static str,
        /// What is not done without it.
        consequence: &'static str,
    },
    /// A program could not be executed, or not be talked to.
    #[error("execute {program}: {source}")]
    Execute {
        /// The program.
        program: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A program did not end, and was killed.
    #[error("{command} did not end within {} s; {consequence} until that is solved", limit.as_secs())]
    Hung {
        /// The program and its arguments.
        command: String,
        /// How long it had.
        limit: Duration,
        /// What is not done meanwhile.
        consequence: &'static str,
    },
    /// A program refused.
    #[error("{command}: {stderr}; {consequence} until that is solved")]
    Refused {
        /// The program and its arguments.
        command: String,
        /// What it said.
        stderr: String,
        /// What is not done meanwhile.
        consequence: &'static str,
    },
    /// A program printed what is not understood.
    #[error(
        "{command} printed no JSON that is understood: {source}; nftables 0.9.7 or later, built with JSON, is needed"
    )]
    Malformed {
        /// The program and its arguments.
        command: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The kernel refused to change elements of sets, and changed none.
    #[error(
        "nftables: change elements in table inet minicni: {0}; somebody else changed the table, or the kernel is old"
    )]
    Elements(Errno),
    /// Netlink itself failed, so whether the kernel acted is unknown.
    #[error("nftables: change elements in table inet minicni: {call} on the netlink socket: {errno}")]
    Netlink {
        /// The system call.
        call: &'static str,
        /// Its error number.
        errno: Errno,
    },
    /// The table is not what was just written.
    #[error("nftables: table inet minicni does not read back as it was written; something else changes it")]
    NotAsWritten,
    /// Another table drops, which cannot be overruled.
    #[error(
        "nftables: chain {chain} drops what none of its rules accepts, and no other table can overrule it; accept the \
         pods' prefixes there ({prefixes})"
    )]
    Foreign {
        /// Family, table and chain.
        chain: String,
        /// The prefixes of this node's pods.
        prefixes: String,
    },
    /// firewalld rejects, which cannot be overruled.
    #[error(
        "nftables: chain {chain} drops what none of its rules accepts, and no other table can overrule it; let firewalld \
         trust the pods and addresses of all nodes: firewall-cmd --permanent --zone=trusted {trust}, then firewall-cmd \
         --reload"
    )]
    Firewalld {
        /// Family, table and chain.
        chain: String,
        /// The arguments with the prefixes that it does not know.
        trust: String,
    },
}

impl FirewallError {
    /// Whether rules of others are meant, which can be told only: to look again soon changes nothing.
    pub(super) fn is_of_others(&self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Firewalld { .. })
    }
}
