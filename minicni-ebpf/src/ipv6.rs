use aya_ebpf::{bindings::bpf_fib_lookup, helpers::bpf_csum_update, programs::TcContext};
use minicni_common::{Bucket6, Endpoint, FlowKey6, Note6, Reason};

use crate::{
    header::{Buckets, Flows, Header, Notes},
    maps,
    parse::Packet,
};

const FRAGMENT: u8 = 44;
const AF_INET6: u8 = 10;
/// The loopback address, `::1`.
const LOOPBACK: u128 = 1_u128.to_be();
/// The unspecified address, `::`.
const UNSPECIFIED: u128 = 0;

/// Fields are in network byte order.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct Ipv6 {
    version_and_class: u8,
    class_and_flow: [u8; 3],
    payload_length: u16,
    next_header: u8,
    hop_limit: u8,
    source: u128,
    destination: u128,
}

impl Header for Ipv6 {
    const ETHER_TYPE: u16 = 0x86dd;
    type Address = u128;
    type Key = FlowKey6;
    type Note = Note6;
    type Bucket = Bucket6;

    #[inline(always)]
    fn source(&self) -> u128 {
        self.source
    }

    #[inline(always)]
    fn destination(&self) -> u128 {
        self.destination
    }

    #[inline(always)]
    fn protocol(&self) -> Result<u8, Reason> {
        if self.version_and_class >> 4 != 6 {
            return Err(Reason::Malformed);
        }
        match self.next_header {
            FRAGMENT => Err(Reason::Fragment),
            // Hop-by-hop, routing, authentication, destination options, mobility, HIP, shim6; what is behind ESP is
            // no header to us: https://www.iana.org/assignments/ipv6-parameters
            0 | 43 | 51 | 60 | 135 | 139 | 140 => Err(Reason::Options),
            protocol => Ok(protocol),
        }
    }

    /// A payload length of 0 is that of a jumbogram, which the caller finds too short.
    #[inline(always)]
    fn length(&self) -> usize {
        size_of::<Self>() + usize::from(u16::from_be(self.payload_length))
    }

    #[inline(always)]
    fn ttl(&self) -> u8 {
        self.hop_limit
    }

    #[inline(always)]
    fn class(&self) -> u8 {
        self.version_and_class << 4 | self.class_and_flow[0] >> 4
    }

    #[inline(always)]
    unsafe fn is_between(header: *const Self, addresses: *const u128) -> bool {
        // SAFETY: the caller's, as below.
        let own = unsafe { (&raw const (*header).source).cast::<u64>() };
        let other = addresses.cast::<u64>();
        // SAFETY: the caller's, and the fields lie one after the other.
        (0..4).all(|index| unsafe { own.add(index).read_unaligned() == other.add(index).read_volatile() })
    }

    #[inline(always)]
    fn decrement_ttl(&mut self, ctx: &TcContext) {
        self.hop_limit -= 1;
        // No checksum of its own makes up for it in the sum over the packet that a network card may have left in
        // skb->csum (CHECKSUM_COMPLETE); ip6_forward() drops that sum, we put it right. Does nothing for other packets.
        let minus_one = !1_u16.to_be();
        // SAFETY: the context is the one the kernel gave us; the helper touches no packet pointer.
        unsafe { bpf_csum_update(ctx.skb.skb, u32::from(minus_one)) };
    }

    #[inline(always)]
    fn ask(&self, question: &mut bpf_fib_lookup) {
        let [one, two, three] = self.class_and_flow;
        question.family = AF_INET6;
        question.__bindgen_anon_2.flowinfo = u32::from_ne_bytes([self.version_and_class & 0x0f, one, two, three]);
        question.__bindgen_anon_3.ipv6_src = words(self.source);
        question.__bindgen_anon_4.ipv6_dst = words(self.destination);
    }

    #[inline(always)]
    fn key(source: (u128, u16), destination: (u128, u16), protocol: u8) -> (FlowKey6, u32) {
        FlowKey6::new(source, destination, protocol)
    }

    #[inline(always)]
    fn hash(source: (u128, u16), destination: (u128, u16), protocol: u8) -> u64 {
        FlowKey6::hash(source, destination, protocol)
    }

    #[inline(always)]
    fn side(source: (u128, u16), destination: (u128, u16)) -> u32 {
        FlowKey6::side(source, destination)
    }

    #[inline(always)]
    fn note(packet: &Packet<Self>, sequence: u32) -> Note6 {
        let (key, direction) = packet.glance.key();
        let Packet { ttl, class, .. } = *packet;
        Note6 { key, direction: direction as u16, ttl, class, sequence }
    }

    #[inline(always)]
    fn is_note(note: &Note6, leaving: &Packet<Self>, sequence: u32) -> bool {
        // By words, because a comparison of bytes becomes a call.
        let words = |key: &FlowKey6| (key.addresses.map(u128::from_ne_bytes), key.ports, key.protocol);
        let (key, direction) = leaving.glance.key();
        words(&note.key) == words(&key)
            && note.direction == direction as u16
            && note.ttl == leaving.ttl.wrapping_add(1)
            && note.class == leaving.class
            && note.sequence == sequence
    }

    #[inline(always)]
    fn flows() -> &'static Flows<FlowKey6> {
        &maps::FLOWS6
    }

    #[inline(always)]
    fn buckets() -> &'static Buckets<Bucket6> {
        &maps::BUCKETS6
    }

    #[inline(always)]
    fn notes() -> &'static Notes<Note6> {
        &maps::NOTES6
    }

    #[inline(always)]
    fn is_routable(source: u128, destination: u128) -> bool {
        let leaves_link = |address| {
            address != UNSPECIFIED && address != LOOPBACK && !is_link_local(address) && first(address) != 0xff
        };
        leaves_link(source) && leaves_link(destination) && source != destination
    }

    #[inline(always)]
    fn may_send(endpoint: &Endpoint, source: u128, destination: u128) -> bool {
        if source == UNSPECIFIED {
            // Duplicate address detection, multicast listener reports. `::` in the map says that the pod has no
            // address, not that this is its own.
            is_link_scoped(destination)
        } else if is_link_local(source) {
            // Neighbour discovery, DHCPv6.
            is_link_local(destination) || is_link_scoped(destination)
        } else {
            source == u128::from_ne_bytes(endpoint.ipv6)
        }
    }
}

#[inline(always)]
fn words(address: u128) -> [u32; 4] {
    // SAFETY: both are sixteen bytes in which any bit pattern is valid.
    unsafe { core::mem::transmute(address) }
}

#[inline(always)]
fn first(address: u128) -> u8 {
    address.to_ne_bytes()[0]
}

/// fe80::/10
#[inline(always)]
fn is_link_local(address: u128) -> bool {
    first(address) == 0xfe && address.to_ne_bytes()[1] & 0xc0 == 0x80
}

/// Multicast that no router forwards: ff02::/16, and the same with any flags, ff12::/16 say.
/// <https://www.rfc-editor.org/rfc/rfc4291#section-2.7>
#[inline(always)]
fn is_link_scoped(address: u128) -> bool {
    first(address) == 0xff && address.to_ne_bytes()[1] & 0x0f == 0x02
}
