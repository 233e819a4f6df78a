//! A real Kubernetes: its programs out of Debian's packages, an API server, and what clients need to talk to it.

mod api_server;
pub mod binaries;
mod certificates;
mod kubectl;
mod process;

pub(super) use self::api_server::DIRECTORY;
pub use self::{
    api_server::{ApiServer, PORT},
    binaries::Component,
    certificates::{Authority, Identity},
    kubectl::Kubectl,
    process::{Process, end_all},
};

/// The version of Kubernetes, that of Debian 12.
pub const VERSION: &str = "1.20.2";
/// The addresses of Services.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// The address of the API server's own Service: the first of them.
pub const SERVICE_ADDRESS: &str = "10.96.0.1";
