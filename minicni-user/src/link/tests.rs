//! Tests against the real kernel, each in network namespaces of its own. They need root and fail without it.

mod batches;
mod devices;
mod namespaces;
mod routing;
mod traffic_control;

use std::{os::fd::AsFd as _, thread};

use nix::sched::{CloneFlags, unshare};

use super::{LinkInfo, MacAddress, Netns, Request, Socket, VethEnd, veth};

const HOST_MAC: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 0x01]);
const POD_MAC: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 0x02]);
const HOST_INDEX: u32 = 4711;
const POD_INDEX: u32 = 42;

/// Runs a test on a thread in a fresh network namespace, which ends with it.
pub(crate) fn in_fresh_netns<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests make network namespaces and must be run by root");
            test()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A namespace that lives as long as the value.
pub(crate) fn fresh_netns() -> Netns {
    in_fresh_netns(|| Netns::open("/proc/thread-self/ns/net").unwrap())
}

fn host_end(name: &str) -> VethEnd<'_> {
    VethEnd { name, ifindex: Some(HOST_INDEX), mac: HOST_MAC, mtu: 1450 }
}

const POD_END: VethEnd<'_> = VethEnd { name: "eth0", ifindex: Some(POD_INDEX), mac: POD_MAC, mtu: 1450 };

fn pair<'fd>(host: &str, pod: &'fd Netns) -> Request<'fd> {
    veth(&host_end(host), &POD_END, pod.as_fd()).unwrap()
}

/// A socket in the calling thread's namespace, and a veth pair between it and `pod`.
fn socket_with_pair(pod: &Netns) -> Socket {
    let mut socket = Socket::open().unwrap();
    socket.batch(vec![pair("mni0", pod)]).unwrap();
    socket
}

fn link_in(netns: &Netns, name: &str) -> Option<LinkInfo> {
    netns.run(|| Socket::open().unwrap().link_by_name(name).unwrap()).unwrap()
}
