//! What is noted of a flow, and when that is void.
//!
//! One direction of a flow may be handled on several CPUs at once, and nothing here is locked or atomic: a lost
//! write costs a flow its promotion for a while (the counts then differ, and it starts anew), never a packet its way.

use core::mem::offset_of;

use aya_ebpf::programs::TcContext;
use minicni_common::{Direction, Flow, FlowState, Reason, fingerprint, names::REDIRECTED_TAG, tag};

use crate::{
    exit::Exit,
    header::Header,
    maps,
    parse::{Packet, sequence},
};

/// Packets of one direction that may be on their way through the stack at once; more count as lost.
const IN_FLIGHT: u64 = 64;
/// Packets of one direction after which a difference between notes and proofs is forgotten, see [`note`].
const WINDOW: u64 = 64;

pub const OBSERVED: u32 = FlowState::Observed as u32;
pub const PROMOTED: u32 = FlowState::Promoted as u32;
pub const CLOSING: u32 = FlowState::Closing as u32;

const NO_DIRECTION: Direction = Direction {
    noted_at: 0,
    generation: 0,
    in_ifindex: 0,
    out_ifindex: 0,
    noted: 0,
    proofs: 0,
    length: 0,
    next_hop_family: 0,
    class: 0,
    mark: 0,
    priority: 0,
    exit: [0; 16],
};

/// A flow of which nothing was seen, for [`begin`]. Not made on the stack, of which a program has 512 bytes. Under its plain
/// name, because a mangled one depends on the directory in which it is built.
#[unsafe(no_mangle)]
pub static UNSEEN: Flow = Flow { directions: [NO_DIRECTION; 2], generation: 0, state: OBSERVED, fingerprint: 0 };

/// Dates a flow in the map of which nothing was seen yet, and gives it its name.
#[inline(always)]
pub fn begin(flow: *mut Flow, hash: u64) {
    date(flow);
    // SAFETY: as in `direction`.
    unsafe { (*flow).fingerprint = fingerprint(hash) };
}

/// Dates a flow in the map.
#[inline(always)]
fn date(flow: *mut Flow) {
    // SAFETY: as in `direction`.
    unsafe { (*flow).generation = maps::global_generation() };
}

/// Whether a value of the map is, as read now, that of the flow with this hash.
#[inline(always)]
pub fn is_of(flow: *const Flow, hash: u64) -> bool {
    // SAFETY: as in `direction`.
    unsafe { (&raw const (*flow).fingerprint).read_volatile() == fingerprint(hash) }
}

/// One direction of a flow in the map.
#[inline(always)]
pub fn direction<'a>(flow: *mut Flow, index: u32) -> &'a mut Direction {
    // SAFETY: `flow` is a value of the flow map, which stays readable and writable for the run of the program even
    // when it is evicted, and the index is masked to the two directions.
    unsafe { &mut *(&raw mut (*flow).directions).cast::<Direction>().add(index as usize & 1) }
}

const _: () = assert!(offset_of!(Direction, exit).is_multiple_of(align_of::<u64>()));

/// How a direction leaves the host, in as few words as there are.
#[inline(always)]
fn exit(direction: &Direction) -> [u64; 2] {
    // SAFETY: the field is as long and, as asserted, aligned.
    unsafe { (&raw const direction.exit).cast::<[u64; 2]>().read() }
}

/// Where a direction leaves the host, as [`Direction`] has it.
pub struct WayOut {
    pub ifindex: u32,
    pub family: u16,
    pub mark: u32,
    pub priority: u32,
    pub exit: [u64; 2],
}

/// Where a direction in the map leaves the host, read now.
#[inline(always)]
pub fn way_out(direction: *const Direction) -> WayOut {
    // SAFETY: as in `direction` and `exit`.
    unsafe {
        WayOut {
            ifindex: (&raw const (*direction).out_ifindex).read_volatile(),
            family: (&raw const (*direction).next_hop_family).read_volatile(),
            mark: (&raw const (*direction).mark).read_volatile(),
            priority: (&raw const (*direction).priority).read_volatile(),
            exit: (&raw const (*direction).exit).cast::<[u64; 2]>().read_volatile(),
        }
    }
}

/// Where a direction in the map enters the host, read now.
#[inline(always)]
pub fn entrance(direction: *const Direction) -> u32 {
    // SAFETY: as in `direction`.
    unsafe { (&raw const (*direction).in_ifindex).read_volatile() }
}

/// Of an exit to a neighbour: the neighbour's address.
#[inline(always)]
pub fn next_hop(exit: [u64; 2]) -> [u32; 4] {
    // SAFETY: both are sixteen bytes in which any bit pattern is valid.
    unsafe { core::mem::transmute(exit) }
}

/// Remembers how a direction leaves the host.
#[inline(always)]
pub fn set_exit(direction: &mut Direction, exit: &Exit) {
    direction.next_hop_family = exit.family;
    direction.mark = exit.mark;
    direction.priority = exit.priority;
    // SAFETY: as in `exit`.
    unsafe { (&raw mut direction.exit).cast::<[u32; 4]>().write(exit.words) };
}

/// Whether a direction is remembered to leave the host so.
#[inline(always)]
pub fn leaves_by(direction: &Direction, exit: &Exit) -> bool {
    let ([one, two, three, four], words) = (next_hop(self::exit(direction)), exit.words);
    // By words, because a comparison of bytes becomes a call.
    direction.next_hop_family == exit.family
        && direction.mark == exit.mark
        && direction.priority == exit.priority
        && one == words[0]
        && two == words[1]
        && three == words[2]
        && four == words[3]
}

/// The state of a flow in the map, read now.
#[inline(always)]
pub fn state(flow: *const Flow) -> u32 {
    // SAFETY: as in `direction`.
    unsafe { (&raw const (*flow).state).read_volatile() }
}

/// Sets the state of a flow in the map.
#[inline(always)]
pub fn set_state(flow: *mut Flow, state: u32) {
    // SAFETY: as in `direction`.
    unsafe { (&raw mut (*flow).state).write_volatile(state) }
}

/// The global generation that a flow was noted under.
#[inline(always)]
pub fn generation(flow: *const Flow) -> u64 {
    // SAFETY: as in `direction`.
    unsafe { (*flow).generation }
}

/// Forgets all that was seen of a flow and gives it a state.
#[inline(always)]
pub fn restart(flow: *mut Flow, new_state: u32, now: u64) {
    if state(flow) == PROMOTED {
        maps::count(Reason::Demoted);
    }
    // Off the fast path first, then the rest.
    set_state(flow, new_state);
    // SAFETY: as in `direction`; both are made of whole words. One by one, because clearing them at once becomes a call, and
    // a call counts for a stack frame.
    unsafe {
        let words = (&raw mut (*flow).directions).cast::<u64>();
        for index in 0..size_of::<[Direction; 2]>() / size_of::<u64>() {
            words.add(index).write_volatile(0);
        }
    }
    direction(flow, 0).noted_at = now;
    date(flow);
}

/// As [`restart`], for a flow that is to prove itself again; one that is closing stays so.
#[inline(always)]
pub fn reset(flow: *mut Flow, now: u64) {
    restart(flow, if state(flow) == CLOSING { CLOSING } else { OBSERVED }, now);
}

/// Whether a flow of which a packet is seen now is closing. One that was silent for the idle limit is not any more: nobody may have
/// looked at the SYN of its next connection.
#[inline(always)]
pub fn is_closing(flow: *mut Flow, now: u64) -> bool {
    if state(flow) != CLOSING {
        return false;
    }
    if is_older(direction(flow, 0), maps::idle(), now) {
        restart(flow, OBSERVED, now);
        return false;
    }
    direction(flow, 0).noted_at = now;
    true
}

/// Whether a direction was noted more than so many jiffies ago. One that another CPU noted later than now was not; as numbers
/// with a sign, so that this costs no branch of its own.
#[inline(always)]
pub fn is_older(direction: &Direction, limit: u64, now: u64) -> bool {
    now.wrapping_sub(direction.noted_at).cast_signed() > limit.cast_signed()
}

/// Whether a packet of this direction that the stack has is overdue, or too many are.
#[inline(always)]
fn lost(direction: &Direction, now: u64) -> bool {
    let pending = direction.noted.wrapping_sub(direction.proofs);
    pending != 0 && (pending > IN_FLIGHT || is_older(direction, maps::grace(), now))
}

/// Whether what was noted of this direction no longer counts for a packet entering at `ifindex` now.
#[inline(always)]
pub fn void(flow: *const Flow, direction: &Direction, ifindex: u32, now: u64) -> bool {
    generation(flow) != maps::global_generation()
        || direction.noted != 0
            && (direction.in_ifindex != ifindex
                || direction.generation != maps::generation(ifindex)
                || is_older(direction, maps::idle(), now)
                || lost(direction, now))
}

/// Whether what was noted of the other direction is too old for a direction that begins now. While nothing of a flow is noted
/// nobody looks out for its twins: [`is_watched`](crate::sketch::is_watched).
#[inline(always)]
pub fn forgotten(direction: &Direction, other: &Direction, now: u64) -> bool {
    direction.noted == 0 && other.noted != 0 && is_older(other, maps::idle(), now)
}

/// Whether noting this direction is of no use for now: a window of packets was noted, and none of them proven. It is
/// translated or dropped, or leaves where nobody looks. After the grace time it is void, and tried again.
#[inline(always)]
pub fn rests(direction: &Direction, now: u64) -> bool {
    direction.noted >= WINDOW && direction.proofs == 0 && !is_older(direction, maps::grace(), now)
}

/// Whether packets of this class are of the DSCP that was proven of a direction. The bits of ECN, which queues set, make no
/// difference.
#[inline(always)]
pub fn is_of_class(direction: &Direction, class: u8) -> bool {
    (direction.class ^ u16::from(class)) & 0xfc == 0
}

/// Whether a promoted flow is none any more: another CPU cleared it while one promoted it.
#[inline(always)]
pub fn empty(direction: &Direction, other: &Direction) -> bool {
    direction.noted == 0 || other.noted == 0
}

/// Whether the interface at which this direction entered was withdrawn since.
#[inline(always)]
pub fn gone(direction: &Direction) -> bool {
    direction.noted != 0 && direction.generation != maps::generation(direction.in_ifindex)
}

/// Notes a packet that enters at `ifindex` and is handed to the stack, in its flow and on itself.
#[inline(always)]
pub fn note<H: Header>(
    ctx: &TcContext,
    packet: &Packet<H>,
    hash: u64,
    direction: &mut Direction,
    ifindex: u32,
    now: u64,
    promoted: bool,
) {
    // A packet that was dropped long ago, or a count that two CPUs wrote at once, must not keep a busy flow from its
    // promotion for good.
    if !promoted && direction.noted >= WINDOW && direction.noted != direction.proofs {
        direction.noted = 0;
        direction.proofs = 0;
    }
    if direction.noted == 0 {
        direction.in_ifindex = ifindex;
        direction.generation = maps::generation(ifindex);
    }
    // Of a promoted flow the oldest packet on the way counts: further ones must not put off the verdict on it.
    if !promoted || direction.noted == direction.proofs {
        direction.noted_at = now;
    }
    direction.noted += 1;
    tag_noted(ctx, packet, hash);
}

/// Tags a packet with what it entered as.
#[inline(always)]
pub fn tag_noted<H: Header>(ctx: &TcContext, packet: &Packet<H>, hash: u64) {
    let tag = tag(hash, packet.glance.key().1);
    if let Some(note) = noted::<H>(tag) {
        *note = H::note(packet, sequence(ctx, packet));
        set_tag(ctx, tag);
    }
}

/// Whether a packet that bears this tag, or none, entered the host as what it leaves as.
#[inline(always)]
pub fn entered_as<H: Header>(ctx: &TcContext, packet: &Packet<H>, tag: u16) -> bool {
    tag != 0 && noted::<H>(tag).is_some_and(|note| H::is_note(note, packet, sequence(ctx, packet)))
}

/// The note under a tag.
#[inline(always)]
fn noted<'a, H: Header>(tag: u16) -> Option<&'a mut H::Note> {
    // SAFETY: a value of an array stays where it is. Other CPUs may write it at the same time; a mixture of two notes is
    // a note of no packet, or of the right one.
    H::notes().get_ptr_mut(u32::from(tag)).map(|note| unsafe { &mut *note })
}

/// Takes off whatever tag a packet brings along: a pod may have traffic control of its own.
#[inline(always)]
pub fn untag(ctx: &TcContext) {
    set_tag(ctx, 0);
}

/// Marks a packet that is redirected to a neighbour, for `egress` at the uplink.
#[inline(always)]
pub fn tag_redirected(ctx: &TcContext) {
    set_tag(ctx, REDIRECTED_TAG);
}

/// Takes the tag off a packet; 0 of none.
#[inline(always)]
pub fn take_tag(ctx: &TcContext) -> u16 {
    // SAFETY: a read of the context, which the verifier checks.
    let tag = unsafe { (*ctx.skb.skb).tc_index as u16 };
    if tag != 0 {
        untag(ctx);
    }
    tag
}

/// `tc_index` is kept while the stack forwards a packet, and nothing but traffic control looks at it.
#[inline(always)]
fn set_tag(ctx: &TcContext, tag: u16) {
    // SAFETY: a write of the context that is open to classifiers: `tc_cls_act_is_valid_access` in net/core/filter.c.
    unsafe { (&raw mut (*ctx.skb.skb).tc_index).write_volatile(u32::from(tag)) };
}

/// Whether a packet of this direction is expected from the stack.
#[inline(always)]
pub fn expected(direction: &Direction, now: u64) -> bool {
    direction.noted != direction.proofs && !is_older(direction, maps::grace(), now)
}

/// Whether this direction has its proofs, and nothing that it noted is missing.
#[inline(always)]
pub fn proven(direction: &Direction) -> bool {
    direction.proofs >= maps::proofs() && direction.proofs == direction.noted
}
