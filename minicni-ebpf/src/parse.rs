//! From a frame to a flow key, by direct packet access.

use core::mem::offset_of;

use aya_ebpf::{helpers::bpf_skb_pull_data, programs::TcContext};
use minicni_common::{FlowKey4, Reason};

/// `PACKET_HOST` of linux/if_packet.h: the frame's destination is this interface's own MAC address.
const PACKET_HOST: u32 = 0;
const ETH_P_IP: u16 = 0x0800;
/// IPv4, five words of header, so no options.
const VERSION_AND_LENGTH: u8 = 0x45;
/// The offset, "more fragments" and the reserved bit; "don't fragment" is not among them.
const FRAGMENT_BITS: u16 = 0xbfff;
pub const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;

/// Ethernet and IPv4 headers and the first eight bytes behind them: all of UDP's header, and TCP's ports.
///
/// Fields are in network byte order. Packed to two bytes, because that is all that the frame's start promises of the
/// addresses' alignment.
#[repr(C, packed(2))]
pub struct Headers {
    pub ethernet: [u8; 12],
    pub ether_type: u16,
    pub version_and_length: u8,
    pub tos: u8,
    pub total_length: u16,
    pub identification: u16,
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub checksum: u16,
    pub source: u32,
    pub destination: u32,
    pub source_port: u16,
    pub destination_port: u16,
    pub rest: u32,
}

const ETHERNET_LENGTH: usize = offset_of!(Headers, version_and_length);
const IP_LENGTH: usize = offset_of!(Headers, source_port) - ETHERNET_LENGTH;
const TRANSPORT_OFFSET: usize = ETHERNET_LENGTH + IP_LENGTH;
const UDP_LENGTH: usize = 8;
const TCP_LENGTH: usize = 20;
const TCP_FLAGS_OFFSET: usize = TRANSPORT_OFFSET + 13;

/// A plain TCP or UDP packet.
pub struct Packet {
    pub key: FlowKey4,
    /// 0 or 1, see [`FlowKey4`].
    pub direction: usize,
    /// Network byte order.
    pub source: u32,
    /// Network byte order.
    pub destination: u32,
    pub tcp_flags: u8,
    pub ttl: u8,
    pub tcp: bool,
}

/// A packet that the fast path does not take.
pub struct Other {
    pub reason: Reason,
    /// The IPv4 source address in network byte order, where there is one.
    pub source: Option<u32>,
    /// The IPv4 destination address in network byte order, where there is one.
    pub destination: u32,
}

impl Other {
    #[inline(always)]
    fn without_addresses(reason: Reason) -> Self {
        Self { reason, source: None, destination: 0 }
    }
}

/// The packet's headers for reading and writing, when `length` bytes of it are there and contiguous.
#[inline(always)]
pub fn headers(ctx: &TcContext, length: usize) -> Option<*mut Headers> {
    let start = ctx.data();
    if start + length > ctx.data_end() { None } else { Some(start as *mut Headers) }
}

/// Makes `length` bytes contiguous, then as [`headers`].
#[inline(always)]
fn pulled_headers(ctx: &TcContext, length: usize) -> Option<*mut Headers> {
    if let Some(headers) = headers(ctx, length) {
        return Some(headers);
    }
    // SAFETY: the context is the one the kernel gave us. The helper invalidates packet pointers; none is live.
    if unsafe { bpf_skb_pull_data(ctx.skb.skb, length as u32) } != 0 {
        return None;
    }
    headers(ctx, length)
}

/// The length of the frame as one segment on the wire; for a GSO packet that of its segments.
#[inline(always)]
pub fn wire_length(ctx: &TcContext) -> u32 {
    // SAFETY: reads of the context, which the verifier checks.
    let (length, gso_size) = unsafe { ((*ctx.skb.skb).len, (*ctx.skb.skb).gso_size) };
    if gso_size == 0 { length } else { gso_size + (TRANSPORT_OFFSET + TCP_LENGTH) as u32 }
}

/// Whether a frame that enters the host is addressed to it and bears no VLAN tag.
#[inline(always)]
pub fn is_for_host(ctx: &TcContext) -> bool {
    // SAFETY: reads of the context, which the verifier checks.
    unsafe { (*ctx.skb.skb).pkt_type == PACKET_HOST && (*ctx.skb.skb).vlan_present == 0 }
}

/// Parses a frame; the other side of the result says why the stack must have it.
#[inline(always)]
pub fn parse(ctx: &TcContext) -> Result<Packet, Other> {
    let Some(h) = pulled_headers(ctx, TRANSPORT_OFFSET + UDP_LENGTH) else {
        return Err(short(ctx));
    };
    // SAFETY: `pulled_headers` found the whole struct inside the packet.
    let h = unsafe { &*h };
    if h.ether_type != ETH_P_IP.to_be() {
        return Err(Other::without_addresses(Reason::NotIpv4));
    }
    let (source, destination) = (h.source, h.destination);
    let other = |reason| Other { reason, source: Some(source), destination };
    if h.version_and_length != VERSION_AND_LENGTH {
        return Err(other(if h.version_and_length >> 4 == 4 && h.version_and_length & 0xf > 5 {
            Reason::Options
        } else {
            Reason::Malformed
        }));
    }
    if h.fragment & FRAGMENT_BITS.to_be() != 0 {
        return Err(other(Reason::Fragment));
    }
    let protocol = h.protocol;
    let tcp = protocol == IPPROTO_TCP;
    if !tcp && protocol != IPPROTO_UDP {
        return Err(other(Reason::Protocol));
    }
    let transport = if tcp { TCP_LENGTH } else { UDP_LENGTH };
    let total = usize::from(u16::from_be(h.total_length));
    if total < IP_LENGTH + transport || total + ETHERNET_LENGTH > ctx.len() as usize {
        return Err(other(Reason::Malformed));
    }
    let ttl = h.ttl;
    let (source_port, destination_port) = (u16::from_be(h.source_port), u16::from_be(h.destination_port));
    let swapped = end(source, source_port) > end(destination, destination_port);
    let (addresses, ports) = if swapped {
        ([destination, source], [destination_port, source_port])
    } else {
        ([source, destination], [source_port, destination_port])
    };
    let key = FlowKey4 {
        addresses: [addresses[0].to_ne_bytes(), addresses[1].to_ne_bytes()],
        ports,
        protocol: u32::from(protocol),
    };
    let tcp_flags = if tcp {
        let Some(h) = pulled_headers(ctx, TRANSPORT_OFFSET + TCP_LENGTH) else {
            return Err(other(Reason::Malformed));
        };
        // SAFETY: `pulled_headers` found TCP's header inside the packet.
        unsafe { *h.cast::<u8>().add(TCP_FLAGS_OFFSET) }
    } else {
        0
    };
    Ok(Packet { key, direction: usize::from(swapped), source, destination, tcp_flags, ttl, tcp })
}

/// The order of the two ends in a key.
#[inline(always)]
fn end(address: u32, port: u16) -> u64 {
    u64::from(address) << 16 | u64::from(port)
}

/// What to say of a frame too short for UDP: it may be short and honest (ARP, ICMP), and its source counts.
#[inline(always)]
fn short(ctx: &TcContext) -> Other {
    let Some(h) = pulled_headers(ctx, TRANSPORT_OFFSET) else {
        let Some(h) = headers(ctx, ETHERNET_LENGTH) else {
            return Other::without_addresses(Reason::Malformed);
        };
        // SAFETY: `headers` found the Ethernet header inside the packet.
        let ether_type = unsafe { (&raw const (*h).ether_type).read() };
        return Other::without_addresses(if ether_type == ETH_P_IP.to_be() {
            Reason::Malformed
        } else {
            Reason::NotIpv4
        });
    };
    // SAFETY: `pulled_headers` found the Ethernet and IP headers inside the packet.
    let (ether_type, source, destination) = unsafe { ((*h).ether_type, (*h).source, (*h).destination) };
    if ether_type != ETH_P_IP.to_be() {
        return Other::without_addresses(Reason::NotIpv4);
    }
    Other { reason: Reason::Malformed, source: Some(source), destination }
}
