//! A packet enters the host: redirect it, or note it and leave it to the stack.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_jiffies64, bpf_redirect_peer},
    programs::TcContext,
};
use aya_log_ebpf::debug;
use minicni_common::{Direction, Endpoint, EndpointKind, Flow, Reason};

use crate::{
    drop, flow,
    header::Header,
    ipv4::Ipv4,
    ipv6::Ipv6,
    maps,
    parse::{self, FIN, Frame, Other, Packet, RST, SYN},
    stack,
};

#[inline(always)]
pub fn run(ctx: &TcContext) -> i32 {
    match parse::ether_type(ctx) {
        Some(Ipv4::ETHER_TYPE) => entered::<Ipv4>(ctx),
        Some(Ipv6::ETHER_TYPE) => entered::<Ipv6>(ctx),
        other => not_ip(ctx, other),
    }
}

/// Something else enters, or what has a second VLAN tag: the kernel took the first off before it asked us.
#[inline(always)]
fn not_ip(ctx: &TcContext, ether_type: Option<u16>) -> i32 {
    match (endpoint(interface(ctx)), ether_type) {
        (None, _) => stack(Reason::UnknownInterface),
        // Of tags for VLAN 0 the kernel takes off any number, and would then route what is behind them, which nobody
        // here has looked at: https://elixir.bootlin.com/linux/v6.12/source/net/core/dev.c#L5660
        (Some(endpoint), Some(parse::VLAN | parse::SERVICE_VLAN)) if is_pod(endpoint) => drop(Reason::SpoofedSource),
        (Some(_), Some(_)) => stack(Reason::NotIp),
        (Some(_), None) => stack(Reason::Malformed),
    }
}

/// An IP packet enters.
#[inline(always)]
fn entered<H: Header>(ctx: &TcContext) -> i32 {
    let packet = match parse::parse::<H>(ctx) {
        Ok(packet) => packet,
        Err(other) => return unfit(ctx, &other),
    };
    if !parse::is_for_host(ctx) {
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
    let ifindex = interface(ctx);
    let there: &Direction = flow::direction(flow, packet.direction);
    let back: &Direction = flow::direction(flow, packet.direction ^ 1);
    let age = now.wrapping_sub(there.noted_at);
    let (out, ethernet) = (there.out_ifindex, *flow::ethernet(there));
    if there.in_ifindex != ifindex
        || packet.tcp_flags & (SYN | FIN | RST) != 0
        || packet.ttl <= 1
        || age > maps::refresh()
        || there.noted != there.proofs && age > maps::grace()
        || parse::wire_length::<H>(ctx) > there.length
        || there.generation != maps::generation(ifindex)
        || back.generation != maps::generation(back.in_ifindex)
        || flow::generation(flow) != maps::global_generation()
    {
        return None;
    }
    // The state is read last. An entry that was evicted since the lookup and taken by another flow begins as observed
    // and with a length of 0, so what was read above cannot be half of the one and half of the other.
    if flow::state(flow) != flow::PROMOTED {
        return None;
    }
    let frame = parse::headers::<H>(ctx, size_of::<Frame<H>>())?;
    // SAFETY: `headers` found the whole struct inside the packet, and IP headers are packed as it is.
    unsafe {
        (*frame).ethernet = ethernet;
        (*(&raw mut (*frame).ip)).decrement_ttl(ctx);
    }
    maps::count(Reason::Redirected);
    // SAFETY: the helper takes any index; one that does not exist drops the packet.
    Some(unsafe { bpf_redirect_peer(out, 0) } as i32)
}

/// The slow path: notes the packet if its flow may be promoted one day, and leaves it to the stack.
#[inline(always)]
fn watch<H: Header>(ctx: &TcContext, packet: &Packet<H>, flow: Option<*mut Flow>, now: u64) -> i32 {
    flow::untag(ctx);
    let ifindex = interface(ctx);
    let Some(endpoint) = endpoint(ifindex) else {
        return stack(Reason::UnknownInterface);
    };
    let (source, destination) = packet.addresses();
    if is_spoofed::<H>(endpoint, source, destination) {
        return drop(Reason::SpoofedSource);
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
    let Some(flow) = flow else {
        let mut unseen = flow::unseen();
        flow::note(ctx, packet, flow::direction(&raw mut unseen, packet.direction), ifindex, now, false);
        // The map makes room by itself; it fails only when another CPU was first, which is as good.
        let _ = H::flows().insert(packet.key, unseen, u64::from(BPF_NOEXIST));
        return stack(Reason::Learning);
    };
    let before = flow::state(flow);
    if before == flow::CLOSING {
        return stack(Reason::Closing);
    }
    let there = flow::direction(flow, packet.direction);
    let back: &Direction = flow::direction(flow, packet.direction ^ 1);
    let stale = flow::void(flow, there, ifindex, now) || flow::gone(back);
    if stale {
        flow::reset(flow);
    }
    flow::note(ctx, packet, there, ifindex, now, before == flow::PROMOTED && !stale);
    if before != flow::PROMOTED {
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
    if endpoint.flags & Endpoint::NO_FAST_PATH != 0 {
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
    let Some(endpoint) = endpoint(interface(ctx)) else {
        return stack(Reason::UnknownInterface);
    };
    if let Some((source, destination)) = other.addresses
        && is_spoofed::<H>(endpoint, source, destination)
    {
        return drop(Reason::SpoofedSource);
    }
    stack(other.reason)
}

/// Whether a packet from a pod bears a source address that is not the pod's.
#[inline(always)]
fn is_spoofed<H: Header>(endpoint: &Endpoint, source: H::Address, destination: H::Address) -> bool {
    is_pod(endpoint) && !H::may_send(endpoint, source, destination)
}

#[inline(always)]
fn is_pod(endpoint: &Endpoint) -> bool {
    endpoint.kind == EndpointKind::Pod as u32
}

#[inline(always)]
fn endpoint<'a>(ifindex: u32) -> Option<&'a Endpoint> {
    // SAFETY: an entry that is deleted meanwhile belongs to an interface that is being deleted.
    unsafe { maps::ENDPOINTS.get(ifindex) }
}

#[inline(always)]
fn interface(ctx: &TcContext) -> u32 {
    // SAFETY: a read of the context, which the verifier checks.
    unsafe { (*ctx.skb.skb).ifindex }
}
