//! The eBPF programs and their maps: load, pin, open, read. Knows no netlink: it hands out program descriptors, and
//! whoever wires an interface attaches them.

mod batch;
mod constants;
mod endpoints;
mod error;
mod flows;
mod links;
mod load;
mod maps;
mod older;
mod pins;
mod syscall;

pub use constants::Constants;
pub use endpoints::Endpoints;
pub use error::DatapathError;
pub use flows::{FlowKey, Flows};
pub use links::{attach_tcx, detach_tcx, has_tcx, links};
pub use load::{OBJECT, load};
pub use maps::{Generations, counters};
pub use older::adopt;
pub use pins::{Pins, Programs};
