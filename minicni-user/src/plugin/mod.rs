//! The CNI plugin: ADD, DEL, CHECK, GC and STATUS, composed of `cni`, `ipam`, `link`, `datapath` and `node`.
//!
//! The order of effects, so that whatever is killed half way leaves a state that the next command repairs:
//!
//! * ADD: lease, veth pair, pod side, host side with programs and route, endpoint entry, answer
//! * DEL: route, flows and endpoint entry, veth pair, and only then the lease, into its cooldown

mod add;
mod check;
mod config;
mod del;
mod difference;
mod error;
mod gc;
mod names;
mod pod;
mod ranges;
pub mod reclaim;
mod status;
mod unwire;
mod wiring;

use crate::cni::{AddResult, CniError, Plugin, Request};

pub use names::HOST_PREFIX;
pub use pod::ENDPOINT_ROUTE_PROTOCOL;

/// The plugin. It keeps nothing between calls.
#[derive(Clone, Copy, Debug)]
pub struct Minicni;

impl Plugin for Minicni {
    fn add(&self, request: &Request) -> Result<AddResult, CniError> {
        add::add(request)
    }

    fn check(&self, request: &Request) -> Result<(), CniError> {
        check::check(request)
    }

    fn del(&self, request: &Request) -> Result<(), CniError> {
        del::del(request)
    }

    fn gc(&self, request: &Request) -> Result<(), CniError> {
        gc::gc(request)
    }

    fn status(&self, request: &Request) -> Result<(), CniError> {
        status::status(request)
    }
}
