//! What the fast path has to know of a promoted direction, in the bucket of its flow.
//!
//! A copy of what the flow cache has, good until the direction's next packet has to go through the stack. Packets that are
//! redirected by the cache make it: one writes it, and the next, if it would write the same, declares it valid. That writes the last
//! word alone, and whatever happens to the flow takes the first word away; so who declares brings nothing back that another CPU has
//! taken away meanwhile, and who writes leaves nothing valid. What two CPUs write at once, and what is read while one writes, is a
//! mixture; a sum tells.

use aya_ebpf::programs::TcContext;
use minicni_common::Direction;

use crate::{
    bucket::{self, Bucket, Place, read, write},
    flow::WayOut,
    header::Header,
    maps,
    parse::{self, Frame, Glance},
};

/// The fields of a shortcut, in as few words as there are: [`Shortcut`](minicni_common::Shortcut).
struct Words {
    /// Ports, and the interface at which the packets enter.
    entrance: u64,
    /// The interface at which they leave, and their length.
    way: u64,
    /// When it is over, and the epoch.
    time: u64,
    /// Mark and priority.
    treatment: u64,
    exit: [u64; 2],
    /// Protocol, class, and the family of the neighbour; the sum is beside it.
    kind: u32,
}

/// The last word.
const LAST: usize = 6;
/// What has to be the same of [`Words::kind`]: not ECN, nor the family, which a packet does not have.
const KIND: u32 = 0xfcff;

#[inline(always)]
const fn word(low: u32, high: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

#[inline(always)]
const fn low(word: u64) -> u32 {
    word as u32
}

#[inline(always)]
const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Protocol, class, and the family of the neighbour.
#[inline(always)]
fn kind<H: Header>(glance: &Glance<H>, class: u8, family: u16) -> u32 {
    u32::from(glance.protocol()) | u32::from(class) << 8 | u32::from(family) << 16
}

impl Words {
    /// Depends on all of them, and on the flow.
    #[inline(always)]
    fn sum(&self, hash: u64) -> u32 {
        // As in the hash of a flow: the upper bits of a product depend on all bits of its factors.
        const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
        let Self { entrance, way, time, treatment, exit: [one, other], kind } = *self;
        let mut sum = hash;
        for word in [entrance, way, time, treatment, one, other, u64::from(kind)] {
            sum = (sum ^ word).wrapping_mul(FACTOR);
        }
        // 0 is none.
        high(sum).max(1)
    }
}

/// Whether what has this time still counts.
#[inline(always)]
fn is_current(time: u64, epoch: u32, now: u64) -> bool {
    // None is over later than this, so that one of long ago does not seem to be yet to come.
    high(time) == epoch && low(time).wrapping_sub(low(now)) <= low(maps::refresh())
}

/// The headers and the way out of a packet that enters now, if there is a shortcut for it and everything about it is as it was
/// proven.
#[inline(always)]
pub fn find<H: Header>(
    ctx: &TcContext,
    glance: &Glance<H>,
    hash: u64,
    bucket: *mut Bucket<H::Address>,
    now: u64,
) -> Option<(*mut Frame<H>, WayOut)> {
    let place = bucket::place(bucket, glance.side());
    // Before the headers, which would be looked for again after this.
    let epoch = maps::epoch();
    let frame = parse::headers::<H>(ctx, size_of::<Frame<H>>())?;
    // SAFETY: `headers` found the whole struct inside the packet, and IP headers are packed as it is; a place has two addresses.
    let (ip, ports, is_between) = unsafe {
        let is_between = H::is_between(&raw const (*frame).ip, bucket::addresses(place));
        ((*frame).ip, Frame::ports(frame), is_between)
    };
    let (entrance, way, time, last) = (read(place, 0), read(place, 1), read(place, 2), read(place, LAST));
    // SAFETY: a read of the context, which the verifier checks.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    if !is_between
        || low(entrance) != ports
        || high(entrance) != ifindex
        || glance.is_control()
        || (low(last) ^ kind(glance, ip.class(), 0)) & KIND != 0
        || ip.ttl() <= 1
        || !is_current(time, epoch, now)
        || parse::is_longer(ctx, glance, high(way))
        || !parse::is_for_host(ctx)
        || !parse::fits(ctx, &ip, glance.is_tcp())
    {
        return None;
    }
    let (treatment, exit, kind) = (read(place, 3), [read(place, 4), read(place, 5)], low(last));
    if (Words { entrance, way, time, treatment, exit, kind }).sum(hash) != high(last) {
        return None;
    }
    let (mark, priority) = (low(treatment), high(treatment));
    Some((frame, WayOut { ifindex: low(way), family: (kind >> 16) as u16, mark, priority, exit }))
}

/// Makes a shortcut for a packet that the cache redirects, or declares it valid; unless the place has another's that still
/// counts. `epoch` is that of before the flow was looked at. Whether it was declared valid.
#[inline(always)]
pub fn make<H: Header>(
    glance: &Glance<H>,
    hash: u64,
    bucket: *mut Bucket<H::Address>,
    there: &Direction,
    way: &WayOut,
    epoch: u32,
    now: u64,
) -> bool {
    let place = bucket::place(bucket, glance.side());
    let (entrance, last) = (read(place, 0), read(place, LAST));
    let is_own = bucket::is_between(place, glance.source, glance.destination) && low(entrance) == glance.port_word();
    if entrance != 0 && (high(last) != 0 || !is_own) && is_current(read(place, 2), epoch, now) {
        return false;
    }
    let limit = if there.noted == there.proofs { maps::refresh() } else { maps::grace() };
    let words = Words {
        entrance: word(glance.port_word(), there.in_ifindex),
        way: word(way.ifindex, there.length),
        time: word(low(there.noted_at + limit), epoch),
        treatment: word(way.mark, way.priority),
        exit: way.exit,
        kind: kind(glance, there.class as u8, way.family),
    };
    if is_own
        && entrance == words.entrance
        && read(place, 1) == words.way
        && read(place, 2) == words.time
        && read(place, 3) == words.treatment
        && read(place, 4) == words.exit[0]
        && read(place, 5) == words.exit[1]
        && last == word(words.kind, 0)
    {
        write(place, LAST, word(words.kind, words.sum(hash)));
        return true;
    }
    // Nobody's from here on.
    write(place, LAST, word(words.kind, 0));
    bucket::set_between(place, glance.source, glance.destination);
    let Words { entrance, way, time, treatment, exit: [one, other], .. } = words;
    for (index, value) in [entrance, way, time, treatment, one, other].into_iter().enumerate() {
        write(place, index, value);
    }
    // Another CPU may have written and declared the same meanwhile, and a third have taken it away.
    write(place, LAST, word(words.kind, 0));
    false
}

/// Takes away the shortcuts of a packet's flow.
#[inline(always)]
pub fn forget<H: Header>(glance: &Glance<H>, bucket: *mut Bucket<H::Address>) {
    let (side, ports) = (glance.side(), glance.port_word());
    clear(bucket::place(bucket, side), glance.source, glance.destination, ports);
    clear(bucket::place(bucket, side ^ 1), glance.destination, glance.source, ports.rotate_left(16));
}

#[inline(always)]
fn clear<A: Copy + Eq>(place: *mut Place<A>, source: A, destination: A, ports: u32) {
    if bucket::is_between(place, source, destination) && low(read(place, 0)) == ports {
        write(place, 0, 0);
    }
}
