use std::{io, path::PathBuf};

use crate::{datapath::DatapathError, link::LinkError};

/// What can go wrong when a node is prepared.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A file of the node's state could not be read or written.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// `node.json` is there but cannot be understood.
    #[error("{} is malformed: {source}; restart minicnid, which writes it", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        source: serde_json::Error,
    },
    /// Plugin and daemon are not in the same network namespace.
    #[error(
        "{} was written in network namespace {netns}, and this is {own}: plugin and daemon must both run in the host's \
         (a DaemonSet with hostNetwork: true); if that one is gone, remove the file", path.display()
    )]
    OtherNetns {
        /// The file.
        path: PathBuf,
        /// The namespace's number in the file.
        netns: u64,
        /// That of the caller.
        own: u64,
    },
    /// A kernel setting that every mode needs could not be made.
    #[error(transparent)]
    Setting(#[from] LinkError),
    /// Pods are to have IPv6 addresses, and the kernel has no IPv6.
    #[error(
        "the node's pods have IPv6 addresses, but the kernel has no IPv6 ({0}); load the module ipv6, boot without \
         ipv6.disable=1, or take the IPv6 prefix from the node"
    )]
    NoIpv6(LinkError),
    /// The eBPF datapath was asked for and is not to be had.
    #[error("datapath ebpf: {0}")]
    Datapath(#[from] DatapathError),
}
