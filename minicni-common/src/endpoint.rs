//! What an interface of the host is to minicni.

use bytemuck::{Pod, Zeroable};

/// The value of the endpoint map; its key is the index of the interface in the host's namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct Endpoint {
    /// One of [`EndpointKind`], as a number.
    pub kind: u32,
    /// [`Endpoint::NO_FAST_PATH`] and [`Endpoint::NO_SPOOF_CHECK`], or 0.
    pub flags: u32,
    /// The pod's IPv4 address in network byte order, or 0.0.0.0; no other source may enter here, but for a DHCP
    /// client's.
    pub ipv4: [u8; 4],
    /// The pod's own MAC address; no other source may enter here. Zero of an uplink.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: [u8; 2],
    /// The pod's IPv6 address in network byte order, or `::`; no other source may enter here, but for what stays on the
    /// link.
    pub ipv6: [u8; 16],
}

const _: () = assert!(size_of::<Endpoint>() == 36);

impl Endpoint {
    /// The endpoint's flows stay in the stack (a pod with a bandwidth limit, a virtual machine). Whoever sets it
    /// later has to bump the interface's generation, too.
    pub const NO_FAST_PATH: u32 = 1;
    /// The endpoint may send with any source address and any MAC address (a router, a virtual machine). Its flows stay in
    /// the stack.
    pub const NO_SPOOF_CHECK: u32 = 2;
}

/// The value of the map in which the programs look for an endpoint first: an array, which costs them a tenth of what a hash does.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct EndpointSlot {
    /// The interface that has the slot; 0 of none. Of all that could have it, the others are found in the endpoint map alone.
    pub ifindex: u32,
    /// As in the endpoint map.
    pub endpoint: Endpoint,
}

const _: () = assert!(size_of::<EndpointSlot>() == 40);

/// What kind of interface an [`Endpoint`] is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum EndpointKind {
    /// The host's end of a pod's veth pair.
    Pod = 1,
    /// An interface towards the other nodes.
    Uplink = 2,
    /// A tunnel towards the other nodes.
    Tunnel = 3,
}

impl EndpointKind {
    /// The kind behind the number in [`Endpoint::kind`].
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Pod),
            2 => Some(Self::Uplink),
            3 => Some(Self::Tunnel),
            _ => None,
        }
    }
}
