use core::hint::cold_path;

use aya_ebpf::{bindings::bpf_fib_lookup, programs::TcContext};
use minicni_common::{Bucket4, Endpoint, FlowKey4, Note4, Reason};

use crate::{
    header::{Buckets, Flows, Header, Notes},
    maps,
    parse::Packet,
};

/// Version 4 and five words of header, so no options.
const VERSION_AND_LENGTH: u8 = 0x45;
/// The offset, "more fragments" and the reserved bit; "don't fragment" is not among them.
const FRAGMENT_BITS: u16 = 0xbfff;
const AF_INET: u8 = 2;
/// 255.255.255.255, the destination of a DHCP client that has no address yet.
const BROADCAST: u32 = u32::MAX;

/// Fields are in network byte order.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
pub struct Ipv4 {
    version_and_length: u8,
    tos: u8,
    total_length: u16,
    identification: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

impl Header for Ipv4 {
    const ETHER_TYPE: u16 = 0x0800;
    type Address = u32;
    type Key = FlowKey4;
    type Note = Note4;
    type Bucket = Bucket4;

    #[inline(always)]
    fn source(&self) -> u32 {
        self.source
    }

    #[inline(always)]
    fn destination(&self) -> u32 {
        self.destination
    }

    #[inline(always)]
    fn protocol(&self) -> Result<u8, Reason> {
        if self.version_and_length != VERSION_AND_LENGTH {
            let options = self.version_and_length >> 4 == 4 && self.version_and_length & 0xf > 5;
            return Err(if options { Reason::Options } else { Reason::Malformed });
        }
        if self.fragment & FRAGMENT_BITS.to_be() != 0 {
            return Err(Reason::Fragment);
        }
        Ok(self.protocol)
    }

    #[inline(always)]
    fn length(&self) -> usize {
        usize::from(u16::from_be(self.total_length))
    }

    #[inline(always)]
    fn ttl(&self) -> u8 {
        self.ttl
    }

    #[inline(always)]
    fn class(&self) -> u8 {
        self.tos
    }

    #[inline(always)]
    unsafe fn is_between(header: *const Self, addresses: *const u32) -> bool {
        // SAFETY: the caller's, and the fields lie one after the other.
        unsafe {
            let own = (&raw const (*header).source).cast::<u64>().read_unaligned();
            own == addresses.cast::<u64>().read_volatile()
        }
    }

    #[inline(always)]
    fn decrement_ttl(&mut self, _: &TcContext) {
        self.ttl -= 1;
        // As ip_decrease_ttl() does: https://elixir.bootlin.com/linux/v6.12/source/include/net/ip.h#L470
        let sum = u32::from(self.checksum) + u32::from(0x0100_u16.to_be());
        self.checksum = (sum + u32::from(sum >= 0xffff)) as u16;
    }

    #[inline(always)]
    fn ask(&self, question: &mut bpf_fib_lookup) {
        question.family = AF_INET;
        question.__bindgen_anon_2.tos = self.tos;
        question.__bindgen_anon_3.ipv4_src = self.source;
        question.__bindgen_anon_4.ipv4_dst = self.destination;
    }

    #[inline(always)]
    fn key(source: (u32, u16), destination: (u32, u16), protocol: u8) -> (FlowKey4, u32) {
        FlowKey4::new(source, destination, protocol)
    }

    #[inline(always)]
    fn hash(source: (u32, u16), destination: (u32, u16), protocol: u8) -> u64 {
        FlowKey4::hash(source, destination, protocol)
    }

    #[inline(always)]
    fn side(source: (u32, u16), destination: (u32, u16)) -> u32 {
        FlowKey4::side(source, destination)
    }

    #[inline(always)]
    fn note(packet: &Packet<Self>, sequence: u32) -> Note4 {
        let (key, direction) = packet.glance.key();
        let Packet { ttl, class, .. } = *packet;
        Note4 { key, direction: direction as u16, ttl, class, sequence }
    }

    #[inline(always)]
    fn is_note(note: &Note4, leaving: &Packet<Self>, sequence: u32) -> bool {
        // By words, because a comparison of bytes is one of single bytes.
        let words = |key: &FlowKey4| (key.addresses.map(u32::from_ne_bytes), key.ports, key.protocol);
        let (key, direction) = leaving.glance.key();
        words(&note.key) == words(&key)
            && note.direction == direction as u16
            && note.ttl == leaving.ttl.wrapping_add(1)
            && note.class == leaving.class
            && note.sequence == sequence
    }

    #[inline(always)]
    fn flows() -> &'static Flows<FlowKey4> {
        &maps::FLOWS4
    }

    #[inline(always)]
    fn buckets() -> &'static Buckets<Bucket4> {
        &maps::BUCKETS4
    }

    #[inline(always)]
    fn notes() -> &'static Notes<Note4> {
        &maps::NOTES4
    }

    #[inline(always)]
    fn is_routable(source: u32, destination: u32) -> bool {
        let first = destination.to_ne_bytes()[0];
        first < 224 && first != 127 && destination != source
    }

    #[inline(always)]
    fn may_send(endpoint: &Endpoint, source: u32, destination: u32) -> bool {
        if source != u32::from_ne_bytes(endpoint.ipv4) || source == 0 {
            cold_path();
            // 0.0.0.0 in the map says that the pod has no address, not that this is its own.
            return source == 0 && destination == BROADCAST;
        }
        true
    }
}
