//! What is wrong between the daemon and the API server, and what to do about it.

use std::fmt;
use std::time::Duration;

use super::api::causes;
use super::decode::{DecodeError, Refusal};

/// The HTTP status of a version that the server does not remember.
const GONE: u16 = 410;

/// A request that failed, or an answer that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Failure {
    /// The server answered that it will not.
    Refused {
        /// The HTTP status.
        code: u16,
        /// What the server says.
        message: String,
    },
    /// There was no answer.
    NoAnswer(String),
    /// There was one, and it makes no sense.
    Unclear(String),
    /// It took too long.
    Slow(Duration),
    /// The server, at this URL, knows no node at all.
    Empty(String),
}

impl Failure {
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Refused { code: GONE, .. })
    }

    /// Whether other credentials, or another URL, may help.
    pub(super) fn may_be_of_access(&self) -> bool {
        matches!(self, Self::Refused { code: 401, .. } | Self::NoAnswer(_) | Self::Slow(_))
    }

    /// Whether the same has to be done about both.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.remedy() == other.remedy()
    }

    fn remedy(&self) -> &'static str {
        match self {
            Self::Refused { code: 401, .. } => {
                "the API server does not accept the credentials: look whether the ServiceAccount still exists and its token is \
                 mounted, or what the kubeconfig says"
            }
            Self::Refused { code: 403, .. } => {
                "the API server does not allow it: apply the ClusterRole and its binding to the ServiceAccount"
            }
            Self::NoAnswer(_) | Self::Slow(_) => {
                "look whether the API server runs and this host can reach it; where a Service's address is not reachable yet, \
                 name the server's own with --apiserver"
            }
            Self::Unclear(_) => {
                "look whether this is a Kubernetes API server, and what stands between it and this host"
            }
            Self::Refused { .. } => "look at the API server's log",
            Self::Empty(_) => "look whether this is the right cluster, and whether its kubelets run",
        }
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused { code: status.code, message: status.message },
            kube::Error::Service(source) => Self::NoAnswer(causes(source.as_ref())),
            error => Self::NoAnswer(causes(&error)),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(Refusal { code, message }: Refusal) -> Self {
        Self::Refused { code, message }
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Unclear(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { message, .. } | Self::NoAnswer(message) | Self::Unclear(message) => write!(f, "{message}")?,
            Self::Slow(limit) => write!(f, "no answer within {} s", limit.as_secs())?,
            Self::Empty(server) => write!(f, "{server} knows no Node at all")?,
        }
        write!(f, "; {}", self.remedy())
    }
}
