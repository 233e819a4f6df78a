//! Programs of a few instructions, which need no compiler, and the kernel's own stopwatch for programs.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

// Commands of bpf(2), and a type of program: linux/bpf.h
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const SCHED_CLS: u32 = 3;
/// `bpf_redirect_peer(ifindex, flags)`.
const REDIRECT_PEER: i32 = 155;
/// `TC_ACT_UNSPEC`: the stack goes on.
const UNSPEC: i32 = -1;

/// One instruction: opcode, destination register, immediate.
fn instruction(code: u8, destination: u8, immediate: i32) -> [u8; 8] {
    let [i1, i2, i3, i4] = immediate.to_ne_bytes();
    [code, destination, 0, 0, i1, i2, i3, i4]
}

/// A program that does nothing.
pub(super) fn empty() -> Result<OwnedFd> {
    load(&[
        instruction(0xb7, 0, UNSPEC), // r0 = TC_ACT_UNSPEC
        instruction(0x95, 0, 0),      // exit
    ])
}

/// A program that redirects every packet to the peer of an interface.
pub(super) fn redirect_peer(ifindex: u32) -> Result<OwnedFd> {
    load(&[
        instruction(0xb7, 1, ifindex.cast_signed()), // r1 = ifindex
        instruction(0xb7, 2, 0),                     // r2 = 0
        instruction(0x85, 0, REDIRECT_PEER),         // call
        instruction(0x95, 0, 0),                     // exit
    ])
}

fn load(code: &[[u8; 8]]) -> Result<OwnedFd> {
    /// The beginning of `union bpf_attr`.
    #[repr(C)]
    struct Load {
        program_type: u32,
        instructions: u32,
        code: *const [u8; 8],
        license: *const libc::c_char,
    }
    let attributes = Load {
        program_type: SCHED_CLS,
        instructions: u32::try_from(code.len())?,
        code: code.as_ptr(),
        license: c"GPL".as_ptr(),
    };
    // SAFETY: the attributes are those of the command, and what they point to lives as long as the call.
    let fd = unsafe { bpf(PROG_LOAD, &raw const attributes) }.context("load a program of the benchmark")?;
    // SAFETY: the kernel just gave us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What became of a packet in a test run.
#[derive(Debug)]
pub(super) struct Run {
    /// The verdict of the last repetition.
    pub(super) verdict: u32,
    /// The mean of the repetitions.
    pub(super) nanoseconds: f64,
}

/// Runs a classifier on a frame that entered at an interface of the calling thread's namespace, so many times in a row,
/// each on what the one before left.
pub(super) fn test_run(program: BorrowedFd<'_>, ifindex: u32, frame: &[u8], repeat: u32) -> Result<Run> {
    /// The beginning of `union bpf_attr`.
    #[repr(C)]
    #[derive(Default)]
    struct TestRun {
        program: u32,
        verdict: u32,
        frame_in_size: u32,
        frame_out_size: u32,
        frame_in: u64,
        frame_out: u64,
        repeat: u32,
        nanoseconds: u32,
        context_in_size: u32,
        context_out_size: u32,
        context_in: u64,
        context_out: u64,
    }
    /// Where `struct __sk_buff` has `ifindex`.
    const IFINDEX: usize = 40;
    let mut context = [0_u8; 192];
    context[IFINDEX..IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
    let mut attributes = TestRun {
        program: program.as_raw_fd().cast_unsigned(),
        frame_in_size: u32::try_from(frame.len())?,
        frame_in: frame.as_ptr() as u64,
        repeat,
        context_in_size: u32::try_from(context.len())?,
        context_in: context.as_ptr() as u64,
        ..TestRun::default()
    };
    // SAFETY: the attributes are those of the command, and what they point to lives as long as the call.
    unsafe { bpf(PROG_TEST_RUN, &raw mut attributes) }.context("run a program on a test packet")?;
    Ok(Run { verdict: attributes.verdict, nanoseconds: attributes.nanoseconds.into() })
}

/// # Safety
///
/// The attributes must be those of the command.
unsafe fn bpf<T>(command: libc::c_int, attributes: *const T) -> io::Result<i32> {
    // SAFETY: as the caller promises.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}
