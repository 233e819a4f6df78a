//! Many entries of a hash map by one system call (`BPF_MAP_LOOKUP_BATCH`, Linux 5.6), which aya does not have.
//!
//! One by one, 65,536 flows are 131,072 calls, and an entry that goes while it is looked at sends the walk back to the
//! beginning. A batch walks the buckets.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use bytemuck::{Pod, Zeroable};
use nix::errno::Errno;

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd`.
const LOOKUP_BATCH: libc::c_long = 24;
/// How many entries to ask for at once. It must be more than a bucket has.
const ENTRIES: u32 = 1024;

/// `batch` of `union bpf_attr`, see <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/bpf.h>.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Shows every value of a hash map once, as far as entries do not come and go meanwhile. `K` and `V` must have the sizes
/// that the map was made with.
pub(super) fn each_value<K: Pod, V: Pod>(map: BorrowedFd<'_>, mut show: impl FnMut(&V)) -> io::Result<()> {
    let mut keys = vec![K::zeroed(); ENTRIES as usize];
    let mut values = vec![V::zeroed(); ENTRIES as usize];
    // The number of a bucket, to go on from.
    let mut position = 0_u32;
    let mut first = true;
    loop {
        let mut batch = Batch {
            from: if first { 0 } else { (&raw const position) as u64 },
            to: (&raw mut position) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: ENTRIES,
            map_fd: map.as_raw_fd().unsigned_abs(),
            ..Batch::zeroed()
        };
        first = false;
        // SAFETY: the kernel writes at most `count` keys and values of the map's sizes into the vectors, which are so long
        // and of types for which every bit pattern is valid, four bytes into `position`, and into `batch` itself.
        let answer = unsafe { libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut batch, size_of::<Batch>()) };
        match Errno::result(answer) {
            // ENOENT: these were the last.
            Ok(_) | Err(Errno::ENOENT) => values.iter().take(batch.count as usize).for_each(&mut show),
            Err(errno) => return Err(errno.into()),
        }
        if answer != 0 {
            return Ok(());
        }
    }
}
