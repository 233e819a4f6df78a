//! The flow cache: what was seen of a flow, in both directions.

#![expect(clippy::inline_always, reason = "a call would cost the eBPF programs the inlining of everything around it")]

use bytemuck::{Pod, Zeroable};

use crate::names::{BUCKET_BITS, NOTE_BITS};

/// The normalised 5-tuple of an IPv4 TCP or UDP flow: both directions have the same key.
///
/// The two ends are ordered by (address, port) as the machine loads them; the *direction* of a packet is 0 when its
/// source is the first end and 1 when it is the second.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Pod, Zeroable)]
pub struct FlowKey4 {
    /// Addresses of the two ends, network byte order.
    pub addresses: [[u8; 4]; 2],
    /// Ports of the two ends, host byte order, so that a dump of the map shows them as people write them.
    pub ports: [u16; 2],
    /// 6 for TCP, 17 for UDP.
    pub protocol: u32,
}

const _: () = assert!(size_of::<FlowKey4>() == 16);

/// As [`FlowKey4`], of an IPv6 flow.
///
/// A key of its own, because the hash of a key costs by its length.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Pod, Zeroable)]
pub struct FlowKey6 {
    /// Addresses of the two ends, network byte order.
    pub addresses: [[u8; 16]; 2],
    /// Ports of the two ends, host byte order.
    pub ports: [u16; 2],
    /// 6 for TCP, 17 for UDP.
    pub protocol: u32,
}

const _: () = assert!(size_of::<FlowKey6>() == 40);

impl FlowKey4 {
    /// The key of a packet with this source and destination, and its direction (0 or 1). Addresses are as the machine
    /// loads them from the packet, ports in host byte order.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "an end is made of an address and a port")]
    pub fn new(source: (u32, u16), destination: (u32, u16), protocol: u8) -> (Self, u32) {
        let (source, destination) = (end(source.0, source.1), end(destination.0, destination.1));
        // Without a branch, which would be mispredicted again and again where packets go both ways by turns. Both are shorter
        // than a word, so all bits above them are set in the difference if the source is greater. Not the last of these, by
        // which a compiler knows a comparison and makes a branch of it.
        let swapped = destination.wrapping_sub(source) >> END_BITS & 1;
        let difference = (source ^ destination) & swapped.wrapping_neg();
        let (first, second) = (source ^ difference, destination ^ difference);
        let ports = [u16::from_be(first as u16), u16::from_be(second as u16)];
        // Of whole words, as those who look for the key read it: a load from what several stores wrote waits for all of them.
        let key = [(first >> 16) as u32, (second >> 16) as u32, bytemuck::cast(ports), u32::from(protocol)];
        (bytemuck::cast(key), swapped as u32)
    }

    /// For [`tag`] and [`bucket`](crate::names::bucket): the same for packets of both directions, and cheaper to have than their key. Ends are as in
    /// [`Self::new`].
    #[must_use]
    #[inline(always)]
    pub const fn hash(source: (u32, u16), destination: (u32, u16), protocol: u8) -> u64 {
        mix(end(source.0, source.1), end(destination.0, destination.1), protocol)
    }

    /// 0 or 1, of packets of the other direction the other.
    #[must_use]
    #[inline(always)]
    pub const fn side(source: (u32, u16), destination: (u32, u16)) -> u32 {
        (end(destination.0, destination.1).wrapping_sub(end(source.0, source.1)) >> END_BITS & 1) as u32
    }
}

impl FlowKey6 {
    /// As [`FlowKey4::new`].
    #[must_use]
    #[inline(always)]
    pub const fn new(source: (u128, u16), destination: (u128, u16), protocol: u8) -> (Self, u32) {
        let swapped = source.0 > destination.0 || source.0 == destination.0 && source.1 > destination.1;
        let (first, second) = if swapped { (destination, source) } else { (source, destination) };
        let addresses = [first.0.to_ne_bytes(), second.0.to_ne_bytes()];
        (Self { addresses, ports: [first.1, second.1], protocol: protocol as u32 }, swapped as u32)
    }

    /// As [`FlowKey4::hash`].
    #[must_use]
    #[inline(always)]
    pub const fn hash(source: (u128, u16), destination: (u128, u16), protocol: u8) -> u64 {
        mix(fold(source.0, source.1), fold(destination.0, destination.1), protocol)
    }

    /// As [`FlowKey4::side`].
    #[must_use]
    #[inline(always)]
    pub const fn side(source: (u128, u16), destination: (u128, u16)) -> u32 {
        // Not by what `fold` makes of them, which is the same of some: the addresses of a flow that is promoted differ.
        (source.0 > destination.0) as u32
    }
}

/// Bits of an [`end`].
const END_BITS: u32 = u32::BITS + u16::BITS;

/// An end of an IPv4 flow as one word. The port as the machine loads it, because turning its bytes around costs.
#[inline(always)]
const fn end(address: u32, port: u16) -> u64 {
    (address as u64) << 16 | port.to_be() as u64
}

/// An end of an IPv6 flow as one word that depends on all of its bits. Lowest, where [`mix`] makes the most of them, are the last
/// bytes of the interface's half, by which pods of a node differ, and the port; in the middle those of the subnet.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "both halves count")]
const fn fold(address: u128, port: u16) -> u64 {
    let (net, interface) = (address as u64, (address >> 64) as u64);
    u64::from_be(interface) ^ u64::from_be(net).rotate_left(32) ^ (port.to_be() as u64) << 16
}

/// The golden ratio of 2^64, and odd. The upper bits of a product depend on all bits of its factors.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// An odd number for an end, of which no bit but the uppermost is lost.
#[inline(always)]
const fn odd(end: u64) -> u64 {
    end << 1 ^ FACTOR
}

/// The upper half of the result depends on all bits. Of two ends it is the same either way around.
///
/// A product with an odd number is another for each other factor. So of one end and a protocol the result tells all other ends
/// apart that [`odd`] does; with an even number, which ends in so many zeros, as many bits of the other end would be lost.
#[inline(always)]
const fn mix(one: u64, other: u64, protocol: u8) -> u64 {
    let product = odd(one).wrapping_mul(odd(other));
    (product ^ product >> 32 ^ protocol as u64).wrapping_mul(FACTOR)
}

/// The tag that a packet bears on its way through the stack, by the hash of its key and its direction: its index in the map
/// of [`Note4`]s or [`Note6`]s, never 0.
#[must_use]
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a tag is shorter, and a direction one bit")]
pub const fn tag(hash: u64, direction: u32) -> u16 {
    1 + ((hash >> (u64::BITS - NOTE_BITS)) as u16 ^ direction as u16 & 1)
}

/// What tells the flows of one bucket apart: of the hash what is not in the bucket's index.
#[must_use]
#[inline(always)]
pub const fn fingerprint(hash: u64) -> u32 {
    (hash << BUCKET_BITS >> 32) as u32
}

/// What is known of all the flows whose hash is that of one bucket, [`Bucket4`] or [`Bucket6`].
///
/// It decides nothing but how soon a flow begins, and whether the cache is asked at all about a packet. Times are the lower halves
/// of jiffies, and half their range more.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct Sketch {
    /// The tuple whose packets are counted before a flow begins with it: 20 bits of its [`fingerprint`]; how often a tuple took
    /// the place of another, 8 bits; its packets so far, or since the last SYN, FIN or RST, 4 bits. 0 of none.
    pub newcomer: u32,
    /// Until when a flow that the cache has may be redirected, or what it noted may count.
    pub noted_until: u32,
    /// Until when what was proven of a flow may count.
    pub watched_until: u32,
    /// The [`fingerprint`] of a flow of which a direction rests.
    pub resting: u32,
    /// The interface at which that direction enters. Nobody else's packets rest with it then, who may have chosen them to look
    /// like its.
    pub rests_at: u32,
    /// Until when it rests.
    pub rests_until: u32,
}

const _: () = assert!(size_of::<Sketch>() == 24);

/// What a packet was when it entered the host, found by the tag that it bears (`skb->tc_index`).
///
/// Without it, a translated packet could pass for one that entered as it leaves: conntrack keeps a translated and a direct
/// flow between the same ports apart by changing the port of the later one, so what leaves as one may have entered as the
/// other. And a rule may change more than addresses and ports (DSCP, the hop limit, TCP's sequence numbers), which the fast
/// path would not do.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct Note4 {
    /// The flow.
    pub key: FlowKey4,
    /// The direction, 0 or 1.
    pub direction: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub class: u8,
    /// TCP's sequence number, network byte order: `SYNPROXY` shifts it in one of the directions. 0 of UDP.
    pub sequence: u32,
}

const _: () = assert!(size_of::<Note4>() == 24);

/// As [`Note4`], of an IPv6 packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct Note6 {
    /// The flow.
    pub key: FlowKey6,
    /// The direction, 0 or 1.
    pub direction: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Type of service or traffic class.
    pub class: u8,
    /// As in [`Note4`].
    pub sequence: u32,
}

const _: () = assert!(size_of::<Note6>() == 48);

/// One direction of a flow: where it enters the host, and where the stack was seen to deliver it, unchanged.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct Direction {
    /// Jiffies at which a packet was last handed to the stack; of a promoted flow with packets on the way, the first of
    /// these.
    pub noted_at: u64,
    /// The generation of `in_ifindex`'s slot when this direction was first noted.
    pub generation: u64,
    /// Packets handed to the stack.
    pub noted: u64,
    /// Packets that entered with this 5-tuple and that the stack delivered with it. Equal to `noted` unless some are on the way,
    /// or were dropped, or translated.
    pub proofs: u64,
    /// The interface at which the packets enter.
    pub in_ifindex: u32,
    /// The interface at which the stack delivered them.
    pub out_ifindex: u32,
    /// The largest frame delivered since the last refresh began, or that refresh (bytes on the wire of one segment); a larger
    /// one goes through the stack, which alone knows the MTU of the path.
    pub length: u32,
    /// 0 of packets for a pod. Of packets for an uplink's neighbour the family of its address: 2 (`AF_INET`) or 10
    /// (`AF_INET6`).
    pub next_hop_family: u16,
    /// The type of service or traffic class of the packets that proved it; of another DSCP, others may be treated otherwise.
    pub class: u16,
    /// For an uplink: the mark with which the stack sent the packets (`skb->mark`), by which its queueing discipline may go.
    pub mark: u32,
    /// For an uplink: the priority that the stack gave them (`skb->priority`).
    pub priority: u32,
    /// For a pod: the Ethernet destination and source that the stack wrote. For a neighbour: its address, in network byte
    /// order. Filled up with zeros.
    pub exit: [u8; 16],
}

const _: () = assert!(size_of::<Direction>() == 72);

/// What the fast path has to know of one direction of a promoted flow, in few cache lines and found without a search.
///
/// A copy: whatever happens to the flow takes it away, except that the cache evicts it. Its time is over when the next packet has to
/// go through the stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct Shortcut {
    /// Source and destination port, network byte order.
    pub ports: [u16; 2],
    /// The interface at which the packets enter.
    pub in_ifindex: u32,
    /// As in [`Direction`].
    pub out_ifindex: u32,
    /// As in [`Direction`].
    pub length: u32,
    /// Until when it counts: the lower half of jiffies.
    pub until: u32,
    /// The epoch in which it was made.
    pub epoch: u32,
    /// As in [`Direction`].
    pub mark: u32,
    /// As in [`Direction`].
    pub priority: u32,
    /// As in [`Direction`].
    pub exit: [u8; 16],
    /// 6 for TCP, 17 for UDP.
    pub protocol: u8,
    /// As in [`Direction`].
    pub class: u8,
    /// As in [`Direction`].
    pub next_hop_family: u16,
    /// Of all that is above, and the hash of the tuple, which has the addresses in it.
    pub sum: u32,
}

const _: () = assert!(size_of::<Shortcut>() == 56);

/// A [`Shortcut`] of IPv4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct Shortcut4 {
    /// Source and destination, network byte order.
    pub addresses: [[u8; 4]; 2],
    /// Everything else.
    pub shortcut: Shortcut,
}

/// A [`Shortcut`] of IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct Shortcut6 {
    /// Source and destination, network byte order.
    pub addresses: [[u8; 16]; 2],
    /// Everything else.
    pub shortcut: Shortcut,
}

/// What is found of IPv4 flows by their hash, without a search.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct Bucket4 {
    /// Of all of them.
    pub sketch: Sketch,
    /// One for each direction, of one of them or of two.
    pub shortcuts: [Shortcut4; 2],
}

const _: () = assert!(size_of::<Bucket4>() == 152);

/// As [`Bucket4`], of IPv6 flows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct Bucket6 {
    /// Of all of them.
    pub sketch: Sketch,
    /// One for each direction, of one of them or of two.
    pub shortcuts: [Shortcut6; 2],
}

const _: () = assert!(size_of::<Bucket6>() == 200);

/// The value of the flow cache.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct Flow {
    /// By direction, see [`FlowKey4`].
    pub directions: [Direction; 2],
    /// The global generation when the flow was first noted.
    pub generation: u64,
    /// One of [`FlowState`], as a number.
    pub state: u32,
    /// The [`fingerprint`] of its key. The kernel gives the place of an evicted flow to another at once, also while somebody reads it.
    pub fingerprint: u32,
}

const _: () = assert!(size_of::<Flow>() == 160);

/// How far a flow got.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum FlowState {
    /// Its packets go through the stack, which is watched.
    Observed = 0,
    /// Both directions are proven: its packets are redirected.
    Promoted = 1,
    /// A FIN or RST was seen, where its direction enters: the stack has it until a SYN starts anew, or nothing was seen for the idle
    /// limit, so that conntrack sees the end. `noted_at` of the first direction says when something was.
    Closing = 2,
}

impl FlowState {
    /// The state behind the number in [`Flow::state`].
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Observed),
            1 => Some(Self::Promoted),
            2 => Some(Self::Closing),
            _ => None,
        }
    }
}
