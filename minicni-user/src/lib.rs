//! minicni: the kernel decides, eBPF remembers.
//!
//! One library, two programs: `minicni`, the CNI plugin that the container runtime executes, and `minicnid`, the node
//! daemon. The rooms, lower ones first; none knows one that is above it, and the first four do not know each other:
//!
//! * [`cni`]: the protocol, [`ipam`]: addresses, [`link`]: netlink and namespaces, [`datapath`]: programs and maps
//! * [`node`]: what a host needs before its first pod
//! * [`plugin`], [`daemon`], [`cli`]: what people and runtimes call

pub mod cli;
pub mod cni;
pub mod daemon;
pub mod datapath;
pub mod ipam;
pub mod link;
pub mod node;
pub mod plugin;
