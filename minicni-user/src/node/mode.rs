use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The `datapath` that someone asks for.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Datapath {
    /// eBPF where the kernel has what it takes, else the kernel's routes alone, saying why.
    #[default]
    Auto,
    /// eBPF or an error.
    Ebpf,
    /// The kernel's routes alone, which is complete.
    Route,
}

impl FromStr for Datapath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "ebpf" => Ok(Self::Ebpf),
            "route" => Ok(Self::Route),
            other => Err(format!("{other:?} is none of auto, ebpf, route")),
        }
    }
}

impl fmt::Display for Datapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Ebpf => "ebpf",
            Self::Route => "route",
        })
    }
}

/// The datapath that a node has.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "mode")]
pub enum Mode {
    /// The programs are loaded and pinned.
    Ebpf {
        /// Why TCP does not take the fast path, where it does not.
        #[serde(default, rename = "withoutTcp", skip_serializing_if = "Option::is_none")]
        without_tcp: Option<String>,
        /// Conntrack's timeout for UDP, in seconds, that the programs were loaded for.
        #[serde(rename = "udpTimeout")]
        udp_timeout: u64,
    },
    /// The kernel's routes alone.
    Route {
        /// Why there is no fast path; absent where nobody wanted one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ebpf { without_tcp: None, .. } => write!(f, "ebpf"),
            Self::Ebpf { without_tcp: Some(reason), .. } => write!(f, "ebpf, without TCP: {reason}"),
            Self::Route { reason: None } => write!(f, "route"),
            Self::Route { reason: Some(reason) } => write!(f, "route: {reason}"),
        }
    }
}
