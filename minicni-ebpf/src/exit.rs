//! How a proven direction leaves the host.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{bpf_fib_lookup, bpf_redir_neigh},
    helpers::{bpf_fib_lookup as ask_routes, bpf_redirect_neigh},
    programs::TcContext,
};
use minicni_common::EndpointKind;

use crate::{
    header::Header,
    maps,
    parse::{self, Frame, Packet},
};

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;

/// Aligned so that it can be cleared word by word; else that becomes a call, and a call counts for a stack frame.
#[repr(C, align(8))]
struct Question(bpf_fib_lookup);

/// Where the stack sent a packet, in the terms in which the fast path can send the next one there.
/// One shape for both kinds: of an enum the compiler touches fields that the kind at hand does not have, which the verifier of
/// Linux 6.1 refuses.
pub struct Exit {
    /// 0 of a pod; else the family of the neighbour's address.
    pub family: u16,
    /// 0 of a pod, whose veth pair takes both away; else what the stack had the packet bear.
    pub mark: u32,
    pub priority: u32,
    /// The Ethernet addresses of a frame for a pod, and a zero; or the neighbour's address.
    pub words: [u32; 4],
}

/// How a packet from `from` that the stack delivers at `to` leaves the host; `None` where the fast path must not follow:
/// at an interface that nobody entered, and from one uplink to another.
#[inline(always)]
pub fn find<H: Header>(ctx: &TcContext, packet: &Packet<H>, from: u32, to: u32) -> Option<Exit> {
    let frame = parse::headers::<H>(ctx, size_of::<Frame<H>>())?;
    // SAFETY: `headers` found the whole struct inside the packet.
    let (ethernet, ip) = unsafe { ((*frame).ethernet, (*frame).ip) };
    if is_pod(to)? {
        let [one, two, three, four, five, six] = ethernet;
        let words = [word(one, two), word(three, four), word(five, six), 0];
        return Some(Exit { family: 0, mark: 0, priority: 0, words });
    }
    if is_pod(from)? { neighbour(ctx, packet, &ip, ethernet, from, to) } else { None }
}

#[inline(always)]
fn is_pod(ifindex: u32) -> Option<bool> {
    Some(maps::endpoint(ifindex)?.kind == EndpointKind::Pod as u32)
}

/// The neighbour to which the stack sent a packet.
///
/// The packet itself has only the neighbour's MAC address, which may become another one at any time. Its IP address is asked
/// of the kernel's routes, with all that their rules may go by except a mark; the answer counts if it is what the stack did.
/// So a flow that was routed by its mark stays in the stack.
#[inline(always)]
fn neighbour<H: Header>(
    ctx: &TcContext,
    packet: &Packet<H>,
    ip: &H,
    ethernet: [u16; 6],
    from: u32,
    to: u32,
) -> Option<Exit> {
    let mut question = MaybeUninit::<Question>::uninit();
    // SAFETY: it is made of whole words, and zeros are valid for all of its fields.
    let Question(question) = unsafe {
        let words = question.as_mut_ptr().cast::<u64>();
        for index in 0..size_of::<Question>() / size_of::<u64>() {
            words.add(index).write_volatile(0);
        }
        question.assume_init_mut()
    };
    let (source_port, destination_port) = packet.glance.ports();
    question.l4_protocol = if packet.glance.is_tcp() { IPPROTO_TCP } else { IPPROTO_UDP };
    question.sport = source_port.to_be();
    question.dport = destination_port.to_be();
    question.ifindex = from;
    ip.ask(question);
    let size = size_of::<bpf_fib_lookup>() as i32;
    // SAFETY: context and question are as the helper wants them.
    if unsafe { ask_routes(ctx.skb.skb.cast(), &raw mut *question, size, 0) } != 0 || question.ifindex != to {
        return None;
    }
    let byte = |index: usize| question.dmac[index];
    let pair = |index: usize| u16::from_ne_bytes([byte(index), byte(index + 1)]);
    if ethernet[0] != pair(0) || ethernet[1] != pair(2) || ethernet[2] != pair(4) {
        return None;
    }
    // SAFETY: the whole field was set to zero, and an IPv4 address written to the beginning of it.
    let address = unsafe { question.__bindgen_anon_4.ipv6_dst };
    // SAFETY: reads of the context, which the verifier checks.
    let (mark, priority) = unsafe { ((*ctx.skb.skb).mark, (*ctx.skb.skb).priority) };
    Some(Exit { family: u16::from(question.family), mark, priority, words: address })
}

/// Two halfwords as they lie in memory.
#[inline(always)]
fn word(one: u16, other: u16) -> u32 {
    let ([a, b], [c, d]) = (one.to_ne_bytes(), other.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

/// Has the packet bear what the stack had others bear: the uplink's queueing discipline may go by it.
#[inline(always)]
pub fn mark(ctx: &TcContext, mark: u32, priority: u32) {
    // SAFETY: writes of the context that are open to classifiers: `tc_cls_act_is_valid_access` in net/core/filter.c.
    unsafe {
        (&raw mut (*ctx.skb.skb).mark).write_volatile(mark);
        (&raw mut (*ctx.skb.skb).priority).write_volatile(priority);
    }
}

const _: () = assert!(size_of::<bpf_redir_neigh>() == 5 * size_of::<u32>());

/// Sends the packet to a neighbour, with the MAC address that the kernel has for it now. Gives the verdict.
///
/// The neighbour is named. Otherwise the helper would ask the routes itself for every packet, and not as the stack does:
/// without the interface at which the packet entered, and taking the destination for a neighbour where the interface has no
/// route to it: `__bpf_redirect_neigh_v4` in <https://elixir.bootlin.com/linux/v6.12/source/net/core/filter.c>,
/// `ip_route_output_key_hash_rcu` in <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/route.c>.
#[inline(always)]
pub fn to_neighbour(out: u32, family: u16, address: [u32; 4]) -> i32 {
    let mut neighbour = MaybeUninit::<bpf_redir_neigh>::uninit();
    // One by one, because two at once are no aligned word of the stack, which the verifier wants.
    for (index, word) in [u32::from(family), address[0], address[1], address[2], address[3]].into_iter().enumerate() {
        // SAFETY: the struct is made of these five words.
        unsafe { neighbour.as_mut_ptr().cast::<u32>().add(index).write_volatile(word) };
    }
    let size = size_of::<bpf_redir_neigh>() as i32;
    // SAFETY: the helper copies the neighbour, and takes any index; one that does not exist drops the packet.
    unsafe { bpf_redirect_neigh(out, neighbour.as_mut_ptr(), size, 0) as i32 }
}
