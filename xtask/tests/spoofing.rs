//! A pod that sends with addresses that are not its own, by raw frames as `CAP_NET_RAW` allows them. Needs root.

use std::{
    net::{Ipv6Addr, UdpSocket},
    os::fd::AsRawFd as _,
    time::Duration,
};

use minicni::link::{Netns, Socket};
use nix::{
    net::if_::if_nametoindex,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};
use xtask::lab::{Families, Lab, Programs, traffic::Server};

const PORT: u16 = 8080;
const STRANGER: Ipv6Addr = Ipv6Addr::new(0xfd44, 0, 0, 1, 0, 0, 0, 0x99);
const PRIORITY: [u8; 4] = [0x81, 0, 0, 0];
const SERVICE: [u8; 4] = [0x88, 0xa8, 0, 0];

/// An IPv6 packet with one byte over UDP, its `EtherType` in front.
fn packet(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    const LENGTH: u16 = 9;
    let ends = [source.octets(), destination.octets()].concat();
    let mut udp = [PORT.to_be_bytes(), PORT.to_be_bytes(), LENGTH.to_be_bytes(), [0; 2]].concat();
    udp.push(b'x');
    let words = [&ends[..], &udp, &[0, 0, LENGTH.to_be_bytes()[1], 0, 17]].concat();
    let mut sum: u32 = words.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).unwrap();
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    [&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 9, 17, 64][..], &ends, &udp].concat()
}

/// Sends a frame as it is.
fn send(netns: &Netns, frame: &[u8]) {
    let sent = netns.run(|| {
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
        // SAFETY: zero is a value of every field.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET.try_into().unwrap();
        to.sll_ifindex = if_nametoindex("eth0").unwrap().try_into().unwrap();
        let length = size_of_val(&to).try_into().unwrap();
        // SAFETY: the kernel reads the frame and the address, which are alive, for their lengths.
        unsafe { libc::sendto(fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), length) }
    });
    assert_eq!(usize::try_from(sent.unwrap()), Ok(frame.len()), "{}", std::io::Error::last_os_error());
}

/// The MAC address of an interface of this thread's namespace.
fn mac(name: &str) -> [u8; 6] {
    Socket::open().unwrap().link_by_name(name).unwrap().unwrap().mac.unwrap().0
}

#[test]
fn a_foreign_source_address_is_dropped_behind_any_number_of_vlan_tags() {
    let mut lab = Lab::with_families("mnispoof-vlan", 1, Programs::beside_us().unwrap(), Families::V6).unwrap();
    lab.start_daemons().unwrap();
    let node = &lab.nodes[0];
    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    let receiver = b.netns.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap()).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let own = a.netns.run(|| mac("eth0")).unwrap();
    let host = node.netns.run(|| mac(a.host_interface().unwrap())).unwrap();
    let frame =
        |source, tags: &[[u8; 4]]| [&host[..], &own, &tags.concat(), &packet(source, b.address6().unwrap())].concat();
    send(&a.netns, &frame(a.address6().unwrap(), &[]));
    receiver.recv_from(&mut [0; 8]).expect("a frame of ours that is honest arrives");
    // The kernel takes any number of tags for VLAN 0 off a frame, and routes what is behind them.
    let tags: [&[_]; 5] = [&[], &[PRIORITY], &[PRIORITY; 2], &[PRIORITY; 3], &[SERVICE, PRIORITY]];
    for (before, tags) in (0..).zip(tags) {
        assert_eq!(node.counters().spoofed_source, before);
        send(&a.netns, &frame(STRANGER, tags));
        assert!(receiver.recv_from(&mut [0; 8]).is_err(), "a stranger's packet arrived behind {tags:?}");
    }
    let foreign_mac = [&host[..], &[2, 0, 0, 0, 0, 99], &packet(a.address6().unwrap(), b.address6().unwrap())].concat();
    send(&a.netns, &foreign_mac);
    assert!(receiver.recv_from(&mut [0; 8]).is_err(), "a packet with a stranger's MAC address arrived");
    assert_eq!((node.counters().spoofed_source, node.counters().spoofed_mac), (5, 1));
    let status = node.netns.run(|| node.minicnid("status").output().unwrap()).unwrap();
    let status = String::from_utf8(status.stdout).unwrap();
    for row in [["drop", "spoofed_source", "5"], ["drop", "spoofed_mac", "1"]] {
        let is_row =
            |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).eq(row);
        assert!(status.lines().any(is_row), "{row:?} is not in {status}");
    }
}

#[test]
fn a_frame_of_a_promoted_flow_that_bears_a_vlan_tag_is_left_to_the_stack() {
    let mut lab = Lab::with_families("mnispoof-tagged", 1, Programs::beside_us().unwrap(), Families::V6).unwrap();
    lab.start_daemons().unwrap();
    let node = &lab.nodes[0];
    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    let _server = Server::start(&b.netns, PORT).unwrap();
    let socket = a.netns.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap()).unwrap();
    socket.connect((b.address6().unwrap(), PORT)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let exchange = || {
        socket.send(b"x").unwrap();
        socket.recv(&mut [0; 8]).unwrap();
    };
    (0..50).for_each(|_| exchange());
    let before = node.counters();
    exchange();
    assert_eq!(node.counters().redirected - before.redirected, 2);
    let [own, host] =
        [a.netns.run(|| mac("eth0")), node.netns.run(|| mac(a.host_interface().unwrap()))].map(Result::unwrap);
    let before = node.counters();
    let flow = packet(a.address6().unwrap(), b.address6().unwrap());
    send(&a.netns, &[&host[..], &own, &PRIORITY, &flow].concat());
    socket.recv(&mut [0; 8]).unwrap();
    let after = node.counters();
    assert_eq!(after.link_layer - before.link_layer, 1);
    // What the stack delivers of it was never noted, so the flow has to prove itself again.
    assert_eq!((after.twin - before.twin, after.redirected - before.redirected), (1, 0));
    (0..50).for_each(|_| exchange());
    let before = node.counters().redirected;
    exchange();
    assert_eq!(node.counters().redirected - before, 2);
}

#[test]
fn without_the_programs_a_foreign_source_address_is_dropped_too_unless_the_pod_may_use_any() {
    let lab = Lab::with_families("mnispoof-route", 1, Programs::beside_us().unwrap(), Families::V6).unwrap();
    let node = &lab.nodes[0];
    node.start_daemon_with(&lab.nodes_file(), &["--datapath", "route"]).unwrap();
    let b = node.pod("b").unwrap();
    let receiver = b.netns.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap()).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    for (name, checked) in [("honest", true), ("router", false)] {
        let mut pod = node.sandbox(name).unwrap();
        if !checked {
            pod.config["args"] = serde_json::json!({ "cni": { "spoofCheck": "off" } });
        }
        pod.add(node).unwrap();
        let host = node.netns.run(|| mac(pod.host_interface().unwrap())).unwrap();
        let own = pod.netns.run(|| mac("eth0")).unwrap();
        let arrives = |source| {
            send(&pod.netns, &[&host[..], &own, &packet(source, b.address6().unwrap())].concat());
            receiver.recv_from(&mut [0; 8]).is_ok()
        };
        assert!(arrives(pod.address6().unwrap()), "{name}: its own address");
        assert_eq!(arrives(STRANGER), !checked, "{name}: a stranger's");
    }
}
