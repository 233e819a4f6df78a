//! The stack delivers a packet: a proof for its direction, or a sign that its flow is not what it seemed.

use aya_ebpf::{
    bindings::{__sk_buff, TC_ACT_UNSPEC},
    helpers::bpf_jiffies64,
    programs::TcContext,
};
use aya_log_ebpf::debug;
use minicni_common::{Direction, Flow, Reason, Sketch, names::REDIRECTED_TAG};

use crate::{
    bucket, exit, flow,
    header::Header,
    ipv4::Ipv4,
    ipv6::Ipv6,
    maps,
    parse::{self, ETH_ZLEN, Packet, SYN},
    shortcut, sketch,
};

#[inline(always)]
pub fn run(ctx: &TcContext) -> i32 {
    let tag = flow::take_tag(ctx);
    if tag == REDIRECTED_TAG {
        // Ours, on its way to a neighbour, and not of the stack.
        return TC_ACT_UNSPEC;
    }
    // SAFETY: the helper has no preconditions. First, as in `ingress`.
    let now = unsafe { bpf_jiffies64() };
    let of_nobody = tag == 0
        && match parse::ether_type(ctx) {
            Some(Ipv4::ETHER_TYPE) => is_of_nobody::<Ipv4>(ctx, now),
            Some(Ipv6::ETHER_TYPE) => is_of_nobody::<Ipv6>(ctx, now),
            _ => true,
        };
    if of_nobody { TC_ACT_UNSPEC } else { egress_thorough(ctx.skb.skb, tag.into(), now) }
}

/// Whether a packet that entered as nothing that was noted leaves as nothing that is watched, as most do. False also where it cannot be
/// read at once.
#[inline(always)]
fn is_of_nobody<H: Header>(ctx: &TcContext, now: u64) -> bool {
    let bucket = parse::quick_tuple::<H>(ctx).and_then(|tuple| bucket::find::<H>(tuple.hash()));
    bucket.is_some_and(|bucket| !sketch::is_watched(bucket::sketch(bucket), now))
}

/// All others. A function in the programs, too, as in `ingress`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn egress_thorough(skb: *mut __sk_buff, tag: u32, now: u64) -> i32 {
    let ctx = &TcContext::new(skb);
    match parse::ether_type(ctx) {
        Some(Ipv4::ETHER_TYPE) => delivered::<Ipv4>(ctx, tag as u16, now),
        Some(Ipv6::ETHER_TYPE) => delivered::<Ipv6>(ctx, tag as u16, now),
        _ => {}
    }
    TC_ACT_UNSPEC
}

#[inline(always)]
fn delivered<H: Header>(ctx: &TcContext, tag: u16, now: u64) {
    let Ok(glance) = parse::glance::<H>(ctx) else { return };
    let hash = glance.hash();
    let Some(bucket) = bucket::find::<H>(hash) else { return };
    let sketch = bucket::sketch(bucket);
    let watched = sketch::is_watched(sketch, now);
    if tag == 0 && !watched {
        return;
    }
    let Some(packet) = parse::examine(ctx, glance) else { return };
    let entered = flow::entered_as(ctx, &packet, tag);
    if !entered && !watched {
        return;
    }
    if !agrees(ctx, &packet, &Delivery { sketch, entered, now }) {
        shortcut::forget(&packet.glance, bucket);
    }
}

/// What is known of a packet that the stack delivers.
struct Delivery {
    sketch: *mut Sketch,
    /// It is what entered with its tag.
    entered: bool,
    now: u64,
}

/// Notes in its flow what a packet says of it; whether the flow may still be what it seemed.
#[inline(always)]
fn agrees<H: Header>(ctx: &TcContext, packet: &Packet<H>, delivery: &Delivery) -> bool {
    let Delivery { sketch, entered, now } = *delivery;
    let glance = &packet.glance;
    let (key, direction) = glance.key();
    let Some(flow) = H::flows().get_ptr_mut(key) else { return false };
    if glance.is_control() {
        // Usually the ingress side has seen it already; a RST that the host's firewall made has no other, and no interface.
        if flow::state(flow) == flow::PROMOTED {
            // SAFETY: a read of the context, which the verifier checks.
            let from = unsafe { (*ctx.skb.skb).ingress_ifindex };
            let is_credible = from == 0 || from == flow::direction(flow, direction).in_ifindex;
            let ends = glance.tcp_flags & SYN == 0 && is_credible;
            flow::restart(flow, if ends { flow::CLOSING } else { flow::OBSERVED }, now);
        }
        return false;
    }
    if flow::state(flow) == flow::CLOSING {
        return false;
    }
    // SAFETY: reads of the context, which the verifier checks.
    let (from, to) = unsafe { ((*ctx.skb.skb).ingress_ifindex, (*ctx.skb.skb).ifindex) };
    let there = flow::direction(flow, direction);
    let promoted = flow::state(flow) == flow::PROMOTED;
    if entered && promoted && from == there.in_ifindex && !flow::is_of_class(there, packet.class) {
        return true;
    }
    if !entered || from != there.in_ifindex || from == to || !flow::expected(there, now) {
        twin(flow, there, now);
        return false;
    }
    let Some(exit) = exit::find(ctx, packet, from, to) else {
        if there.proofs != 0 {
            flow::reset(flow, now);
        }
        return false;
    };
    if there.proofs == 0 {
        there.out_ifindex = to;
        there.class = u16::from(packet.class);
        flow::set_exit(there, &exit);
    } else if there.out_ifindex != to || !flow::leaves_by(there, &exit) || !flow::is_of_class(there, packet.class) {
        debug!(ctx, "a flow left at {} and now leaves at {}", there.out_ifindex, to);
        flow::reset(flow, now);
        return false;
    }
    // What was padded to the least length of a frame when it entered is longer than what the stack delivers of it.
    let length = parse::wire_length(ctx, glance).max(ETH_ZLEN);
    if length > there.length {
        there.length = length;
    }
    there.proofs += 1;
    sketch::watch(sketch, now);
    maps::count(Reason::Proof);
    let back: &Direction = flow::direction(flow, direction ^ 1);
    if flow::state(flow) == flow::OBSERVED && flow::proven(there) && flow::proven(back) {
        flow::set_state(flow, flow::PROMOTED);
        maps::count(Reason::Promoted);
        debug!(ctx, "promoted: {} and {}", there.in_ifindex, to);
    }
    // With its first proof a flow may begin that was evicted and left elsewhere before: its shortcuts of then may be there yet.
    there.proofs != 1
}

/// The stack delivers a tuple that did not enter so: translation made it. All that was proven is void.
///
/// Where nothing was noted of the direction, nothing can be promoted, and there is nothing to void.
#[inline(always)]
fn twin(flow: *mut Flow, there: &Direction, now: u64) {
    if there.noted != 0 && flow::direction(flow, 0).proofs | flow::direction(flow, 1).proofs != 0 {
        maps::count(Reason::Twin);
        flow::reset(flow, now);
    }
}
