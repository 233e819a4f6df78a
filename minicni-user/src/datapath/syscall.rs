//! Commands of bpf(2) that aya offers only by way of program ids. To open a program by its id asks for `CAP_SYS_ADMIN`,
//! which the daemon does not have.

use std::{
    ffi::CString,
    io, mem,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::sys::SyscallError;

/// `BPF_OBJ_GET` of linux/bpf.h.
const OBJ_GET: libc::c_int = 7;
/// `BPF_OBJ_GET_INFO_BY_FD`.
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
/// `BPF_PROG_QUERY`.
const PROG_QUERY: libc::c_int = 16;
/// The most programs that a TCX hook takes: `BPF_MPROG_MAX` of the kernel's `kernel/bpf/mprog.c`.
const MAX_PROGRAMS: u32 = 64;
/// The size of [`ProgInfo`] in bytes.
const ROOM: u32 = 8;
const _: () = assert!(mem::size_of::<ProgInfo>() == ROOM as usize);

/// The part of `union bpf_attr` for [`OBJ_GET`].
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The part of `union bpf_attr` for [`OBJ_GET_INFO_BY_FD`].
#[repr(C)]
struct ObjGetInfo {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_prog_info`; the kernel fills in as much as there is room for.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    kind: u32,
    id: u32,
}

/// The part of `union bpf_attr` for [`PROG_QUERY`], to its last field: the kernel writes the revision of a TCX hook whatever
/// size it is told (`bpf_mprog_query` of kernel/bpf/mprog.c).
#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}
/// As `linux/bpf.h` has it.
const _: () = assert!(mem::offset_of!(ProgQuery, revision) == 56 && mem::size_of::<ProgQuery>() == 64);

/// Opens what is pinned.
pub(super) fn open_pin(path: &Path) -> Result<OwnedFd, SyscallError> {
    let failed = |io_error| SyscallError { call: "BPF_OBJ_GET", io_error };
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
    let mut attributes = ObjGet { pathname: name.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the attributes are those of the command; the name outlives the call.
    let descriptor = unsafe { bpf(OBJ_GET, &mut attributes) }.map_err(failed)?;
    // SAFETY: the kernel has just made it, for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The id of an open program.
pub(super) fn program_id(program: BorrowedFd<'_>) -> Result<u32, SyscallError> {
    let mut info = ProgInfo::default();
    let mut attributes = ObjGetInfo {
        bpf_fd: program.as_raw_fd().cast_unsigned(),
        info_len: ROOM,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: the attributes are those of the command; what they point to has the length that they say, and outlives the call.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attributes) }
        .map_err(|io_error| SyscallError { call: "BPF_OBJ_GET_INFO_BY_FD", io_error })?;
    Ok(info.id)
}

/// The ids of all programs on a hook of an interface. `EINVAL` where the kernel does not know the hook.
pub(super) fn program_ids(ifindex: u32, attach_type: u32) -> Result<Vec<u32>, SyscallError> {
    let mut ids = vec![0_u32; MAX_PROGRAMS as usize];
    let mut attributes = ProgQuery {
        target_ifindex: ifindex,
        attach_type,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MAX_PROGRAMS,
        ..ProgQuery::default()
    };
    // SAFETY: the attributes are those of the command; there is room for as many ids as they say, and it outlives the call.
    unsafe { bpf(PROG_QUERY, &mut attributes) }
        .map_err(|io_error| SyscallError { call: "BPF_PROG_QUERY", io_error })?;
    ids.truncate(attributes.prog_cnt as usize);
    Ok(ids)
}

/// bpf(2).
///
/// # Safety
///
/// `attributes` is the beginning of `union bpf_attr` as `command` has it, and what it points to is valid.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the caller's promise; the size is that of the attributes.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), mem::size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // A descriptor, or 0.
    RawFd::try_from(result).map_err(io::Error::other)
}
