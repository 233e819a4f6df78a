//! A packet enters the host: redirect it, or note it and leave it to the stack.

use core::{hint::cold_path, mem::offset_of};

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_jiffies64, bpf_redirect_peer},
    programs::TcContext,
};
use aya_log_ebpf::debug;
use minicni_common::{Direction, Endpoint, EndpointKind, Flow, Reason};

use crate::{
    drop, exit, flow,
    header::Header,
    ipv4::Ipv4,
    ipv6::Ipv6,
    maps,
    parse::{self, FIN, Frame, Other, Packet, RST, SYN},
    sketch, stack,
};

#[inline(always)]
pub fn run(ctx: &TcContext) -> i32 {
    match parse::ether_type(ctx) {
        Some(Ipv4::ETHER_TYPE) => entered::<Ipv4>(ctx),
        Some(Ipv6::ETHER_TYPE) => entered::<Ipv6>(ctx),
        Some(parse::VLAN | parse::SERVICE_VLAN) => {
            cold_path();
            tagged_again(ctx)
        }
        Some(_) => {
            cold_path();
            other(ctx, Reason::NotIp)
        }
        None => {
            cold_path();
            other(ctx, Reason::Malformed)
        }
    }
}

/// A frame with a second VLAN tag enters: the kernel took the first off before it asked us. Of tags for VLAN 0 it takes off
/// any number, and would then route what is behind them, which nobody here has looked at:
/// <https://elixir.bootlin.com/linux/v6.12/source/net/core/dev.c#L5660>
#[inline(always)]
fn tagged_again(ctx: &TcContext) -> i32 {
    match maps::endpoint(interface(ctx)) {
        Some(endpoint) if is_checked(endpoint) && !has_foreign_mac(ctx, endpoint) => drop(Reason::SpoofedSource),
        _ => other(ctx, Reason::NotIp),
    }
}

/// What is not IP enters.
#[inline(always)]
fn other(ctx: &TcContext, reason: Reason) -> i32 {
    flow::untag(ctx);
    let Some(endpoint) = maps::endpoint(interface(ctx)) else {
        return stack(Reason::UnknownInterface);
    };
    if has_foreign_mac(ctx, endpoint) { drop(Reason::SpoofedMac) } else { stack(reason) }
}

/// An IP packet enters.
#[inline(always)]
fn entered<H: Header>(ctx: &TcContext) -> i32 {
    let packet = match parse::parse::<H>(ctx) {
        Ok(packet) => packet,
        Err(other) => {
            cold_path();
            return unfit(ctx, &other);
        }
    };
    if !parse::is_for_host(ctx) {
        cold_path();
        return unfit::<H>(ctx, &Other { reason: Reason::LinkLayer, addresses: Some(packet.addresses()) });
    }
    // SAFETY: the helper has no preconditions. It is a load of the kernel's tick count, inlined by the verifier.
    let now = unsafe { bpf_jiffies64() };
    let flow = H::flows().get_ptr_mut(packet.key);
    if let Some(flow) = flow
        && let Some(action) = redirect(ctx, &packet, flow, now)
    {
        return action;
    }
    watch(ctx, &packet, flow, now)
}

/// The fast path: redirects a packet of a promoted flow, when everything about it is as it was proven.
///
/// Nothing is written to the flow here, so its two directions do not slow each other down on two CPUs.
#[inline(always)]
fn redirect<H: Header>(ctx: &TcContext, packet: &Packet<H>, flow: *mut Flow, now: u64) -> Option<i32> {
    if flow::state(flow) != flow::PROMOTED {
        return None;
    }
    let ifindex = interface(ctx);
    let there: &Direction = flow::direction(flow, packet.direction);
    let back: &Direction = flow::direction(flow, packet.direction ^ 1);
    let age = now.wrapping_sub(there.noted_at);
    let (out, family, exit) = (there.out_ifindex, there.next_hop_family, flow::exit(there));
    let (mark, priority) = (there.mark, there.priority);
    if there.in_ifindex != ifindex
        || packet.tcp_flags & (SYN | FIN | RST) != 0
        || packet.ttl <= 1
        || !flow::is_of_class(there, packet.class)
        || age > maps::refresh()
        || there.noted != there.proofs && age > maps::grace()
        || parse::wire_length(ctx, packet) > there.length
        || there.generation != maps::generation(ifindex)
        || back.generation != maps::generation(back.in_ifindex)
        || flow::generation(flow) != maps::global_generation()
    {
        return None;
    }
    // The state is read once more, last. An entry that was evicted since the lookup and taken by another flow begins as observed
    // and with a length of 0, so what was read above cannot be half of the one and half of the other.
    if flow::state(flow) != flow::PROMOTED {
        return None;
    }
    let frame = parse::headers::<H>(ctx, size_of::<Frame<H>>())?;
    // SAFETY: `headers` found the whole struct inside the packet, and IP headers are packed as it is.
    unsafe {
        if family == 0 {
            (*frame).ethernet = flow::ethernet(exit);
        }
        (*(&raw mut (*frame).ip)).decrement_ttl(ctx);
    }
    maps::count(Reason::Redirected);
    if family != 0 {
        flow::tag_redirected(ctx);
        exit::mark(ctx, mark, priority);
        return Some(exit::to_neighbour(out, family, flow::next_hop(exit)));
    }
    // SAFETY: the helper takes any index; one that does not exist drops the packet.
    Some(unsafe { bpf_redirect_peer(out, 0) } as i32)
}

/// The slow path: notes the packet if its flow may be promoted one day, and leaves it to the stack.
#[inline(always)]
fn watch<H: Header>(ctx: &TcContext, packet: &Packet<H>, flow: Option<*mut Flow>, now: u64) -> i32 {
    flow::untag(ctx);
    let ifindex = interface(ctx);
    let Some(endpoint) = maps::endpoint(ifindex) else {
        return stack(Reason::UnknownInterface);
    };
    // Only pods begin flows here, so that neither what the host itself receives nor what it forwards to other hosts fills
    // the cache.
    if flow.is_none() && endpoint.kind != EndpointKind::Pod as u32 {
        return stack(Reason::NotOfPod);
    }
    if let Err(reason) = is_honest::<H>(ctx, endpoint, Some(packet.addresses())) {
        cold_path();
        return drop(reason);
    }
    if let Err(reason) = qualifies(packet, endpoint) {
        return stack(reason);
    }
    if packet.tcp_flags & (SYN | FIN | RST) != 0 {
        if let Some(flow) = flow {
            flow::restart(flow, if packet.tcp_flags & SYN == 0 { flow::CLOSING } else { flow::OBSERVED });
        }
        return stack(Reason::TcpControl);
    }
    let hash = H::hash(&packet.key);
    let Some(flow) = flow else {
        if !sketch::is_due(hash) {
            return stack(Reason::Learning);
        }
        if packet.may_be_read() {
            return stack(Reason::Helper);
        }
        // The map makes room by itself; it fails only when another CPU was first, which is as good.
        if H::flows().insert(packet.key, &flow::UNSEEN, u64::from(BPF_NOEXIST)).is_ok()
            && let Some(flow) = H::flows().get_ptr_mut(packet.key)
        {
            flow::begin(flow);
            flow::note(ctx, packet, hash, flow::direction(flow, packet.direction), ifindex, now, false);
        }
        return stack(Reason::Learning);
    };
    let before = flow::state(flow);
    if before == flow::CLOSING {
        return stack(Reason::Closing);
    }
    let there = flow::direction(flow, packet.direction);
    let back: &Direction = flow::direction(flow, packet.direction ^ 1);
    if flow::rests(there, now) {
        return stack(Reason::Learning);
    }
    let promoted = before == flow::PROMOTED;
    let stale = flow::void(flow, there, ifindex, now)
        || flow::gone(back)
        || flow::forgotten(there, back, now)
        || promoted && flow::empty(there, back);
    if promoted && !stale && !flow::is_of_class(there, packet.class) {
        // Neither a refresh, which has to be one of what is redirected, nor a twin.
        flow::tag_noted(ctx, packet, hash);
        return stack(Reason::Class);
    }
    if stale {
        flow::reset(flow);
    }
    flow::note(ctx, packet, hash, there, ifindex, now, promoted && !stale);
    if there.proofs | back.proofs != 0 {
        sketch::watch(hash, now);
    }
    if !promoted {
        return stack(Reason::Learning);
    }
    if stale {
        debug!(ctx, "a flow that entered at {} is stale", ifindex);
        return stack(Reason::Stale);
    }
    stack(Reason::Refresh)
}

/// Whether packets like this one may ever be redirected.
#[inline(always)]
fn qualifies<H: Header>(packet: &Packet<H>, endpoint: &Endpoint) -> Result<(), Reason> {
    if endpoint.flags & (Endpoint::NO_FAST_PATH | Endpoint::NO_SPOOF_CHECK) != 0 {
        return Err(Reason::OptedOut);
    }
    if packet.tcp && !maps::tcp() {
        return Err(Reason::TcpDisabled);
    }
    if packet.ttl <= 1 {
        return Err(Reason::Ttl);
    }
    let (source, destination) = packet.addresses();
    if !H::is_routable(source, destination) {
        return Err(Reason::Destination);
    }
    Ok(())
}

/// A packet that the fast path cannot take; its source address still has to be right.
#[inline(always)]
fn unfit<H: Header>(ctx: &TcContext, other: &Other<H>) -> i32 {
    flow::untag(ctx);
    let Some(endpoint) = maps::endpoint(interface(ctx)) else {
        return stack(Reason::UnknownInterface);
    };
    match is_honest::<H>(ctx, endpoint, other.addresses) {
        Ok(()) => stack(other.reason),
        Err(reason) => drop(reason),
    }
}

/// Whether a packet with these addresses comes from whom it says, or why it has to be dropped.
#[inline(always)]
fn is_honest<H: Header>(
    ctx: &TcContext,
    endpoint: &Endpoint,
    addresses: Option<(H::Address, H::Address)>,
) -> Result<(), Reason> {
    if !is_checked(endpoint) {
        return Ok(());
    }
    if has_foreign_mac(ctx, endpoint) {
        return Err(Reason::SpoofedMac);
    }
    match addresses {
        Some((source, destination)) if !H::may_send(endpoint, source, destination) => Err(Reason::SpoofedSource),
        _ => Ok(()),
    }
}

/// Whether an endpoint is a pod that has to send with its own addresses.
#[inline(always)]
fn is_checked(endpoint: &Endpoint) -> bool {
    endpoint.kind == EndpointKind::Pod as u32 && endpoint.flags & Endpoint::NO_SPOOF_CHECK == 0
}

const _: () = assert!(offset_of!(Endpoint, mac).is_multiple_of(align_of::<u16>()));

/// Whether a frame from a pod bears a source MAC address that is not the pod's.
#[inline(always)]
fn has_foreign_mac(ctx: &TcContext, endpoint: &Endpoint) -> bool {
    // SAFETY: the field is as long and, as asserted, aligned.
    let [one, two, three] = unsafe { *(&raw const endpoint.mac).cast::<[u16; 3]>() };
    let is_own = |mac: [u16; 3]| mac[0] == one && mac[1] == two && mac[2] == three;
    is_checked(endpoint) && parse::source_mac(ctx).is_some_and(|mac| !is_own(mac))
}

#[inline(always)]
fn interface(ctx: &TcContext) -> u32 {
    // SAFETY: a read of the context, which the verifier checks.
    unsafe { (*ctx.skb.skb).ifindex }
}
