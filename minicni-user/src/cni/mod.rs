//! The CNI protocol as the plugin's side sees it: environment, network configuration, results, errors, dispatch.
//!
//! Knows no network and no file but standard input and output. The rules are those of the
//! [specification](https://github.com/containernetworking/cni/blob/spec-v1.1.0/SPEC.md), read the way its reference
//! implementation (`pkg/skel`, `libcni`) and the runtimes practise it.

mod config;
mod environment;
mod error;
mod fields;
mod prev_result;
mod requested;
mod result;
mod run;
mod version;

#[cfg(test)]
mod tests;

pub use config::{Attachment, NetConf, ValidAttachments, get_ignore_case};
pub use environment::{Args, Command, Environment};
pub use error::{CniError, Code};
pub use requested::{IpRange, Requested};
pub use result::{AddResult, Dns, Interface, Ip, Route};
pub use run::{Plugin, Request, run};
pub use version::Version;
