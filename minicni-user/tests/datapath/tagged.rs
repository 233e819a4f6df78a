//! Programs for tests: one gives a test packet the tag that it would bear on its way through the stack, and calls the one under
//! test.
//!
//! `BPF_PROG_TEST_RUN` takes `skb->mark` from outside, but not `tc_index`, so this one moves the lower half of it over, and makes
//! the upper half the mark.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use minicni::datapath::Programs;
use nix::libc;

/// Offsets in `struct __sk_buff`.
const MARK: i16 = 8;
const TC_INDEX: i16 = 44;

/// One eBPF instruction: opcode, destination and source register, offset, immediate.
fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let [o1, o2] = offset.to_ne_bytes();
    let [i1, i2, i3, i4] = immediate.to_ne_bytes();
    [code, source << 4 | destination, o1, o2, i1, i2, i3, i4]
}

/// Loads the program in front of `egress`, and pins it on `path`. Without the descriptor that this returns the kernel empties the
/// array by which the one calls the other; with it, it keeps programs and maps of 30 MB.
pub(crate) fn pin(programs: &Programs, path: &Path) -> io::Result<OwnedFd> {
    let calls = create_program_array()?;
    update(&calls, programs.egress().as_raw_fd())?;
    let code = [
        instruction(0xbf, 6, 1, 0, 0),                 // r6 = r1
        instruction(0x61, 2, 6, MARK, 0),              // r2 = skb->mark
        instruction(0x63, 6, 2, TC_INDEX, 0),          // skb->tc_index = r2
        instruction(0x77, 2, 0, 0, 16),                // r2 >>= 16
        instruction(0x63, 6, 2, MARK, 0),              // skb->mark = r2
        instruction(0xbf, 1, 6, 0, 0),                 // r1 = r6
        instruction(0x18, 2, 1, 0, calls.as_raw_fd()), // r2 = the program array
        instruction(0, 0, 0, 0, 0),                    // (second half)
        instruction(0xb7, 3, 0, 0, 0),                 // r3 = 0
        instruction(0x85, 0, 0, 0, 12),                // bpf_tail_call
        instruction(0xb7, 0, 0, 0, 42),                // r0 = 42: the call failed
        instruction(0x95, 0, 0, 0, 0),                 // exit
    ];
    load_and_pin(&code, path)?;
    Ok(calls)
}

/// Pins a program that gives every packet this tag.
pub(crate) fn pin_stamp(tag: u16, path: &Path) -> io::Result<()> {
    let code = [
        instruction(0xb7, 2, 0, 0, i32::from(tag)), // r2 = the tag
        instruction(0x63, 1, 2, TC_INDEX, 0),       // skb->tc_index = r2
        instruction(0xb7, 0, 0, 0, -1),             // r0 = TC_ACT_UNSPEC
        instruction(0x95, 0, 0, 0, 0),              // exit
    ];
    load_and_pin(&code, path)
}

/// Pins a program that drops packets with this tag.
pub(crate) fn pin_judge(tag: u16, path: &Path) -> io::Result<()> {
    let code = [
        instruction(0x61, 2, 1, TC_INDEX, 0),       // r2 = skb->tc_index
        instruction(0xb7, 0, 0, 0, 2),              // r0 = TC_ACT_SHOT
        instruction(0x15, 2, 0, 1, i32::from(tag)), // skip one if r2 is the tag
        instruction(0xb7, 0, 0, 0, -1),             // r0 = TC_ACT_UNSPEC
        instruction(0x95, 0, 0, 0, 0),              // exit
    ];
    load_and_pin(&code, path)
}

fn load_and_pin(code: &[[u8; 8]], path: &Path) -> io::Result<()> {
    let license = c"GPL";
    let mut attributes = [0_u64; 16];
    attributes[0] = 3 | (code.len() as u64) << 32; // BPF_PROG_TYPE_SCHED_CLS, number of instructions
    attributes[1] = code.as_ptr() as u64;
    attributes[2] = license.as_ptr() as u64;
    let program = bpf(5, &mut attributes)?;
    let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    let mut attributes = [0_u64; 16];
    attributes[0] = name.as_ptr() as u64;
    attributes[1] = u64::from(program.as_fd().as_raw_fd().unsigned_abs());
    bpf_status(6, &mut attributes)
}

fn create_program_array() -> io::Result<OwnedFd> {
    let mut attributes = [0_u64; 16];
    attributes[0] = 3 | 4 << 32; // BPF_MAP_TYPE_PROG_ARRAY, key size
    attributes[1] = 4 | 1 << 32; // value size, entries
    bpf(0, &mut attributes)
}

fn update(map: &OwnedFd, program: i32) -> io::Result<()> {
    let (key, value) = (0_u32, program);
    let mut attributes = [0_u64; 16];
    attributes[0] = u64::from(map.as_raw_fd().unsigned_abs());
    attributes[1] = &raw const key as u64;
    attributes[2] = &raw const value as u64;
    bpf_status(2, &mut attributes)
}

fn bpf(command: i32, attributes: &mut [u64; 16]) -> io::Result<OwnedFd> {
    let fd = i32::try_from(call(command, attributes)?).map_err(io::Error::other)?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A command of `bpf(2)` that gives no descriptor.
pub(crate) fn bpf_status(command: i32, attributes: &mut [u64; 16]) -> io::Result<()> {
    call(command, attributes).map(drop)
}

fn call(command: i32, attributes: &mut [u64; 16]) -> io::Result<i64> {
    // SAFETY: the attributes are longer than what the command reads, and their pointers are alive.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
