//! minicni: the kernel decides, eBPF remembers.
//!
//! One library, two programs: `minicni`, the CNI plugin, and `minicnid`, the node daemon.
//! `cni`, `ipam`, `link` and `datapath` do not know each other; `plugin`, `daemon` and `cli` stand on them.

pub mod cli;
pub mod cni;
pub mod daemon;
pub mod datapath;
pub mod ipam;
pub mod link;
pub mod plugin;
