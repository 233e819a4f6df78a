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

use std::time::Instant;

use crate::{
    cni::{AddResult, CniError, Plugin, Request},
    node::latency::Latencies,
};

pub use names::HOST_PREFIX;
pub use pod::ENDPOINT_ROUTE_PROTOCOL;

/// The plugin. It keeps nothing between calls.
#[derive(Clone, Copy, Debug)]
pub struct Minicni {
    /// When this process began: its calls are timed from there.
    pub started: Instant,
}

impl Minicni {
    /// Counts how long a call took, where the network has a state directory. Nothing depends on it.
    fn timed<T>(self, request: &Request, result: Result<T, CniError>) -> Result<T, CniError> {
        let counted = config::state(&request.config).map(|state| Latencies::open(&state));
        if let Some(Ok(latencies)) = counted {
            let code = result.as_ref().err().map(|error| error.code.number());
            latencies.record(request.environment.command, code, self.started.elapsed());
        }
        result
    }
}

impl Plugin for Minicni {
    fn add(&self, request: &Request) -> Result<AddResult, CniError> {
        self.timed(request, add::add(request))
    }

    fn check(&self, request: &Request) -> Result<(), CniError> {
        self.timed(request, check::check(request))
    }

    fn del(&self, request: &Request) -> Result<(), CniError> {
        self.timed(request, del::del(request))
    }

    fn gc(&self, request: &Request) -> Result<(), CniError> {
        self.timed(request, gc::gc(request))
    }

    fn status(&self, request: &Request) -> Result<(), CniError> {
        self.timed(request, status::status(request))
    }
}
