//! What a host needs before its first pod, whoever prepares it: the daemon, or the plugin where there is no daemon.
//!
//! * [`StateDir`]: where the state of a node is, and the lock that serialises its preparation
//! * [`Facts`]: what was found out about the node, for the plugin to read
//! * [`forward()`]: the kernel settings that pods need in every datapath
//! * [`prepare()`]: these, those of the eBPF datapath, and its programs
//! * [`latency`]: how long the calls of the plugin took, for the daemon to tell
//! * [`attach`]: the shared tc blocks
//! * [`uplink`]: the programs on the interfaces towards other hosts

pub mod attach;
mod error;
mod facts;
mod forwarding;
pub mod latency;
mod mode;
mod prepare;
mod state;
pub mod uplink;

pub use error::NodeError;
pub use facts::{DaemonReport, Facts, Reported};
pub use forwarding::forward;
pub use mode::{Datapath, Mode};
pub use prepare::{Settings, detach, prepare};
pub use state::{DEFAULT_BPF_DIR, DEFAULT_STATE_DIR, StateDir, boot_id};

/// The group (`ip link show group …`) of the pods' interfaces on which no program looks after source addresses; the number
/// is ours ("mni" and 4).
pub const CHECKED_GROUP: u32 = 0x6d6e_6904;

/// How the names of the host's ends of the pods' veth pairs begin.
pub const HOST_PREFIX: &str = "mni";
