//! Against the real kernel and a real advertisement; they need root.

use std::{
    io::IoSlice,
    os::fd::{AsFd as _, AsRawFd as _},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    net::if_::if_nametoindex,
    sys::socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendmsg, socket,
    },
};

use super::*;
use crate::link::{
    Netns,
    tests::{fresh_netns, in_fresh_netns},
};

const ROUTER: &str = "fe80::2";

/// Runs `ip` in the thread's namespace and returns what it prints.
#[track_caller]
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is needed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes `up0` here and `eth0` of a router, which has a link-local address alone.
fn uplink(router: &Netns) {
    ip("link add up0 type veth peer name eth0");
    ip("link set up0 up");
    ip(&format!("link set eth0 netns /proc/{}/fd/{}", std::process::id(), router.as_fd().as_raw_fd()));
    router
        .run(|| {
            ip(&format!("address add {ROUTER}/64 dev eth0 nodad"));
            ip("link set eth0 up");
        })
        .unwrap();
}

/// Sends a router advertisement (RFC 4861, section 4.2) to all nodes on the link.
fn advertise() {
    const LIFETIME: [u8; 2] = 1800_u16.to_be_bytes();
    let advertisement = [134, 0, 0, 0, 64, 0, LIFETIME[0], LIFETIME[1], 0, 0, 0, 0, 0, 0, 0, 0];
    let raw = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::empty(), SockProtocol::IcmpV6).unwrap();
    let all_nodes = std::net::SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, if_nametoindex("eth0").unwrap());
    let hops = [ControlMessage::Ipv6HopLimit(&255)];
    let to = SockaddrIn6::from(all_nodes);
    sendmsg(raw.as_raw_fd(), &[IoSlice::new(&advertisement)], &hops, MsgFlags::empty(), Some(&to)).unwrap();
}

/// Lets the router advertise until we have its route; says whether we got it.
fn learns(router: &Netns) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        router.run(advertise).unwrap();
        sleep(Duration::from_millis(20));
        if has_default_route() {
            return true;
        }
    }
    false
}

fn has_default_route() -> bool {
    ip("-6 route show default").contains(&format!("via {ROUTER} dev up0 proto ra"))
}

#[test]
fn a_host_that_forwards_ipv6_keeps_the_default_route_that_a_router_told_it_and_listens_on() {
    in_fresh_netns(|| {
        let router = fresh_netns();
        uplink(&router);
        assert!(learns(&router));
        // What happens to a host where nobody cares.
        sysctl::write(IPV6, "1").unwrap();
        assert!(!has_default_route());
        sysctl::write(IPV6, "0").unwrap();
        assert!(learns(&router));

        assert!(forward(true).unwrap());
        assert_eq!(sysctl::read(IPV6).unwrap(), "1");
        assert!(has_default_route());
        ip("-6 route del default");
        assert!(learns(&router));
    });
}

#[test]
fn no_interface_listens_to_routers_that_did_not_before_and_none_of_a_pod() {
    in_fresh_netns(|| {
        let of = |device: &str| format!("net/ipv6/conf/{device}/accept_ra");
        for device in ["up0", "up1", "up2", "mni0123456789ab"] {
            ip(&format!("link add {device} type veth"));
        }
        sysctl::write(&of("up1"), "0").unwrap();
        sysctl::write(&of("up2"), "2").unwrap();
        assert!(forward(true).unwrap());
        let values =
            ["up0", "up1", "up2", "mni0123456789ab", "default"].map(|device| sysctl::read(&of(device)).unwrap());
        assert_eq!(values, ["2", "0", "2", "1", "1"]);
        // Whoever wants it otherwise from then on is left alone.
        sysctl::write(&of("up0"), "1").unwrap();
        assert!(!forward(true).unwrap());
        assert_eq!(sysctl::read(&of("up0")).unwrap(), "1");
        sysctl::write(IPV6, "0").unwrap();
        assert!(forward(true).unwrap());
    });
}

#[test]
fn without_ipv6_pods_only_ipv4_is_forwarded() {
    in_fresh_netns(|| {
        sysctl::write(IPV4, "0").unwrap();
        assert!(forward(false).unwrap());
        assert!(!forward(false).unwrap());
        assert_eq!([IPV4, IPV6].map(|key| sysctl::read(key).unwrap()), ["1", "0"]);
    });
}

#[test]
fn a_kernel_without_ipv6_is_named_as_the_reason() {
    let missing = sysctl::read("net/ipv6/conf/none/forwarding").unwrap_err();
    let error = without_ipv6(missing).to_string();
    for part in ["net/ipv6/conf/none/forwarding", "ENOENT", "the kernel has no IPv6", "ipv6.disable=1"] {
        assert!(error.contains(part), "{error:?} does not name {part:?}");
    }
}
