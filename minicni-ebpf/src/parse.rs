//! From a frame to a flow key, by direct packet access.

use core::{hint::cold_path, mem::offset_of};

use aya_ebpf::{helpers::bpf_skb_pull_data, programs::TcContext};
use minicni_common::Reason;

use crate::header::Header;

/// `PACKET_HOST` of linux/if_packet.h: the frame's destination is this interface's own MAC address.
const PACKET_HOST: u32 = 0;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;

/// A VLAN tag follows: IEEE 802.1Q and 802.1ad.
pub const VLAN: u16 = 0x8100;
pub const SERVICE_VLAN: u16 = 0x88a8;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;

/// Ethernet and IP headers and the first eight bytes behind them: all of UDP's header, and TCP's ports.
///
/// Fields are in network byte order. Packed to two bytes, because that is all that the frame's start promises of the
/// addresses' alignment; and in pieces of two bytes, where single ones would each cost a load and a store.
#[repr(C, packed(2))]
pub struct Frame<H> {
    pub ethernet: [u16; 6],
    ether_type: u16,
    pub ip: H,
    source_port: u16,
    destination_port: u16,
    rest: u32,
}

const UDP_LENGTH: usize = 8;
const TCP_LENGTH: usize = 20;
/// Where TCP's header has its flags.
const TCP_FLAGS: usize = 13;

impl<H> Frame<H> {
    /// Where the IP header begins.
    const IP: usize = offset_of!(Self, ip);
    /// Where the TCP or UDP header begins.
    const TRANSPORT: usize = offset_of!(Self, source_port);
}

/// A plain TCP or UDP packet.
pub struct Packet<H: Header> {
    pub key: H::Key,
    /// 0 or 1, see [`FlowKey4`](minicni_common::FlowKey4).
    pub direction: u32,
    pub tcp_flags: u8,
    pub ttl: u8,
    pub class: u8,
    pub tcp: bool,
}

/// The ports that conntrack's helpers are for, of TCP and of UDP: FTP, H.323, PPTP, SIP, SANE, IRC; NetBIOS, SNMP, TFTP, Amanda.
/// <https://elixir.bootlin.com/linux/v6.12/source/net/netfilter>, `nf_conntrack_*.c`
const HELPED_TCP: [u16; 6] = [21, 1720, 1723, 5060, 6566, 6667];
const HELPED_UDP: [u16; 6] = [69, 137, 161, 1719, 5060, 10080];

impl<H: Header> Packet<H> {
    /// Source and destination.
    #[inline(always)]
    pub fn addresses(&self) -> (H::Address, H::Address) {
        // Not kept beside the key: the fast path has no use for them, and no register.
        let (first, second) = H::ends(&self.key);
        if self.direction == 0 { (first, second) } else { (second, first) }
    }

    /// Whether a rule may have conntrack read the packets (`ct helper`), to know of connections that they ask for. Nothing that
    /// is seen of a packet tells.
    #[inline(always)]
    pub fn may_be_read(&self) -> bool {
        let [first, second] = H::ports(&self.key);
        let ports = if self.tcp { HELPED_TCP } else { HELPED_UDP };
        ports.iter().any(|port| *port == first || *port == second)
    }

    /// Of source and destination, in host byte order.
    #[inline(always)]
    pub fn ports(&self) -> (u16, u16) {
        let [first, second] = H::ports(&self.key);
        if self.direction == 0 { (first, second) } else { (second, first) }
    }
}

/// An IP packet that the fast path does not take.
pub struct Other<H: Header> {
    pub reason: Reason,
    /// Source and destination, where there is a whole header.
    pub addresses: Option<(H::Address, H::Address)>,
}

/// What the Ethernet header says that follows, when there is a whole one.
#[inline(always)]
pub fn ether_type(ctx: &TcContext) -> Option<u16> {
    let frame = headers::<()>(ctx, Frame::<()>::IP)?;
    // SAFETY: `headers` found the Ethernet header inside the packet.
    Some(u16::from_be(unsafe { (*frame).ether_type }))
}

/// The source MAC address, when there is a whole Ethernet header.
#[inline(always)]
pub fn source_mac(ctx: &TcContext) -> Option<[u16; 3]> {
    let frame = headers::<()>(ctx, Frame::<()>::IP)?;
    // SAFETY: `headers` found the Ethernet header inside the packet.
    let [_, _, _, one, two, three] = unsafe { (*frame).ethernet };
    Some([one, two, three])
}

/// The packet's headers for reading and writing, when `length` bytes of it are there and contiguous.
#[inline(always)]
pub fn headers<H>(ctx: &TcContext, length: usize) -> Option<*mut Frame<H>> {
    let start = ctx.data();
    if start + length > ctx.data_end() { None } else { Some(start as *mut Frame<H>) }
}

/// Makes `length` bytes contiguous, then as [`headers`].
#[inline(always)]
fn pulled_headers<H>(ctx: &TcContext, length: usize) -> Option<*mut Frame<H>> {
    if let Some(headers) = headers(ctx, length) {
        return Some(headers);
    }
    cold_path();
    // SAFETY: the context is the one the kernel gave us. The helper invalidates packet pointers; none is live.
    if unsafe { bpf_skb_pull_data(ctx.skb.skb, length as u32) } != 0 {
        return None;
    }
    headers(ctx, length)
}

/// The length of the frame as one segment on the wire; for a GSO packet that of its segments, at least.
#[inline(always)]
pub fn wire_length<H: Header>(ctx: &TcContext, packet: &Packet<H>) -> u32 {
    // SAFETY: reads of the context, which the verifier checks.
    let (length, gso_size) = unsafe { ((*ctx.skb.skb).len, (*ctx.skb.skb).gso_size) };
    if gso_size == 0 {
        return length;
    }
    gso_size + (Frame::<H>::TRANSPORT + if packet.tcp { TCP_LENGTH } else { UDP_LENGTH }) as u32
}

/// TCP's sequence number, in network byte order; 0 of UDP. Not kept in a [`Packet`], because the fast path has no use for it.
#[inline(always)]
pub fn sequence<H: Header>(ctx: &TcContext, packet: &Packet<H>) -> u32 {
    if !packet.tcp {
        return 0;
    }
    // SAFETY: `headers` found the whole struct inside the packet.
    headers::<H>(ctx, size_of::<Frame<H>>()).map_or(0, |frame| unsafe { (*frame).rest })
}

/// Whether a frame that enters the host is addressed to it and bears no VLAN tag.
#[inline(always)]
pub fn is_for_host(ctx: &TcContext) -> bool {
    // SAFETY: reads of the context, which the verifier checks.
    unsafe { (*ctx.skb.skb).pkt_type == PACKET_HOST && (*ctx.skb.skb).vlan_present == 0 }
}

/// Parses a frame whose Ethernet header announces an `H`; the other side of the result says why the stack must have it.
#[inline(always)]
pub fn parse<H: Header>(ctx: &TcContext) -> Result<Packet<H>, Other<H>> {
    let Some(frame) = pulled_headers::<H>(ctx, size_of::<Frame<H>>()) else {
        cold_path();
        return Err(short(ctx));
    };
    // SAFETY: `pulled_headers` found the whole struct inside the packet.
    let frame = unsafe { &*frame };
    let ip = frame.ip;
    let (source, destination) = (ip.source(), ip.destination());
    let other = |reason| {
        cold_path();
        Other { reason, addresses: Some((source, destination)) }
    };
    let protocol = transport(&ip).map_err(other)?;
    let tcp = protocol == IPPROTO_TCP;
    let header = if tcp { TCP_LENGTH } else { UDP_LENGTH };
    let length = ip.length();
    if length < size_of::<H>() + header || Frame::<H>::IP + length > ctx.len() as usize {
        return Err(other(Reason::Malformed));
    }
    let (ttl, class) = (ip.ttl(), ip.class());
    let (source_port, destination_port) = (u16::from_be(frame.source_port), u16::from_be(frame.destination_port));
    let (key, direction) = H::key((source, source_port), (destination, destination_port), protocol);
    let tcp_flags = if tcp {
        let Some(frame) = pulled_headers::<H>(ctx, Frame::<H>::TRANSPORT + TCP_LENGTH) else {
            return Err(other(Reason::Malformed));
        };
        // SAFETY: `pulled_headers` found TCP's header inside the packet.
        unsafe { *frame.cast::<u8>().add(Frame::<H>::TRANSPORT + TCP_FLAGS) }
    } else {
        0
    };
    Ok(Packet { key, direction, tcp_flags, ttl, class, tcp })
}

/// TCP or UDP, or why it is neither.
#[inline(always)]
fn transport<H: Header>(ip: &H) -> Result<u8, Reason> {
    match ip.protocol()? {
        protocol @ (IPPROTO_TCP | IPPROTO_UDP) => Ok(protocol),
        _ => Err(Reason::Protocol),
    }
}

/// What to say of a frame too short for UDP: it may be short and honest, and its source counts.
#[inline(always)]
fn short<H: Header>(ctx: &TcContext) -> Other<H> {
    let Some(frame) = pulled_headers::<H>(ctx, Frame::<H>::TRANSPORT) else {
        return Other { reason: Reason::Malformed, addresses: None };
    };
    // SAFETY: `pulled_headers` found the Ethernet and IP headers inside the packet.
    let ip = unsafe { (&raw const (*frame).ip).read() };
    let reason = transport(&ip).err().unwrap_or(Reason::Malformed);
    Other { reason, addresses: Some((ip.source(), ip.destination())) }
}
