//! What is known of flows by their hash alone.
//!
//! Two flows may share a bucket, and CPUs write it at once. That makes a flow begin sooner or later than it would, or
//! the cache be asked in vain; it proves nothing and hides no twin.

use crate::maps;

/// Fields of [`newcomer`](minicni_common::Bucket::newcomer).
const COUNT: u32 = 0xf;
const TURN: u32 = 0x10;
const TURNS: u32 = 0xf0;
const TUPLE: u32 = !0xff;

/// Counts a packet that has no flow, and says whether a flow should begin with it.
///
/// Most connections are short, and end before. Where packets of several tuples meet in a bucket, one takes the place of the
/// other; each sixteenth that does begins a flow at once, so that they do not keep each other out for good.
#[inline(always)]
pub fn is_due(hash: u64) -> bool {
    let Some(bucket) = maps::sketch(hash) else { return false };
    // SAFETY: a value of an array stays where it is, and any bit pattern is valid.
    let newcomer = unsafe { (&raw const (*bucket).newcomer).read_volatile() };
    // Of the hash what is not in the index of the bucket, and never 0 as a whole because a count of packets is beside it.
    let tuple = (hash >> 20) as u32 & TUPLE;
    let (due, next) = if newcomer & TUPLE == tuple {
        let due = newcomer & COUNT >= maps::skipped();
        (due, if due { newcomer } else { newcomer + 1 })
    } else {
        let turns = if newcomer == 0 { 0 } else { (newcomer + TURN) & TURNS };
        (newcomer != 0 && turns == 0 || maps::skipped() == 0, tuple | turns | 1)
    };
    if next != newcomer {
        // SAFETY: as above.
        unsafe { (&raw mut (*bucket).newcomer).write_volatile(next) };
    }
    due
}

/// Has the cache asked about packets that leave with the tuple of a flow that has proofs.
#[inline(always)]
pub fn watch(hash: u64, now: u64) {
    if let Some(bucket) = maps::sketch(hash) {
        // SAFETY: as in `is_due`.
        unsafe { (&raw mut (*bucket).watched_at).write_volatile(now as u32) };
    }
}

/// Whether a flow in this bucket may have proofs that still count.
///
/// A direction that was not noted for the idle limit is void when it is noted next, and a promoted flow is not redirected
/// for longer than the refresh time without being noted. Each time that is written here. Twice the limit leaves
/// room for a packet that the stack delivers late.
#[inline(always)]
pub fn is_watched(hash: u64, now: u64) -> bool {
    let Some(bucket) = maps::sketch(hash) else { return true };
    // SAFETY: as in `is_due`.
    let watched_at = unsafe { (&raw const (*bucket).watched_at).read_volatile() };
    u64::from((now as u32).wrapping_sub(watched_at)) <= 2 * maps::idle()
}
