//! From a frame to a flow key, by direct packet access.

use core::{hint::cold_path, mem::offset_of};

use aya_ebpf::{helpers::bpf_skb_pull_data, programs::TcContext};
use minicni_common::Reason;

use crate::header::Header;

/// `PACKET_HOST` of linux/if_packet.h: the frame's destination is this interface's own MAC address.
const PACKET_HOST: u32 = 0;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;

/// Frames are padded to as many bytes: linux/if_ether.h.
pub const ETH_ZLEN: u32 = 60;

/// A VLAN tag follows: IEEE 802.1Q and 802.1ad.
pub const VLAN: u16 = 0x8100;
pub const SERVICE_VLAN: u16 = 0x88a8;

const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
const RST: u8 = 0x04;

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

    /// Source and destination port, as they lie in the packet.
    ///
    /// # Safety
    ///
    /// The frame is inside the packet.
    #[inline(always)]
    pub unsafe fn ports(frame: *const Self) -> u32 {
        // SAFETY: the fields lie one after the other.
        unsafe { (&raw const (*frame).source_port).cast::<u32>().read_unaligned() }
    }

    /// Writes the Ethernet addresses, which are the first twelve of sixteen bytes, in as few words as there are.
    ///
    /// # Safety
    ///
    /// The Ethernet header is inside the packet.
    #[inline(always)]
    pub unsafe fn set_ethernet(frame: *mut Self, addresses: [u64; 2]) {
        // SAFETY: both are eight bytes in which any bit pattern is valid.
        let [rest, _]: [u32; 2] = unsafe { core::mem::transmute(addresses[1]) };
        // SAFETY: these are the twelve bytes of the field.
        unsafe {
            let start = (&raw mut (*frame).ethernet).cast::<u64>();
            start.write_unaligned(addresses[0]);
            start.add(1).cast::<u32>().write_unaligned(rest);
        }
    }
}

/// What a frame says at first sight to be: a packet of TCP or UDP. Its lengths may still be lies.
#[derive(Clone, Copy)]
pub struct Glance<H: Header> {
    pub source: H::Address,
    pub destination: H::Address,
    /// In network byte order, as the one below.
    source_port: u16,
    destination_port: u16,
    protocol: u8,
    /// 0 of UDP.
    pub tcp_flags: u8,
}

/// A plain TCP or UDP packet.
pub struct Packet<H: Header> {
    pub glance: Glance<H>,
    pub ttl: u8,
    pub class: u8,
}

/// The ports that conntrack's helpers are for, of TCP and of UDP: FTP, H.323, PPTP, SIP, SANE, IRC; NetBIOS, SNMP, TFTP, Amanda.
/// <https://elixir.bootlin.com/linux/v6.12/source/net/netfilter>, `nf_conntrack_*.c`
const HELPED_TCP: [u16; 6] = [21, 1720, 1723, 5060, 6566, 6667];
const HELPED_UDP: [u16; 6] = [69, 137, 161, 1719, 5060, 10080];

impl<H: Header> Glance<H> {
    /// The key of its flow, and its direction, 0 or 1: see [`FlowKey4`](minicni_common::FlowKey4).
    #[inline(always)]
    pub fn key(&self) -> (H::Key, u32) {
        let (source_port, destination_port) = self.ports();
        H::key((self.source, source_port), (self.destination, destination_port), self.protocol)
    }

    /// The hash of its flow, cheaper to have than the key.
    #[inline(always)]
    pub fn hash(&self) -> u64 {
        let (source_port, destination_port) = self.ports();
        H::hash((self.source, source_port), (self.destination, destination_port), self.protocol)
    }

    /// Of the two shortcuts that its flow has, that of its direction.
    #[inline(always)]
    pub fn side(&self) -> u32 {
        let (source_port, destination_port) = self.ports();
        H::side((self.source, source_port), (self.destination, destination_port))
    }

    /// Its ports as one word, as they lie in memory.
    #[inline(always)]
    pub fn port_word(&self) -> u32 {
        u32::from(self.destination_port) << 16 | u32::from(self.source_port)
    }

    /// TCP or UDP, as IP has it.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.protocol == IPPROTO_TCP
    }

    /// Whether it begins or ends a connection.
    #[inline(always)]
    pub fn is_control(&self) -> bool {
        self.tcp_flags & (SYN | FIN | RST) != 0
    }

    /// Whether a rule may have conntrack read the packets (`ct helper`), to know of connections that they ask for. Nothing that
    /// is seen of a packet tells.
    #[inline(always)]
    pub fn may_be_read(&self) -> bool {
        let (source, destination) = self.ports();
        let ports = if self.is_tcp() { HELPED_TCP } else { HELPED_UDP };
        ports.iter().any(|port| *port == source || *port == destination)
    }

    /// Of source and destination, in host byte order.
    #[inline(always)]
    pub fn ports(&self) -> (u16, u16) {
        (u16::from_be(self.source_port), u16::from_be(self.destination_port))
    }

    /// The same, of a reason for which the fast path does not take it.
    #[inline(always)]
    pub fn other(&self, reason: Reason) -> Other<H> {
        Other { reason, whole: true, source: self.source, destination: self.destination }
    }
}

/// An IP packet that the fast path does not take.
pub struct Other<H: Header> {
    pub reason: Reason,
    /// Whether there is a whole header, and with it source and destination. Not an `Option`, of which the compiler may keep
    /// what nobody has set on the stack: the verifier refuses the reading of it.
    pub whole: bool,
    pub source: H::Address,
    pub destination: H::Address,
}

/// What the Ethernet header says that follows, when there is a whole one.
#[inline(always)]
pub fn ether_type(ctx: &TcContext) -> Option<u16> {
    let frame = headers::<()>(ctx, Frame::<()>::IP)?;
    // SAFETY: `headers` found the Ethernet header inside the packet.
    Some(u16::from_be(unsafe { (*frame).ether_type }))
}

/// The source MAC address as it lies in memory, its first four bytes and its last two, when there is a whole Ethernet header.
#[inline(always)]
pub fn source_mac(ctx: &TcContext) -> Option<(u32, u16)> {
    let frame = headers::<()>(ctx, Frame::<()>::IP)?;
    // SAFETY: `headers` found the Ethernet header inside the packet, whose second address this is.
    unsafe {
        let mac = (&raw const (*frame).ethernet).cast::<u16>().add(3);
        Some((mac.cast::<u32>().read_unaligned(), mac.add(2).read()))
    }
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
pub fn wire_length<H: Header>(ctx: &TcContext, glance: &Glance<H>) -> u32 {
    // SAFETY: reads of the context, which the verifier checks.
    let (length, gso_size) = unsafe { ((*ctx.skb.skb).len, (*ctx.skb.skb).gso_size) };
    if gso_size == 0 {
        return length;
    }
    gso_size + (Frame::<H>::TRANSPORT + if glance.is_tcp() { TCP_LENGTH } else { UDP_LENGTH }) as u32
}

/// Whether the frame is longer on the wire than so many bytes, as one segment: [`wire_length`]. No segment is longer than all of it.
#[inline(always)]
pub fn is_longer<H: Header>(ctx: &TcContext, glance: &Glance<H>, limit: u32) -> bool {
    ctx.len() > limit && wire_length(ctx, glance) > limit
}

/// TCP's sequence number, in network byte order; 0 of UDP. Not kept in a [`Packet`], because the fast path has no use for it.
#[inline(always)]
pub fn sequence<H: Header>(ctx: &TcContext, packet: &Packet<H>) -> u32 {
    if !packet.glance.is_tcp() {
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

/// Looks at a frame whose Ethernet header announces an `H`; the other side of the result says why the stack must have it.
#[inline(always)]
pub fn glance<H: Header>(ctx: &TcContext) -> Result<Glance<H>, Other<H>> {
    let Some(frame) = pulled_headers::<H>(ctx, size_of::<Frame<H>>()) else {
        cold_path();
        return Err(short(ctx));
    };
    // SAFETY: `pulled_headers` found the whole struct inside the packet.
    let frame = unsafe { &*frame };
    let (mut glance, ip) = (tuple(frame), frame.ip);
    glance.protocol = transport(&ip).map_err(|reason| {
        cold_path();
        glance.other(reason)
    })?;
    if glance.is_tcp() {
        let Some(frame) = pulled_headers::<H>(ctx, Frame::<H>::TRANSPORT + TCP_LENGTH) else {
            cold_path();
            return Err(glance.other(Reason::Malformed));
        };
        // SAFETY: `pulled_headers` found TCP's header inside the packet.
        glance.tcp_flags = unsafe { tcp_flags(frame) };
    }
    Ok(glance)
}

/// As [`glance`], but only of what lies where it can be read at once, as most packets do. `None` does not say why.
#[inline(always)]
pub fn quick_glance<H: Header>(ctx: &TcContext) -> Option<Glance<H>> {
    let mut glance = quick_tuple::<H>(ctx)?;
    if glance.is_tcp() {
        let frame = headers::<H>(ctx, Frame::<H>::TRANSPORT + TCP_LENGTH)?;
        // SAFETY: `headers` found TCP's header inside the packet.
        glance.tcp_flags = unsafe { tcp_flags(frame) };
    }
    Some(glance)
}

/// As [`quick_glance`], without TCP's flags.
#[inline(always)]
pub fn quick_tuple<H: Header>(ctx: &TcContext) -> Option<Glance<H>> {
    let frame = headers::<H>(ctx, size_of::<Frame<H>>())?;
    // SAFETY: `headers` found the whole struct inside the packet.
    let frame = unsafe { &*frame };
    let ip = frame.ip;
    Some(Glance { protocol: transport(&ip).ok()?, ..tuple(frame) })
}

/// What flow a frame is of, once its protocol is known.
#[inline(always)]
fn tuple<H: Header>(frame: &Frame<H>) -> Glance<H> {
    let Frame { ip, source_port, destination_port, .. } = *frame;
    let (source, destination) = (ip.source(), ip.destination());
    Glance { source, destination, source_port, destination_port, protocol: 0, tcp_flags: 0 }
}

/// # Safety
///
/// TCP's header is inside the packet.
#[inline(always)]
unsafe fn tcp_flags<H>(frame: *const Frame<H>) -> u8 {
    // SAFETY: the caller's.
    unsafe { *frame.cast::<u8>().add(Frame::<H>::TRANSPORT + TCP_FLAGS) }
}

/// Looks closely at what [`glance`] found; `None` where the lengths of its headers are lies.
#[inline(always)]
pub fn examine<H: Header>(ctx: &TcContext, glance: Glance<H>) -> Option<Packet<H>> {
    let frame = headers::<H>(ctx, size_of::<Frame<H>>())?;
    // SAFETY: `headers` found the whole struct inside the packet.
    let ip = unsafe { (*frame).ip };
    if !fits(ctx, &ip, glance.is_tcp()) {
        cold_path();
        return None;
    }
    Some(Packet { glance, ttl: ip.ttl(), class: ip.class() })
}

/// Whether a packet is as long as its header says, and long enough for TCP's or UDP's.
#[inline(always)]
pub fn fits<H: Header>(ctx: &TcContext, ip: &H, is_tcp: bool) -> bool {
    let header = if is_tcp { TCP_LENGTH } else { UDP_LENGTH };
    let length = ip.length();
    length >= size_of::<H>() + header && Frame::<H>::IP + length <= ctx.len() as usize
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
        let (source, destination) = Default::default();
        return Other { reason: Reason::Malformed, whole: false, source, destination };
    };
    // SAFETY: `pulled_headers` found the Ethernet and IP headers inside the packet.
    let ip = unsafe { (&raw const (*frame).ip).read() };
    let reason = transport(&ip).err().unwrap_or(Reason::Malformed);
    Other { reason, whole: true, source: ip.source(), destination: ip.destination() }
}
