//! A packet enters the host: redirect it, or note it and leave it to the stack.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_jiffies64, bpf_redirect_peer},
    programs::TcContext,
};
use aya_log_ebpf::debug;
use minicni_common::{Direction, Endpoint, EndpointKind, Flow, Reason};

use crate::{
    drop, flow, maps,
    parse::{self, FIN, Other, Packet, RST, SYN},
    stack,
};

/// 255.255.255.255, the destination of a DHCP client that has no address yet.
const BROADCAST: u32 = u32::MAX;

#[inline(always)]
pub fn run(ctx: &TcContext) -> i32 {
    let packet = match parse::parse(ctx) {
        Ok(packet) => packet,
        Err(other) => return unfit(ctx, &other),
    };
    if !parse::is_for_host(ctx) {
        let (source, destination) = (Some(packet.source), packet.destination);
        return unfit(ctx, &Other { reason: Reason::LinkLayer, source, destination });
    }
    // SAFETY: the helper has no preconditions. It is a load of the kernel's tick count, inlined by the verifier.
    let now = unsafe { bpf_jiffies64() };
    let flow = maps::FLOWS4.get_ptr_mut(packet.key);
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
fn redirect(ctx: &TcContext, packet: &Packet, flow: *mut Flow, now: u64) -> Option<i32> {
    let ifindex = interface(ctx);
    let there: &Direction = flow::direction(flow, packet.direction);
    let back: &Direction = flow::direction(flow, packet.direction ^ 1);
    let age = now.wrapping_sub(there.noted_at);
    let (out, ethernet) = (there.out_ifindex, there.ethernet);
    if there.in_ifindex != ifindex
        || packet.tcp_flags & (SYN | FIN | RST) != 0
        || packet.ttl <= 1
        || age > maps::refresh()
        || there.noted != there.proofs && age > maps::grace()
        || parse::wire_length(ctx) > there.length
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
    let headers = parse::headers(ctx, size_of::<parse::Headers>())?;
    // SAFETY: `headers` found the whole struct inside the packet.
    unsafe {
        (*headers).ethernet = ethernet;
        (*headers).ttl -= 1;
        // As ip_decrease_ttl() does: https://elixir.bootlin.com/linux/v6.12/source/include/net/ip.h#L470
        let sum = u32::from((*headers).checksum) + u32::from(0x0100_u16.to_be());
        (*headers).checksum = (sum + u32::from(sum >= 0xffff)) as u16;
    }
    maps::count(Reason::Redirected);
    // SAFETY: the helper takes any index; one that does not exist drops the packet.
    Some(unsafe { bpf_redirect_peer(out, 0) } as i32)
}

/// The slow path: notes the packet if its flow may be promoted one day, and leaves it to the stack.
#[inline(always)]
fn watch(ctx: &TcContext, packet: &Packet, flow: Option<*mut Flow>, now: u64) -> i32 {
    flow::untag(ctx);
    let ifindex = interface(ctx);
    let Some(endpoint) = endpoint(ifindex) else {
        return stack(Reason::UnknownInterface);
    };
    if is_spoofed(endpoint, packet.source, packet.destination) {
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
        let _ = maps::FLOWS4.insert(packet.key, unseen, u64::from(BPF_NOEXIST));
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
fn qualifies(packet: &Packet, endpoint: &Endpoint) -> Result<(), Reason> {
    if endpoint.flags & Endpoint::NO_FAST_PATH != 0 {
        return Err(Reason::OptedOut);
    }
    if packet.tcp && !maps::tcp() {
        return Err(Reason::TcpDisabled);
    }
    if packet.ttl <= 1 {
        return Err(Reason::Ttl);
    }
    let first = packet.destination.to_ne_bytes()[0];
    if first >= 224 || first == 127 || packet.destination == packet.source {
        return Err(Reason::Destination);
    }
    Ok(())
}

/// A packet that the fast path cannot take; its source address still has to be right.
#[inline(always)]
fn unfit(ctx: &TcContext, other: &Other) -> i32 {
    let Some(endpoint) = endpoint(interface(ctx)) else {
        return stack(Reason::UnknownInterface);
    };
    if let Some(source) = other.source
        && is_spoofed(endpoint, source, other.destination)
    {
        return drop(Reason::SpoofedSource);
    }
    stack(other.reason)
}

/// Whether an IPv4 packet from a pod bears a source address that is not the pod's.
#[inline(always)]
fn is_spoofed(endpoint: &Endpoint, source: u32, destination: u32) -> bool {
    endpoint.kind == EndpointKind::Pod as u32
        && source != u32::from_ne_bytes(endpoint.ipv4)
        && !(source == 0 && destination == BROADCAST)
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
