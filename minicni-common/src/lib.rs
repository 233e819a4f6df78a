//! What minicni's eBPF programs and its user space share: keys and values of the maps, the names of maps,
//! programs and pins, verdicts and their reasons.
//!
//! Every shared struct is `#[repr(C)]` and [`bytemuck::Pod`]: without padding, valid for any bit pattern, of a
//! size that is asserted beside it. A change of any of them is a new [`names::LAYOUT_VERSION`].

#![no_std]

pub mod counters;
pub mod endpoint;
pub mod flow;
pub mod names;

pub use counters::{Counters, Reason, Verdict};
pub use endpoint::{Endpoint, EndpointKind, EndpointSlot};
pub use flow::{
    Bucket4, Bucket6, Direction, Flow, FlowKey4, FlowKey6, FlowState, Note4, Note6, Shortcut, Shortcut4, Shortcut6,
    Sketch, fingerprint, tag,
};

/// Tells aya that a shared struct may be copied to and from map memory.
#[cfg(feature = "user")]
macro_rules! aya_pod {
    ($($type:ty),+) => {
        $(
            // SAFETY: the type is `bytemuck::Pod`, which asks for everything that aya asks for and checks it.
            unsafe impl aya::Pod for $type {}
        )+
    };
}

#[cfg(feature = "user")]
aya_pod!(Bucket4, Bucket6, Counters, Endpoint, EndpointSlot, Flow, FlowKey4, FlowKey6);
