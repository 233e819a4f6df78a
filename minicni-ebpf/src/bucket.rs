//! What is found of flows by their hash, without a search: a sketch of all that share a bucket, and places for two shortcuts.

use minicni_common::{Bucket4, Bucket6, Shortcut, Sketch, names};

use crate::header::Header;

/// A bucket of either family. Packed to what a value of a map is aligned to; `u128` would ask for more.
#[repr(C, packed(8))]
pub struct Bucket<A> {
    sketch: Sketch,
    places: [Place<A>; 2],
}

const _: () = assert!(size_of::<Bucket<u32>>() == size_of::<Bucket4>());
const _: () = assert!(size_of::<Bucket<u128>>() == size_of::<Bucket6>());

/// The place of a shortcut: addresses as the machine loads them, and a [`Shortcut`] in words.
#[repr(C, packed(8))]
pub struct Place<A> {
    source: A,
    destination: A,
    words: [u64; size_of::<Shortcut>() / size_of::<u64>()],
}

/// The bucket for the hash of a flow; always there.
#[inline(always)]
pub fn find<H: Header>(hash: u64) -> Option<*mut Bucket<H::Address>> {
    Some(H::buckets().get_ptr_mut(names::bucket(hash))?.cast())
}

/// What is known of all flows of a bucket.
#[inline(always)]
pub fn sketch<A>(bucket: *mut Bucket<A>) -> *mut Sketch {
    // SAFETY: the address of a field of a value of an array, which stays where it is.
    unsafe { &raw mut (*bucket).sketch }
}

/// The place for the shortcut of one direction, 0 or 1.
#[inline(always)]
pub fn place<A>(bucket: *mut Bucket<A>, side: u32) -> *mut Place<A> {
    // SAFETY: as in `sketch`; the index is masked to the two places.
    unsafe { (&raw mut (*bucket).places).cast::<Place<A>>().add(side as usize & 1) }
}

/// Source and destination of a place, one after the other.
#[inline(always)]
pub fn addresses<A>(place: *const Place<A>) -> *const A {
    place.cast()
}

/// Whether a place is that of packets from one address to another.
#[inline(always)]
pub fn is_between<A: Copy + Eq>(place: *const Place<A>, source: A, destination: A) -> bool {
    // SAFETY: a value of an array stays where it is, and any bit pattern is valid.
    unsafe {
        (&raw const (*place).source).read_volatile() == source
            && (&raw const (*place).destination).read_volatile() == destination
    }
}

/// Makes a place that of packets from one address to another.
#[inline(always)]
pub fn set_between<A>(place: *mut Place<A>, source: A, destination: A) {
    // SAFETY: as in `is_between`.
    unsafe {
        (&raw mut (*place).source).write_volatile(source);
        (&raw mut (*place).destination).write_volatile(destination);
    }
}

/// Reads a word of a place.
#[inline(always)]
pub fn read<A>(place: *const Place<A>, index: usize) -> u64 {
    // SAFETY: as in `is_between`, and there are so many words wherever this is called.
    unsafe { (&raw const (*place).words).cast::<u64>().add(index).read_volatile() }
}

/// Writes a word of a place.
#[inline(always)]
pub fn write<A>(place: *mut Place<A>, index: usize, word: u64) {
    // SAFETY: as in `read`.
    unsafe { (&raw mut (*place).words).cast::<u64>().add(index).write_volatile(word) }
}
