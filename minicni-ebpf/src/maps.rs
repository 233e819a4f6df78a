//! The maps and load-time constants of the programs, and small accessors.

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap, PerCpuArray},
    macros::btf_map,
};
use minicni_common::{
    Bucket4, Bucket6, Counters, Endpoint, EndpointSlot, FlowKey4, FlowKey6, Note4, Note6, Reason,
    names::{ENDPOINT_SLOT_ENTRIES, EPOCH, GENERATION_ENTRIES, GLOBAL_GENERATION, MAX_ENDPOINTS, endpoint_slot, slot},
};

use crate::header::{Buckets, Flows, Notes};

#[btf_map]
pub static ENDPOINTS: HashMap<u32, Endpoint, { MAX_ENDPOINTS as usize }> = HashMap::new();

#[btf_map]
static ENDPOINT_SLOTS: Array<EndpointSlot, { ENDPOINT_SLOT_ENTRIES as usize }> = Array::new();

#[btf_map]
pub static FLOWS4: Flows<FlowKey4> = Flows::new();

#[btf_map]
pub static FLOWS6: Flows<FlowKey6> = Flows::new();

#[btf_map]
pub static BUCKETS4: Buckets<Bucket4> = Buckets::new();

#[btf_map]
pub static BUCKETS6: Buckets<Bucket6> = Buckets::new();

#[btf_map]
pub static NOTES4: Notes<Note4> = Notes::new();

#[btf_map]
pub static NOTES6: Notes<Note6> = Notes::new();

#[btf_map]
static GENERATIONS: Array<u64, { GENERATION_ENTRIES as usize }> = Array::new();

#[btf_map]
static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

#[unsafe(no_mangle)]
static PROOFS: Global<u64> = Global::new(8);
#[unsafe(no_mangle)]
static SKIPPED: Global<u32> = Global::new(0);
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

/// Packets of a tuple that are only counted, before a flow begins with the next one.
#[inline(always)]
pub fn skipped() -> u32 {
    SKIPPED.load()
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

/// What changes after any generation does.
#[inline(always)]
pub fn epoch() -> u32 {
    GENERATIONS.get(EPOCH).map_or(0, |epoch| *epoch as u32)
}

/// The generation of an interface's slot.
#[inline(always)]
pub fn generation(ifindex: u32) -> u64 {
    GENERATIONS.get(slot(ifindex)).copied().unwrap_or_default()
}

/// What an interface is; `None` where nobody has entered it.
#[inline(always)]
pub fn endpoint<'a>(ifindex: u32) -> Option<&'a Endpoint> {
    // SAFETY: an entry that is deleted meanwhile belongs to an interface that is being deleted or given up.
    endpoint_in_slot(ifindex).or_else(|| unsafe { ENDPOINTS.get(ifindex) })
}

/// As [`endpoint`], of those that are found without a search: nearly all.
#[inline(always)]
pub fn endpoint_in_slot<'a>(ifindex: u32) -> Option<&'a Endpoint> {
    let slot = ENDPOINT_SLOTS.get_ptr(endpoint_slot(ifindex))?;
    // SAFETY: a value of an array stays where it is, and any bit pattern is valid. Before its endpoint changes it is nobody's:
    // `Endpoints` in minicni-user.
    unsafe { ((&raw const (*slot).ifindex).read_volatile() == ifindex).then(|| &(*slot).endpoint) }
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
