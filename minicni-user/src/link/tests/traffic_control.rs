use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use nix::errno::Errno;

use super::{HOST_INDEX, POD_END, fresh_netns, host_end, in_fresh_netns, socket_with_pair};
use crate::link::{Filter, Qdisc, Socket, VethEnd, block_filter, clsact, delete_link, veth};

const SECOND_INDEX: u32 = 4712;
const INGRESS: u32 = 100;
const EGRESS: u32 = 101;

/// The head of `union bpf_attr` as `BPF_PROG_LOAD` reads it.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// Loads a classifier that lets every packet pass.
pub(super) fn program() -> OwnedFd {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
    // r0 = 0; exit
    let instructions: [u64; 2] = [0xb7, 0x95];
    let attributes = ProgLoad {
        prog_type: BPF_PROG_TYPE_SCHED_CLS,
        insn_cnt: 2,
        insns: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"pass\0\0\0\0\0\0\0\0\0\0\0\0",
    };
    // SAFETY: the kernel reads `attributes` within the size given, and what it points to; all of it outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<ProgLoad>()) };
    assert!(fd >= 0, "load a program: {}", io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).unwrap()) }
}

/// The id of the program behind a descriptor.
fn id(program: BorrowedFd<'_>) -> u32 {
    let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    let info = std::fs::read_to_string(path).unwrap();
    info.lines().find_map(|line| line.strip_prefix("prog_id:")).unwrap().trim().parse().unwrap()
}

fn filters(prog_id: u32, name: &str) -> Vec<Filter> {
    vec![Filter { kind: "bpf".into(), prog_id: Some(prog_id), name: Some(name.into()), prio: 1, handle: 1 }]
}

#[test]
fn devices_share_the_filters_of_their_blocks_until_the_last_device_is_gone() {
    in_fresh_netns(|| {
        let (first_pod, second_pod) = (fresh_netns(), fresh_netns());
        let mut socket = socket_with_pair(&first_pod);
        let second = VethEnd { ifindex: Some(SECOND_INDEX), ..host_end("mni1") };
        socket.batch(vec![veth(&second, &POD_END, second_pod.as_fd()).unwrap()]).unwrap();

        let (old, new) = (program(), program());
        let wire = |ifindex| {
            vec![
                clsact(ifindex, INGRESS, EGRESS),
                block_filter(INGRESS, old.as_fd(), "ingress", false).tolerate(Errno::EEXIST),
                block_filter(EGRESS, old.as_fd(), "egress", false).tolerate(Errno::EEXIST),
            ]
        };
        socket.batch(wire(HOST_INDEX)).unwrap();
        socket.batch(wire(SECOND_INDEX)).unwrap();

        let shared = Qdisc { kind: "clsact".into(), ingress_block: Some(INGRESS), egress_block: Some(EGRESS) };
        for ifindex in [HOST_INDEX, SECOND_INDEX] {
            assert_eq!(socket.hook_qdisc(ifindex).unwrap().as_ref(), Some(&shared));
        }
        assert_eq!(socket.block_filters(INGRESS).unwrap(), filters(id(old.as_fd()), "ingress"));
        assert_eq!(socket.block_filters(EGRESS).unwrap(), filters(id(old.as_fd()), "egress"));

        socket.batch(vec![block_filter(INGRESS, new.as_fd(), "ingress", true)]).unwrap();
        assert_ne!(id(old.as_fd()), id(new.as_fd()));
        assert_eq!(socket.block_filters(INGRESS).unwrap(), filters(id(new.as_fd()), "ingress"));

        socket.batch(vec![delete_link(HOST_INDEX)]).unwrap();
        assert_eq!(socket.block_filters(INGRESS).unwrap(), filters(id(new.as_fd()), "ingress"));
        socket.batch(vec![delete_link(SECOND_INDEX)]).unwrap();
        assert_eq!(socket.block_filters(INGRESS).unwrap(), []);
        let error = socket.batch(vec![block_filter(INGRESS, new.as_fd(), "ingress", false)]).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EINVAL as i32), "a block without a qdisc is none: {error}");
    });
}

#[test]
fn a_second_filter_without_replace_is_refused_and_the_first_one_stays() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        let mut socket = socket_with_pair(&pod);
        let (old, new) = (program(), program());
        socket
            .batch(vec![clsact(HOST_INDEX, INGRESS, EGRESS), block_filter(INGRESS, old.as_fd(), "f", false)])
            .unwrap();
        let error = socket.batch(vec![block_filter(INGRESS, new.as_fd(), "f", false)]).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EEXIST as i32), "{error}");
        assert_eq!(socket.block_filters(INGRESS).unwrap(), filters(id(old.as_fd()), "f"));
        let error = socket.batch(vec![clsact(HOST_INDEX, INGRESS, EGRESS)]).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EEXIST as i32), "{error}");
    });
}

#[test]
fn a_device_without_a_clsact_or_that_does_not_exist_has_none() {
    in_fresh_netns(|| {
        let mut socket = Socket::open().unwrap();
        for ifindex in [1, 4711] {
            assert_eq!(socket.hook_qdisc(ifindex).unwrap(), None);
        }
        assert_eq!(socket.block_filters(4_000_000_000).unwrap(), []);
    });
}
