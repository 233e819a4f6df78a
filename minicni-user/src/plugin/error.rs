//! From the errors of the rooms below to what a runtime is told.

use crate::{
    cni::{CniError, Code},
    datapath::DatapathError,
    ipam::IpamError,
    link::LinkError,
    node::NodeError,
};

/// Addresses.
const IPAM: u32 = 100;
/// Devices, addresses on them, routes.
const LINK: u32 = 101;
/// Programs and maps.
const DATAPATH: u32 = 102;
/// The state of the node.
const NODE: u32 = 103;

impl From<IpamError> for CniError {
    fn from(error: IpamError) -> Self {
        let code = match error {
            IpamError::Exhausted { .. } => Code::TryAgain,
            IpamError::Io { .. } => Code::Io,
            _ => Code::Own(IPAM),
        };
        Self::new(code, error.to_string())
    }
}

impl From<LinkError> for CniError {
    fn from(error: LinkError) -> Self {
        let code = match error {
            LinkError::NetnsMissing { .. } | LinkError::NotANamespace { .. } | LinkError::Netns { .. } => {
                Code::InvalidNetns
            }
            _ => Code::Own(LINK),
        };
        Self::new(code, error.to_string())
    }
}

impl From<DatapathError> for CniError {
    fn from(error: DatapathError) -> Self {
        Self::new(Code::Own(DATAPATH), error.to_string())
    }
}

impl From<NodeError> for CniError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::File { .. } => Self::new(Code::Io, error.to_string()),
            NodeError::Malformed { .. } | NodeError::OtherNetns { .. } | NodeError::NoIpv6(_) => {
                Self::new(Code::Own(NODE), error.to_string())
            }
            NodeError::Setting(error) => error.into(),
            NodeError::Datapath(error) => error.into(),
        }
    }
}

/// Errors of a command that goes on after each, as one.
#[derive(Default)]
pub(super) struct Errors(Vec<CniError>);

impl Errors {
    /// Keeps the error of a step, if it failed.
    pub(super) fn keep<T>(&mut self, step: Result<T, impl Into<CniError>>) -> Option<T> {
        step.map_err(|error| self.0.push(error.into())).ok()
    }

    /// Whether no step failed.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first error, with the others as its details.
    pub(super) fn into_result(self) -> Result<(), CniError> {
        let mut errors = self.0.into_iter();
        let Some(first) = errors.next() else { return Ok(()) };
        let others: Vec<_> = errors.map(|error| error.to_string()).collect();
        Err(if others.is_empty() { first } else { first.details(others.join("; ")) })
    }
}
