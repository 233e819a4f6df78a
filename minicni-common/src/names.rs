//! Names and sizes that both sides of the maps must agree on.

/// The version of everything pinned: the shape of the maps and what the programs make of them.
///
/// It is the name of the directory below `bpfDir` that holds the pins, so that two versions never share a map.
pub const LAYOUT_VERSION: &str = "v7";

/// A map of the eBPF object and the name under which it is pinned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MapName {
    /// The symbol in the object, at most 15 bytes, because the kernel keeps no more.
    pub symbol: &'static str,
    /// The file name below the pin directory.
    pub pin: &'static str,
}

/// What an interface is: `u32` interface index -> [`Endpoint`](crate::Endpoint).
pub const ENDPOINTS: MapName = MapName { symbol: "ENDPOINTS", pin: "endpoints" };
/// The same, found faster: `u32` [`endpoint_slot`] -> [`EndpointSlot`](crate::EndpointSlot).
pub const ENDPOINT_SLOTS: MapName = MapName { symbol: "ENDPOINT_SLOTS", pin: "endpoint_slots" };
/// The IPv4 flow cache: [`FlowKey4`](crate::FlowKey4) -> [`Flow`](crate::Flow), least recently used goes first.
pub const FLOWS4: MapName = MapName { symbol: "FLOWS4", pin: "flows4" };
/// The IPv6 flow cache: [`FlowKey6`](crate::FlowKey6) -> [`Flow`](crate::Flow), as [`FLOWS4`].
pub const FLOWS6: MapName = MapName { symbol: "FLOWS6", pin: "flows6" };
/// Generations, `u64` each: index 0 counts for every flow, the others are the slots of [`slot`], the last is the [`EPOCH`].
pub const GENERATIONS: MapName = MapName { symbol: "GENERATIONS", pin: "generations" };
/// What IPv4 packets on their way through the stack entered as: `u32` tag -> [`Note4`](crate::Note4).
pub const NOTES4: MapName = MapName { symbol: "NOTES4", pin: "notes4" };
/// What IPv6 packets on their way through the stack entered as: `u32` tag -> [`Note6`](crate::Note6).
pub const NOTES6: MapName = MapName { symbol: "NOTES6", pin: "notes6" };
/// What is found of IPv4 flows by their hash: `u32` [`bucket`] -> [`Bucket4`](crate::Bucket4).
pub const BUCKETS4: MapName = MapName { symbol: "BUCKETS4", pin: "buckets4" };
/// What is found of IPv6 flows by their hash: `u32` [`bucket`] -> [`Bucket6`](crate::Bucket6).
pub const BUCKETS6: MapName = MapName { symbol: "BUCKETS6", pin: "buckets6" };
/// One [`Counters`](crate::Counters) per CPU, at index 0.
pub const COUNTERS: MapName = MapName { symbol: "COUNTERS", pin: "counters" };
/// The ring buffer of aya-log; written only by programs that were loaded with a log level.
pub const LOGS: MapName = MapName { symbol: "AYA_LOGS", pin: "logs" };

/// Every map of the object.
pub const MAPS: [MapName; 11] =
    [ENDPOINTS, ENDPOINT_SLOTS, FLOWS4, FLOWS6, BUCKETS4, BUCKETS6, NOTES4, NOTES6, GENERATIONS, COUNTERS, LOGS];

/// The program for packets that enter the host; also the name of its pin.
pub const INGRESS: &str = "ingress";
/// The program for packets that the stack delivers; also the name of its pin.
pub const EGRESS: &str = "egress";

/// Interfaces that the endpoint map has room for.
pub const MAX_ENDPOINTS: u32 = 16_384;
/// Flows of each address family that the cache has room for; one more evicts the least recently used.
pub const MAX_FLOWS: u32 = 65_536;

/// Bits of a tag. Two packets in the stack at once that share a tag cost the first its proof, and its flow a new
/// beginning at most.
pub const NOTE_BITS: u32 = 12;
/// Entries of [`NOTES4`] and of [`NOTES6`]; 0 is no tag.
pub const NOTE_ENTRIES: u32 = 1 + (1 << NOTE_BITS);
/// The tag of what was redirected to a neighbour, which passes the egress hook of its uplink once more. No note has it.
pub const REDIRECTED_TAG: u16 = u16::MAX;

const _: () = assert!(NOTE_ENTRIES <= REDIRECTED_TAG as u32);

/// Bits of the index of a bucket.
pub const BUCKET_BITS: u32 = 14;
/// Entries of [`BUCKETS4`] and of [`BUCKETS6`].
pub const BUCKETS: u32 = 1 << BUCKET_BITS;

/// The index in [`BUCKETS4`] or [`BUCKETS6`] for the hash of a flow.
#[must_use]
pub const fn bucket(hash: u64) -> u32 {
    (hash >> (u64::BITS - BUCKET_BITS)) as u32
}

/// Entries of [`ENDPOINT_SLOTS`], a power of two.
pub const ENDPOINT_SLOT_ENTRIES: u32 = 4_096;

/// The index in [`ENDPOINT_SLOTS`] that an interface may have.
#[must_use]
pub const fn endpoint_slot(ifindex: u32) -> u32 {
    ifindex & (ENDPOINT_SLOT_ENTRIES - 1)
}

/// Slots for the generations of interfaces, a power of two.
pub const GENERATION_SLOTS: u32 = 4_096;
/// Entries of [`GENERATIONS`]: the global one, the slots and the epoch.
pub const GENERATION_ENTRIES: u32 = GENERATION_SLOTS + 2;
/// The index in [`GENERATIONS`] of what changes after any other of them.
pub const EPOCH: u32 = GENERATION_ENTRIES - 1;
/// The index in [`GENERATIONS`] that counts for every flow.
pub const GLOBAL_GENERATION: u32 = 0;

/// The index in [`GENERATIONS`] for an interface.
///
/// Two interfaces may share a slot. Then a bump for one makes the flows of the other prove themselves again,
/// which costs them a few packets through the stack and nothing else, so slots need no bookkeeping.
#[must_use]
pub const fn slot(ifindex: u32) -> u32 {
    1 + (ifindex & (GENERATION_SLOTS - 1))
}

/// Load-time constants of the programs, by symbol. Times are in jiffies, the kernel's clock ticks
/// (`CLOCK_MONOTONIC_COARSE` has the resolution of one), because reading them costs one load.
pub mod constants {
    /// `u64`: proofs that each direction needs before its flow is promoted.
    pub const PROOFS: &str = "PROOFS";
    /// `u32`: packets of a tuple that are only counted, before a flow begins with the next one. At most 15.
    pub const SKIPPED: &str = "SKIPPED";
    /// `u64` jiffies: a direction of a promoted flow sends one packet through the stack this often.
    pub const REFRESH: &str = "REFRESH";
    /// `u64` jiffies: a direction that did not cross the stack for so long starts from nothing. At most [`MAX_IDLE`].
    pub const IDLE: &str = "IDLE";
    /// Jiffies, nine minutes where they are shortest.
    pub const MAX_IDLE: u32 = 1 << 19;
    /// `u64` jiffies: how long the stack may hold a packet before it counts as gone.
    pub const GRACE: &str = "GRACE";
    /// `u8`: 1 where TCP may be promoted, 0 where conntrack would reject its end (`nf_conntrack_tcp_be_liberal`).
    pub const TCP: &str = "TCP";
}
