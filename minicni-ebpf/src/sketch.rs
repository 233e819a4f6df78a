//! What is known of flows by their hash alone.
//!
//! Two flows may share a bucket, and CPUs write it at once. That makes a flow begin sooner or later than it would, leaves one in
//! the stack for a while, or has the cache asked in vain; it proves nothing and hides no twin.

use minicni_common::{Sketch, fingerprint, names::constants::MAX_IDLE};

use crate::maps;

/// Fields of [`newcomer`](minicni_common::Sketch::newcomer).
const COUNT: u32 = 0xf;
const TURN: u32 = 0x10;
const TURNS: u32 = 0xff0;
const TUPLE: u32 = !0xfff;

/// Counts a packet that has no flow, and says whether a flow should begin with it.
///
/// Most connections are short, and end before. Where packets of several tuples meet in a bucket, one takes the place of the
/// other; each 255th that does begins a flow at once, so that they do not keep each other out for good. An odd number, because two
/// take turns.
#[inline(always)]
pub fn is_due(sketch: *mut Sketch, hash: u64) -> bool {
    // SAFETY: a value of an array stays where it is, and any bit pattern is valid.
    let newcomer = unsafe { (&raw const (*sketch).newcomer).read_volatile() };
    let tuple = fingerprint(hash) & TUPLE;
    let (due, next) = if newcomer & TUPLE == tuple {
        let due = newcomer & COUNT >= maps::skipped();
        (due, if due { newcomer } else { newcomer + 1 })
    } else {
        let turns = if newcomer == 0 { 0 } else { (newcomer + TURN) & TURNS };
        let due = turns == TURNS;
        (due || maps::skipped() == 0, tuple | if due { 0 } else { turns } | 1)
    };
    if next != newcomer {
        // SAFETY: as above.
        unsafe { (&raw mut (*sketch).newcomer).write_volatile(next) };
    }
    due
}

/// Counts packets of a tuple from the beginning, because a connection begins or ends. Clients use their ports again, and short
/// connections one after the other would begin a flow as a long one does.
#[inline(always)]
pub fn recount(sketch: *mut Sketch, hash: u64) {
    // SAFETY: as in `is_due`.
    let newcomer = unsafe { (&raw const (*sketch).newcomer).read_volatile() };
    if (newcomer ^ fingerprint(hash)) & TUPLE == 0 {
        // SAFETY: as above.
        unsafe { (&raw mut (*sketch).newcomer).write_volatile(newcomer & !COUNT) };
    }
}

/// Has the cache asked about packets that enter with the tuple of a flow that it has.
#[inline(always)]
pub fn note(sketch: *mut Sketch, now: u64) {
    // SAFETY: as in `is_due`.
    unsafe { (&raw mut (*sketch).noted_until).write_volatile(time(now + maps::idle())) };
}

/// Whether a flow in this bucket may have been noted within the idle limit. One that was not is not redirected, and what was
/// noted of it is void.
#[inline(always)]
pub fn is_noted(sketch: *const Sketch, now: u64) -> bool {
    // SAFETY: as in `is_due`.
    is_yet_to_come(unsafe { (&raw const (*sketch).noted_until).read_volatile() }, now)
}

/// Has the cache not asked about a direction that [rests](crate::flow::rests), enters at `ifindex` and was last noted at a time.
#[inline(always)]
pub fn rest(sketch: *mut Sketch, hash: u64, ifindex: u32, noted_at: u64) {
    // SAFETY: as in `is_due`.
    unsafe {
        (&raw mut (*sketch).rests_until).write_volatile(time(noted_at + maps::grace()));
        (&raw mut (*sketch).rests_at).write_volatile(ifindex);
        (&raw mut (*sketch).resting).write_volatile(fingerprint(hash));
    }
}

/// Whether a direction that enters at `ifindex` rests.
#[inline(always)]
pub fn rests(sketch: *const Sketch, hash: u64, ifindex: u32, now: u64) -> bool {
    // SAFETY: as in `is_due`.
    unsafe {
        (&raw const (*sketch).resting).read_volatile() == fingerprint(hash)
            && (&raw const (*sketch).rests_at).read_volatile() == ifindex
            && is_yet_to_come((&raw const (*sketch).rests_until).read_volatile(), now)
    }
}

/// Has the cache asked about packets that leave with the tuple of a flow that has proofs.
#[inline(always)]
pub fn watch(sketch: *mut Sketch, now: u64) {
    // SAFETY: as in `is_due`.
    unsafe { (&raw mut (*sketch).watched_until).write_volatile(time(now + maps::idle())) };
}

/// Whether a flow in this bucket may have proofs that still count.
///
/// What was proven of a flow of which nothing was noted for the idle limit is void when it is noted next, and before that it is not
/// redirected. Each note and each proof is written here.
#[inline(always)]
pub fn is_watched(sketch: *const Sketch, now: u64) -> bool {
    // SAFETY: as in `is_due`.
    is_yet_to_come(unsafe { (&raw const (*sketch).watched_until).read_volatile() }, now) && is_noted(sketch, now)
}

/// A time as a bucket has it. Nothing, 0, is as far away from when jiffies begin, five minutes before they are 0, as can be.
#[inline(always)]
fn time(jiffies: u64) -> u32 {
    (jiffies as u32).wrapping_add(1 << 31)
}

/// Whether a time is not over. What is over for long passes for new again, once in months, for as many jiffies.
#[inline(always)]
fn is_yet_to_come(until: u32, now: u64) -> bool {
    until.wrapping_sub(time(now)) < 2 * MAX_IDLE
}
