//! A packet enters the host: redirect it, or note it and leave it to the stack.

use core::{hint::cold_path, mem::offset_of};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST, TC_ACT_UNSPEC},
    helpers::{bpf_jiffies64, bpf_redirect_peer},
    programs::TcContext,
};
use aya_log_ebpf::debug;
use minicni_common::{Direction, Endpoint, EndpointKind, Flow, Reason, Sketch};

use crate::{
    bucket::{self, Bucket},
    drop, exit,
    flow::{self, WayOut},
    header::Header,
    ipv4::Ipv4,
    ipv6::Ipv6,
    maps,
    parse::{self, ETH_ZLEN, Frame, Glance, Other, Packet, SYN},
    shortcut, sketch, stack,
};

#[inline(always)]
pub fn run(ctx: &TcContext) -> i32 {
    // SAFETY: the helper has no preconditions. It is a load of the kernel's tick count, inlined by the verifier; first, because
    // like any call it costs what is in registers.
    let now = unsafe { bpf_jiffies64() };
    let action = match parse::ether_type(ctx) {
        Some(Ipv4::ETHER_TYPE) => ingress_quick4(ctx.skb.skb, now),
        Some(Ipv6::ETHER_TYPE) => ingress_quick6(ctx.skb.skb, now),
        _ => UNDECIDED,
    };
    if action > UNDECIDED { action } else { ingress_thorough(ctx.skb.skb, now, (action == DUE).into()) }
}

/// What [`quick`] says where it knows no action of TC, of which `TC_ACT_UNSPEC`, -1, is the least.
const UNDECIDED: i32 = -2;
/// As [`UNDECIDED`], of a packet that is counted and comes from whom it says, and with which a flow should begin.
const DUE: i32 = -3;

const _: () = assert!(UNDECIDED < TC_ACT_UNSPEC && DUE < UNDECIDED);

/// What is done of most packets: they are redirected by a shortcut, or left to the stack by a few words. What is not decided here is as
/// it was, but for its tag; only [`sketch::is_due`] is not to be asked again, whose answer is [`DUE`].
#[inline(always)]
fn quick<H: Header>(ctx: &TcContext, now: u64) -> i32 {
    let Some(glance) = parse::quick_glance::<H>(ctx) else { return UNDECIDED };
    let hash = glance.hash();
    let Some(bucket) = bucket::find::<H>(hash) else { return UNDECIDED };
    let sketch = bucket::sketch(bucket);
    let noted = sketch::is_noted(sketch, now);
    if noted {
        if glance.is_control() {
            return UNDECIDED;
        }
        // What rests was noted, and all else of what was noted may be redirected.
        if !sketch::rests(sketch, hash, interface(ctx), now) {
            return match shortcut::find(ctx, &glance, hash, bucket, now) {
                Some((frame, way)) => send(ctx, frame, &way),
                None => UNDECIDED,
            };
        }
    }
    flow::untag(ctx);
    let Some(endpoint) = maps::endpoint_in_slot(interface(ctx)) else { return UNDECIDED };
    if endpoint.kind != EndpointKind::Pod as u32 && !noted {
        return stack(Reason::NotOfPod);
    }
    let is_ordinary = endpoint.kind == EndpointKind::Pod as u32 && endpoint.flags == 0;
    if !is_ordinary || has_foreign_mac(ctx, endpoint) || !H::may_send(endpoint, glance.source, glance.destination) {
        return UNDECIDED;
    }
    if glance.is_control() {
        sketch::recount(sketch, hash);
        return stack(Reason::TcpControl);
    }
    if !noted && sketch::is_due(sketch, hash) { DUE } else { stack(Reason::Learning) }
}

// These are functions in the programs, too, for the stack's sake: a program and what it calls have 512 bytes of it, each rounded up to
// 32 before Linux 6.9. In `run`, these 104 would come on top of the 384 of `ingress_thorough`.

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ingress_quick4(skb: *mut __sk_buff, now: u64) -> i32 {
    quick::<Ipv4>(&TcContext::new(skb), now)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ingress_quick6(skb: *mut __sk_buff, now: u64) -> i32 {
    quick::<Ipv6>(&TcContext::new(skb), now)
}

/// Whatever [`quick`] does not do. A function in the programs, too, so that the other lies in few cache lines: the kernel's own way of
/// a packet has most of them thrown out between two packets. `due` is not 0 where [`quick`] said [`DUE`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ingress_thorough(skb: *mut __sk_buff, now: u64, due: u32) -> i32 {
    let ctx = &TcContext::new(skb);
    match parse::ether_type(ctx) {
        Some(Ipv4::ETHER_TYPE) => entered::<Ipv4>(ctx, now, due != 0),
        Some(Ipv6::ETHER_TYPE) => entered::<Ipv6>(ctx, now, due != 0),
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

/// An IP packet enters; `due` as [`DUE`] says.
#[inline(always)]
fn entered<H: Header>(ctx: &TcContext, now: u64, due: bool) -> i32 {
    let glance = match parse::glance::<H>(ctx) {
        Ok(glance) => glance,
        Err(other) => {
            cold_path();
            return unfit(ctx, &other);
        }
    };
    let hash = glance.hash();
    let Some(bucket) = bucket::find::<H>(hash) else { return unfit(ctx, &glance.other(Reason::Learning)) };
    let sketch = bucket::sketch(bucket);
    let unknown = if due { None } else { unknown(ctx, &glance, hash, sketch, now) };
    if let Some(rests) = unknown
        && let Some(action) = pass(ctx, &glance, hash, sketch, rests)
    {
        return action;
    }
    // What is unknown is due now.
    let is_due = due || unknown.is_some();
    let Some(packet) = parse::examine(ctx, glance) else { return unfit(ctx, &glance.other(Reason::Malformed)) };
    if !parse::is_for_host(ctx) {
        cold_path();
        return unfit(ctx, &glance.other(Reason::LinkLayer));
    }
    let (key, direction) = glance.key();
    let flow = H::flows().get_ptr_mut(key);
    if let Some(flow) = flow
        && let Some(action) = redirect(ctx, &packet, hash, bucket, direction, flow, now)
    {
        return action;
    }
    watch(ctx, &packet, Known { flow, hash, bucket, is_due }, now)
}

/// Some where the cache need not be asked about a packet: it is of no flow that was noted (false), or of a direction that rests (true).
#[inline(always)]
fn unknown<H: Header>(ctx: &TcContext, glance: &Glance<H>, hash: u64, sketch: *mut Sketch, now: u64) -> Option<bool> {
    if !sketch::is_noted(sketch, now) {
        return Some(false);
    }
    // What rests was noted.
    (sketch::rests(sketch, hash, interface(ctx), now) && !glance.is_control()).then_some(true)
}

/// Leaves a packet to the stack that is of no flow yet, or of a direction that rests. `None` if a flow should begin with it.
#[inline(always)]
fn pass<H: Header>(ctx: &TcContext, glance: &Glance<H>, hash: u64, sketch: *mut Sketch, rests: bool) -> Option<i32> {
    flow::untag(ctx);
    let Some(endpoint) = maps::endpoint(interface(ctx)) else {
        return Some(stack(Reason::UnknownInterface));
    };
    if !rests && endpoint.kind != EndpointKind::Pod as u32 {
        return Some(stack(Reason::NotOfPod));
    }
    if let Err(reason) = is_honest::<H>(ctx, endpoint, true, glance.source, glance.destination) {
        cold_path();
        return Some(drop(reason));
    }
    if opted_out(endpoint) {
        return Some(stack(Reason::OptedOut));
    }
    if glance.is_control() {
        sketch::recount(sketch, hash);
        return Some(stack(Reason::TcpControl));
    }
    if !rests && sketch::is_due(sketch, hash) {
        return None;
    }
    Some(stack(Reason::Learning))
}

/// What is known of a packet's flow.
struct Known<A> {
    flow: Option<*mut Flow>,
    hash: u64,
    bucket: *mut Bucket<A>,
    /// A flow should begin with it, if there is none.
    is_due: bool,
}

/// The fast path: redirects a packet of a promoted flow, when everything about it is as it was proven.
///
/// Nothing is written to the flow here, so its two directions do not slow each other down on two CPUs.
#[inline(always)]
fn redirect<H: Header>(
    ctx: &TcContext,
    packet: &Packet<H>,
    hash: u64,
    bucket: *mut Bucket<H::Address>,
    direction: u32,
    flow: *mut Flow,
    now: u64,
) -> Option<i32> {
    let epoch = maps::epoch();
    if flow::state(flow) != flow::PROMOTED {
        return None;
    }
    let ifindex = interface(ctx);
    let there: &Direction = flow::direction(flow, direction);
    let back: &Direction = flow::direction(flow, direction ^ 1);
    if packet.glance.is_control()
        || packet.ttl <= 1
        || !flow::is_of_class(there, packet.class)
        || flow::is_older(there, maps::refresh(), now)
        || there.noted != there.proofs && flow::is_older(there, maps::grace(), now)
        || parse::is_longer(ctx, &packet.glance, there.length)
        || there.generation != maps::generation(ifindex)
        || back.generation != maps::generation(back.in_ifindex)
        || flow::generation(flow) != maps::global_generation()
    {
        return None;
    }
    // Not before, because what is read has to be kept while a map is asked.
    let way = flow::way_out(there);
    // These last. Another CPU may evict the entry or have the flow begin anew meanwhile, and what was read above would be
    // half of the one and half of the other. Words are cleared one after the other, mostly upwards: then the interface is gone
    // before the way out is, and of a copy downwards it is the state that goes first. What has become another flow's for good
    // has another name.
    if flow::entrance(there) != ifindex || flow::state(flow) != flow::PROMOTED || !flow::is_of(flow, hash) {
        return None;
    }
    let frame = parse::headers::<H>(ctx, size_of::<Frame<H>>())?;
    if shortcut::make(&packet.glance, hash, bucket, there, &way, epoch, now) && flow::state(flow) != flow::PROMOTED {
        // What another CPU took away since the state was read above, and a third has written again.
        cold_path();
        shortcut::forget(&packet.glance, bucket);
    }
    Some(send(ctx, frame, &way))
}

/// Sends a packet, whose headers these are, on a proven way out.
#[inline(always)]
fn send<H: Header>(ctx: &TcContext, frame: *mut Frame<H>, way: &WayOut) -> i32 {
    let WayOut { ifindex: out, family, mark, priority, exit } = *way;
    // SAFETY: the caller found the whole struct inside the packet, and IP headers are packed as it is.
    unsafe {
        if family == 0 {
            Frame::set_ethernet(frame, exit);
        }
        (*(&raw mut (*frame).ip)).decrement_ttl(ctx);
    }
    maps::count(Reason::Redirected);
    if family != 0 {
        flow::tag_redirected(ctx);
        exit::mark(ctx, mark, priority);
        return exit::to_neighbour(out, family, flow::next_hop(exit));
    }
    // SAFETY: the helper takes any index; one that does not exist drops the packet.
    unsafe { bpf_redirect_peer(out, 0) as i32 }
}

/// The slow path: notes the packet if its flow may be promoted one day, and leaves it to the stack.
#[inline(always)]
fn watch<H: Header>(ctx: &TcContext, packet: &Packet<H>, known: Known<H::Address>, now: u64) -> i32 {
    let Known { flow, hash, bucket, is_due } = known;
    let sketch = bucket::sketch(bucket);
    let glance = &packet.glance;
    flow::untag(ctx);
    let ifindex = interface(ctx);
    let Some(endpoint) = maps::endpoint(ifindex) else {
        return stack(Reason::UnknownInterface);
    };
    // Only pods begin flows here, so that neither what the host itself receives nor what it forwards to other hosts fills
    // the cache.
    if flow.is_none() && endpoint.kind != EndpointKind::Pod as u32 {
        if glance.is_control() && sketch::is_watched(sketch, now) {
            // Of a flow that was evicted, and may have its shortcuts yet.
            shortcut::forget(glance, bucket);
        }
        return stack(Reason::NotOfPod);
    }
    if let Err(reason) = is_honest::<H>(ctx, endpoint, true, glance.source, glance.destination) {
        cold_path();
        return drop(reason);
    }
    if let Err(reason) = qualifies(packet, endpoint) {
        return stack(reason);
    }
    if glance.is_control() {
        if let Some(flow) = flow {
            let there = flow::direction(flow, glance.key().1);
            // What enters elsewhere may be forged, and the connection go on.
            let is_credible = there.in_ifindex == ifindex || flow::state(flow) == flow::CLOSING;
            let ends = glance.tcp_flags & SYN == 0 && is_credible;
            flow::restart(flow, if ends { flow::CLOSING } else { flow::OBSERVED }, now);
            sketch::note(sketch, now);
        } else {
            sketch::recount(sketch, hash);
        }
        if sketch::is_watched(sketch, now) {
            shortcut::forget(glance, bucket);
        }
        return stack(Reason::TcpControl);
    }
    let (key, direction) = glance.key();
    let Some(flow) = flow else {
        if !is_due && !sketch::is_due(sketch, hash) {
            return stack(Reason::Learning);
        }
        if glance.may_be_read() {
            return stack(Reason::Helper);
        }
        // The map makes room by itself; it fails only when another CPU was first, which is as good.
        if H::flows().insert(key, &flow::UNSEEN, u64::from(BPF_NOEXIST)).is_ok()
            && let Some(flow) = H::flows().get_ptr_mut(key)
        {
            flow::begin(flow, hash);
            sketch::note(sketch, now);
            flow::note(ctx, packet, hash, flow::direction(flow, direction), ifindex, now, false);
        }
        return stack(Reason::Learning);
    };
    sketch::note(sketch, now);
    if flow::is_closing(flow, now) {
        return stack(Reason::Closing);
    }
    let before = flow::state(flow);
    let there = flow::direction(flow, direction);
    let back: &Direction = flow::direction(flow, direction ^ 1);
    if flow::rests(there, now) {
        sketch::rest(sketch, hash, ifindex, there.noted_at);
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
        flow::reset(flow, now);
    }
    if promoted && !stale && there.noted == there.proofs && flow::is_older(there, maps::refresh(), now) {
        // A refresh, and no longer packets are on their way: of longer ones it proves nothing. The MTU of the path may have become
        // smaller, and nobody may have said so.
        there.length = parse::wire_length(ctx, glance).max(ETH_ZLEN);
    }
    flow::note(ctx, packet, hash, there, ifindex, now, promoted && !stale);
    if promoted {
        // After the flow was changed, so that no copy is made of what it was.
        shortcut::forget(glance, bucket);
    }
    if there.proofs | back.proofs != 0 {
        sketch::watch(sketch, now);
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

/// Whether all flows of an endpoint stay in the stack.
#[inline(always)]
fn opted_out(endpoint: &Endpoint) -> bool {
    endpoint.flags & (Endpoint::NO_FAST_PATH | Endpoint::NO_SPOOF_CHECK) != 0
}

/// Whether packets like this one may ever be redirected.
#[inline(always)]
fn qualifies<H: Header>(packet: &Packet<H>, endpoint: &Endpoint) -> Result<(), Reason> {
    if opted_out(endpoint) {
        return Err(Reason::OptedOut);
    }
    if packet.glance.is_tcp() && !maps::tcp() {
        return Err(Reason::TcpDisabled);
    }
    if packet.ttl <= 1 {
        return Err(Reason::Ttl);
    }
    if !H::is_routable(packet.glance.source, packet.glance.destination) {
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
    match is_honest::<H>(ctx, endpoint, other.whole, other.source, other.destination) {
        Ok(()) => stack(other.reason),
        Err(reason) => drop(reason),
    }
}

/// Whether a packet with these addresses comes from whom it says, or why it has to be dropped.
#[inline(always)]
fn is_honest<H: Header>(
    ctx: &TcContext,
    endpoint: &Endpoint,
    whole: bool,
    source: H::Address,
    destination: H::Address,
) -> Result<(), Reason> {
    if !is_checked(endpoint) {
        return Ok(());
    }
    if has_foreign_mac(ctx, endpoint) {
        return Err(Reason::SpoofedMac);
    }
    if whole && !H::may_send(endpoint, source, destination) { Err(Reason::SpoofedSource) } else { Ok(()) }
}

/// Whether an endpoint is a pod that has to send with its own addresses.
#[inline(always)]
fn is_checked(endpoint: &Endpoint) -> bool {
    endpoint.kind == EndpointKind::Pod as u32 && endpoint.flags & Endpoint::NO_SPOOF_CHECK == 0
}

const _: () = assert!(offset_of!(Endpoint, mac).is_multiple_of(align_of::<u32>()));

/// Whether a frame from a pod bears a source MAC address that is not the pod's.
#[inline(always)]
fn has_foreign_mac(ctx: &TcContext, endpoint: &Endpoint) -> bool {
    let mac = (&raw const endpoint.mac).cast::<u32>();
    // SAFETY: the field is of six bytes and, as asserted, aligned.
    let own = unsafe { (mac.read(), mac.add(1).cast::<u16>().read()) };
    is_checked(endpoint) && parse::source_mac(ctx).is_some_and(|mac| mac != own)
}

#[inline(always)]
fn interface(ctx: &TcContext) -> u32 {
    // SAFETY: a read of the context, which the verifier checks.
    unsafe { (*ctx.skb.skb).ifindex }
}
