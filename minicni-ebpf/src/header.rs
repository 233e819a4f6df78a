//! What the two versions of IP differ in. Everything else is written once and compiled for each.

use aya_ebpf::{
    bindings::bpf_fib_lookup,
    btf_maps::{Array, LruHashMap},
    programs::TcContext,
};
use minicni_common::{
    Endpoint, Flow, Reason,
    names::{BUCKETS, MAX_FLOWS, NOTE_ENTRIES},
};

use crate::parse::Packet;

/// A flow cache.
pub type Flows<K> = LruHashMap<K, Flow, { MAX_FLOWS as usize }>;
/// What packets entered as, by tag.
pub type Notes<N> = Array<N, { NOTE_ENTRIES as usize }>;

/// What is found of flows by their hash.
pub type Buckets<B> = Array<B, { BUCKETS as usize }>;

/// An IP header as it lies in a packet, where all that its alignment promises is two bytes.
pub trait Header: Copy {
    /// What the Ethernet header calls it.
    const ETHER_TYPE: u16;
    /// An address as the machine loads it.
    type Address: Copy + Default + Eq;
    type Key: Copy + 'static;
    type Note: 'static;
    type Bucket: 'static;

    fn source(&self) -> Self::Address;
    fn destination(&self) -> Self::Address;
    /// The protocol of what follows, or why the stack must have the packet.
    fn protocol(&self) -> Result<u8, Reason>;
    /// The packet's length from this header on, as the header has it.
    fn length(&self) -> usize;
    /// TTL or hop limit.
    fn ttl(&self) -> u8;
    /// Type of service or traffic class.
    fn class(&self) -> u8;
    /// Whether the addresses of a header are source and destination that lie one after the other.
    ///
    /// # Safety
    ///
    /// All can be read, those by words of eight bytes.
    unsafe fn is_between(header: *const Self, addresses: *const Self::Address) -> bool;
    /// Takes one off [`ttl`](Self::ttl), which is not 0, as a router does.
    fn decrement_ttl(&mut self, ctx: &TcContext);
    /// Says in a question to the kernel's routes what they go by: family, addresses, and class of traffic.
    fn ask(&self, question: &mut bpf_fib_lookup);

    /// The key and the direction of a packet; ports are in host byte order.
    fn key(source: (Self::Address, u16), destination: (Self::Address, u16), protocol: u8) -> (Self::Key, u32);
    /// The hash of a packet's flow; ports are in host byte order.
    fn hash(source: (Self::Address, u16), destination: (Self::Address, u16), protocol: u8) -> u64;
    /// Of the two shortcuts of a bucket, that for packets from here to there; for the others it is the other.
    fn side(source: (Self::Address, u16), destination: (Self::Address, u16)) -> u32;
    /// With TCP's sequence number, see [`sequence`](crate::parse::sequence).
    fn note(packet: &Packet<Self>, sequence: u32) -> Self::Note;
    /// Whether a note is that of a packet that now leaves, and differs from it by one of TTL or hop limit alone.
    fn is_note(note: &Self::Note, leaving: &Packet<Self>, sequence: u32) -> bool;
    fn flows() -> &'static Flows<Self::Key>;
    fn buckets() -> &'static Buckets<Self::Bucket>;
    fn notes() -> &'static Notes<Self::Note>;

    /// Whether the stack may route a packet from one of these addresses to the other, to another host than its sender.
    fn is_routable(source: Self::Address, destination: Self::Address) -> bool;
    /// Whether the pod of an endpoint may send from one of these addresses to the other.
    fn may_send(endpoint: &Endpoint, source: Self::Address, destination: Self::Address) -> bool;
}
