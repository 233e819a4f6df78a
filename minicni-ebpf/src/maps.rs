//! The maps and load-time constants of the programs, and small accessors.

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use minicni_common::{
    Counters, Endpoint, Flow, FlowKey4, Note, Reason,
    names::{GENERATION_ENTRIES, GLOBAL_GENERATION, MAX_ENDPOINTS, MAX_FLOWS, NOTE_ENTRIES, slot},
};

#[btf_map]
pub static ENDPOINTS: HashMap<u32, Endpoint, { MAX_ENDPOINTS as usize }> = HashMap::new();

#[btf_map]
pub static FLOWS4: LruHashMap<FlowKey4, Flow, { MAX_FLOWS as usize }> = LruHashMap::new();

#[btf_map]
static NOTES: Array<Note, { NOTE_ENTRIES as usize }> = Array::new();

#[btf_map]
static GENERATIONS: Array<u64, { GENERATION_ENTRIES as usize }> = Array::new();

#[btf_map]
static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

#[unsafe(no_mangle)]
static PROOFS: Global<u64> = Global::new(8);
#[unsafe(no_mangle)]
static REFRESH: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static IDLE: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static GRACE: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static TCP: Global<u8> = Global::new(0);

/// Proofs that each direction needs.
#[inline(always)]
pub fn proofs() -> u64 {
    PROOFS.load()
}

/// Jiffies after which a promoted direction sends a packet through the stack.
#[inline(always)]
pub fn refresh() -> u64 {
    REFRESH.load()
}

/// Jiffies after which what was noted of a direction is void.
#[inline(always)]
pub fn idle() -> u64 {
    IDLE.load()
}

/// Jiffies that the stack may take to deliver a packet.
#[inline(always)]
pub fn grace() -> u64 {
    GRACE.load()
}

/// Whether TCP may be promoted.
#[inline(always)]
pub fn tcp() -> bool {
    TCP.load() != 0
}

/// The generation that counts for every flow.
#[inline(always)]
pub fn global_generation() -> u64 {
    GENERATIONS.get(GLOBAL_GENERATION).copied().unwrap_or_default()
}

/// The generation of an interface's slot.
#[inline(always)]
pub fn generation(ifindex: u32) -> u64 {
    GENERATIONS.get(slot(ifindex)).copied().unwrap_or_default()
}

/// The note under a tag.
#[inline(always)]
pub fn note<'a>(tag: u16) -> Option<&'a mut Note> {
    // SAFETY: a value of an array stays where it is. Other CPUs may write it at the same time; a mixture of two notes is
    // a note of no packet, or of the right one.
    NOTES.get_ptr_mut(u32::from(tag)).map(|note| unsafe { &mut *note })
}

/// Adds one to the counter of a reason on this CPU.
#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: `Counters` has one `u64` for each reason, in the order of the reasons, and the slot is this CPU's;
        // softirqs do not interrupt each other on one CPU.
        unsafe { *counters.cast::<u64>().add(reason as usize) += 1 };
    }
}
