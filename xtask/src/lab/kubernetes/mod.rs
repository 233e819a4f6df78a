//! A real Kubernetes: its programs out of Debian's packages, an API server, and what clients need to talk to it.

mod api_server;
pub mod binaries;
mod certificates;
pub mod cluster;
mod kubectl;
mod process;

use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) use self::api_server::DIRECTORY;
pub use self::{
    api_server::{ApiServer, PORT},
    binaries::Component,
    certificates::{Authority, Identity},
    kubectl::Kubectl,
    process::{Process, end_all},
};

/// The version of Kubernetes, that of Debian 12.
pub const VERSION: &str = "1.20.2";
/// The networks of Services, of both families.
pub const SERVICE_CIDRS: (&str, &str) = ("10.96.0.0/16", "fd96::/112");
/// The addresses of the API server's own Service: the first of each network.
const SERVICE_ADDRESSES: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(10, 96, 0, 1), Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 1));
