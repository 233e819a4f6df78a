//! What can go wrong between this process and the kernel.

use std::{io, path::PathBuf};

use nix::errno::Errno;

/// An operation on the kernel that did not succeed, with the object it was about.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The kernel answered a netlink request with an error; `reason` is its own text, or empty.
    #[error("{operation}: {errno}{}{}", parenthesised(.reason), hint(*.errno))]
    Refused {
        /// What was asked, for example `add route 10.1.0.5/32 dev 7`.
        operation: String,
        /// The kernel's error number.
        errno: Errno,
        /// The kernel's extended acknowledgement.
        reason: String,
    },
    /// The netlink socket itself failed: no answer was received, so whether the kernel acted is unknown. The socket
    /// must not be used any further; open a new one, look at the actual state and repeat.
    #[error("{operation}: {call} on the netlink socket: {errno}{}", hint(*.errno))]
    Transport {
        /// What was asked.
        operation: String,
        /// The system call.
        call: &'static str,
        /// Its error number.
        errno: Errno,
    },
    /// The kernel's answer could not be read.
    #[error("{operation}: cannot read the kernel's answer: {reason}")]
    Undecodable {
        /// What was asked.
        operation: String,
        /// What is wrong with the bytes.
        reason: String,
    },
    /// A table kept changing while it was read; ask again later.
    #[error("{operation}: the table changed during each of {attempts} attempts to read it; try again")]
    Inconsistent {
        /// What was asked.
        operation: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// A value that the kernel cannot take.
    #[error("{field} {value:?} is not usable: {reason}")]
    Invalid {
        /// Which value.
        field: &'static str,
        /// The value.
        value: String,
        /// What it must look like.
        reason: &'static str,
    },
    /// There is no file at the path of a namespace.
    #[error("network namespace {}: there is no such file; the sandbox is gone or was never made", .path.display())]
    NetnsMissing {
        /// The path.
        path: PathBuf,
    },
    /// The file at the path of a namespace is something else.
    #[error("{} is not a network namespace: nothing of the kind is mounted there", .path.display())]
    NotANamespace {
        /// The path.
        path: PathBuf,
    },
    /// A system call on a namespace failed.
    #[error("{call} for network namespace {}: {errno}{}", .path.display(), hint(*.errno))]
    Netns {
        /// The system call or step.
        call: &'static str,
        /// The namespace.
        path: PathBuf,
        /// The error number.
        errno: Errno,
    },
    /// The code run inside a namespace panicked.
    #[error("the work inside network namespace {} panicked: {message}", .path.display())]
    Panicked {
        /// The namespace.
        path: PathBuf,
        /// What the panic said.
        message: String,
    },
    /// A kernel setting could not be read or written.
    #[error("{action} sysctl {key}: {errno}{}", hint(*.errno))]
    Sysctl {
        /// `read`, or `set to <value>`.
        action: String,
        /// The setting, as a path below `/proc/sys`.
        key: String,
        /// The error number.
        errno: Errno,
    },
}

impl LinkError {
    /// The error number of the kernel, if it is the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. }
            | Self::Transport { errno, .. }
            | Self::Netns { errno, .. }
            | Self::Sysctl { errno, .. } => Some(*errno as i32),
            Self::NetnsMissing { .. } => Some(Errno::ENOENT as i32),
            Self::Undecodable { .. }
            | Self::Inconsistent { .. }
            | Self::Invalid { .. }
            | Self::NotANamespace { .. }
            | Self::Panicked { .. } => None,
        }
    }
}

/// The error number of an I/O error; `EIO` for the few that do not come from the kernel.
pub(super) fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn parenthesised(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM | Errno::EACCES => "; this needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN",
        Errno::EROFS => {
            "; /proc/sys is mounted read-only here; mount the host's /proc/sys/net writable elsewhere, see --proc-sys"
        }
        Errno::ENOBUFS => "; the kernel had no memory left for its answers",
        _ => "",
    }
}
