//! The fast path over IPv6 with real traffic, beside real translation and real firewall rules. Needs root.

use std::{
    io::{IoSliceMut, Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn6, SockaddrStorage, bind, connect,
    recvmsg, setsockopt, socket,
    sockopt::{Ipv6RecvTClass, ReuseAddr},
};
use xtask::lab::{
    Families, Lab, Node, Pod, Programs, rules,
    traffic::{Client, Protocol, Server},
};

const PORT: u16 = 8080;
const VIRTUAL: Ipv6Addr = Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 0x10);
const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V6(VIRTUAL), 80);

fn lab(name: &str, families: Families) -> Lab {
    let name = format!("mnifast6-{name}");
    let mut lab = Lab::with_families(&name, 1, Programs::beside_us().unwrap(), families).unwrap();
    lab.start_daemons().unwrap();
    lab
}

fn to(pod: &Pod) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(pod.address6().unwrap()), PORT)
}

/// Two pods, of which the second answers.
fn pair(node: &Node) -> (Pod, Pod, Server) {
    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    let server = Server::start(&b.netns, PORT).unwrap();
    (a, b, server)
}

fn with_service(node: &Node) -> (Pod, Pod, Server) {
    let (a, b, server) = pair(node);
    rules::nft(node, &rules::cluster_ip(VIRTUAL, SERVICE.port(), b.address6().unwrap(), PORT)).unwrap();
    (a, b, server)
}

/// Packets redirected while something is done.
fn redirected(node: &Node, work: impl FnOnce()) -> u64 {
    let before = node.counters().redirected;
    work();
    node.counters().redirected - before
}

/// What conntrack has of a protocol.
fn conntrack(node: &Node, protocol: &str) -> String {
    node.run(Command::new("conntrack").args(["-L", "-f", "ipv6", "-p", protocol])).unwrap()
}

/// Packets that the rule against what conntrack finds invalid has dropped.
fn invalid(node: &Node) -> String {
    let rules = node.run(Command::new("nft").args("list table ip6 services".split(' '))).unwrap();
    let rule = rules.lines().find(|line| line.contains("ct state invalid")).unwrap();
    rule.split_whitespace().skip_while(|word| *word != "packets").nth(1).unwrap().to_owned()
}

#[test]
fn more_than_99_percent_of_a_long_conversation_is_redirected() {
    for (name, families) in [("share-dual", Families::Dual), ("share-v6", Families::V6)] {
        let lab = lab(name, families);
        let node = &lab.nodes[0];
        let (a, b, _server) = pair(node);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let count = redirected(node, || {
                Client::connect(&a.netns, protocol, to(&b)).unwrap().measure(10_000).unwrap();
            });
            assert!(count > 19_800, "{families:?}, {protocol:?}: {count} of about 20,000");
        }
        assert_eq!(node.counters().spoofed_source, 0);
    }
}

#[test]
fn promoted_connections_close_cleanly_beside_a_rule_that_drops_what_is_invalid() {
    let lab = lab("close", Families::V6);
    let node = &lab.nodes[0];
    let (a, b, _server) = with_service(node);
    let payload = vec![7; 40_000];
    for _ in 0..10 {
        let mut client = Client::connect(&a.netns, Protocol::Tcp, to(&b)).unwrap();
        // Far beyond the window that conntrack saw.
        let count = redirected(node, || (0..200).for_each(|_| client.exchange(&payload).unwrap()));
        assert!(count > 400, "{count} packets were redirected");
        client.close().unwrap();
    }
    thread::sleep(Duration::from_millis(200));
    let left = conntrack(node, "tcp");
    assert!(left.contains("TIME_WAIT") || left.contains("LAST_ACK") || left.contains("CLOSE"), "{left}");
    assert!(!left.contains("ESTABLISHED"), "{left}");
    assert_eq!(invalid(node), "0");
}

#[test]
fn a_translated_flow_is_never_redirected_and_works() {
    let lab = lab("cluster-ip", Families::Dual);
    let node = &lab.nodes[0];
    let (a, _b, _server) = with_service(node);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let count = redirected(node, || {
            let mut client = Client::connect(&a.netns, protocol, SERVICE).unwrap();
            client.measure(2_000).unwrap();
            client.close().unwrap();
        });
        assert_eq!(count, 0, "{protocol:?}");
    }
    // Conntrack is sure of a UDP flow after two seconds.
    let mut client = Client::connect(&a.netns, Protocol::Udp, SERVICE).unwrap();
    let count = redirected(node, || {
        for _ in 0..25 {
            client.measure(100).unwrap();
            thread::sleep(Duration::from_millis(100));
        }
    });
    assert_eq!(count, 0);
    assert!(conntrack(node, "udp").contains("ASSURED"));
    assert_eq!(invalid(node), "0");
}

#[test]
fn a_flow_whose_source_is_translated_is_never_redirected_and_works() {
    let lab = lab("masquerade", Families::V6);
    let node = &lab.nodes[0];
    let (a, b, _server) = pair(node);
    // The port stays: what leaves differs from what entered in the address alone.
    rules::nft(
        node,
        "table ip6 nat { chain postrouting { type nat hook postrouting priority srcnat;\n\
         ip6 daddr fd44::/16 snat to fd77:77::1\n }\n }",
    )
    .unwrap();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let count = redirected(node, || {
            let mut client = Client::connect(&a.netns, protocol, to(&b)).unwrap();
            client.measure(2_000).unwrap();
            client.close().unwrap();
        });
        assert_eq!(count, 0, "{protocol:?}");
    }
}

#[test]
fn one_socket_may_talk_to_a_pod_and_to_a_virtual_address_of_the_same_pod() {
    let lab = lab("twin", Families::V6);
    let node = &lab.nodes[0];
    let (a, b, _server) = with_service(node);
    let direct = to(&b);
    for order in [[direct, SERVICE], [SERVICE, direct]] {
        let socket = a.netns.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        for round in 0..500 {
            for address in order {
                socket.send_to(b"x", address).unwrap();
                let (_, from) = socket.recv_from(&mut [0; 8]).unwrap();
                assert_eq!(from, address, "round {round}");
            }
        }
    }
}

#[test]
fn two_connections_from_one_port_to_a_pod_and_to_a_virtual_address_of_the_same_pod_do_not_mix() {
    let lab = lab("tcp-twins", Families::V6);
    let node = &lab.nodes[0];
    let (a, b, _server) = with_service(node);
    let direct = to(&b);
    for (port, order) in [(40_001, [direct, SERVICE]), (40_002, [SERVICE, direct])] {
        let mut connections = order.map(|to| a.netns.run(|| connect_from(port, to).unwrap()).unwrap());
        for round in 0_u32..200 {
            for connection in &mut connections {
                let request = round.to_ne_bytes();
                connection.write_all(&request).unwrap();
                let mut answer = [0; 4];
                connection.read_exact(&mut answer).unwrap();
                assert_eq!(answer, request);
            }
        }
    }
}

/// Connects from a port that another connection may have, too.
fn connect_from(port: u16, to: SocketAddr) -> std::io::Result<TcpStream> {
    let fd = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    let stream = TcpStream::from(fd);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    Ok(stream)
}

#[test]
fn a_rule_inserted_later_stops_a_promoted_flow_within_six_seconds() {
    let lab = lab("policy", Families::V6);
    let node = &lab.nodes[0];
    let (a, b, _server) = pair(node);
    let mut client = Client::connect(&a.netns, Protocol::Udp, to(&b)).unwrap();
    client.measure(100).unwrap();
    rules::nft(node, "table ip6 deny { chain forward { type filter hook forward priority 0; policy drop;\n }\n }")
        .unwrap();
    let start = Instant::now();
    let mut last = Duration::ZERO;
    while client.exchange(b"x").is_ok() {
        last = start.elapsed();
        assert!(last < Duration::from_millis(6_500), "the flow goes on beside a policy that drops it");
        thread::sleep(Duration::from_millis(1));
    }
    eprintln!("the last packet arrived {last:?} after the rule");
    // And comes back when the rule goes.
    rules::nft(node, "delete table ip6 deny").unwrap();
    client.measure(10).unwrap();
}

#[test]
fn large_fragmented_and_icmp_traffic_works_beside_a_promoted_flow() {
    let lab = lab("sizes", Families::V6);
    let node = &lab.nodes[0];
    let (a, b, _server) = with_service(node);
    let mut udp = Client::connect(&a.netns, Protocol::Udp, to(&b)).unwrap();
    udp.measure(100).unwrap();
    for length in [1, 1_452, 1_453, 4_000, 30_000] {
        udp.exchange(&vec![7; length]).unwrap();
    }
    udp.measure(100).unwrap();
    let mut tcp = Client::connect(&a.netns, Protocol::Tcp, to(&b)).unwrap();
    for length in [1, 1_000, 65_536, 60_000] {
        (0..20).for_each(|_| tcp.exchange(&vec![7; length]).unwrap());
    }
    let address = b.address6().unwrap().to_string();
    let ping = || xtask::command::output(Command::new("ping").args(["-q", "-c", "3", "-i", "0.01", &address])).unwrap();
    assert!(a.netns.run(ping).unwrap().contains(" 0% packet loss"));
}

#[test]
fn what_a_rule_writes_into_packets_is_written_into_all_of_them() {
    let lab = lab("class", Families::V6);
    let node = &lab.nodes[0];
    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    rules::nft(
        node,
        "table ip6 classes { chain forward { type filter hook forward priority mangle;\n\
         udp dport 8080 ip6 dscp set af11\n }\n }",
    )
    .unwrap();
    let echo = b.netns.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap()).unwrap();
    setsockopt(&echo, Ipv6RecvTClass, &true).unwrap();
    echo.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut client = Client::connect(&a.netns, Protocol::Udp, to(&b)).unwrap();
    let Client::Udp(socket) = &mut client else { panic!("not UDP") };
    for round in 0..100 {
        socket.send(b"x").unwrap();
        let mut byte = [0; 1];
        let (mut space, mut vectors) = (nix::cmsg_space!(libc::c_int), [IoSliceMut::new(&mut byte)]);
        let received =
            recvmsg::<SockaddrIn6>(echo.as_raw_fd(), &mut vectors, Some(&mut space), MsgFlags::empty()).unwrap();
        let class = received.cmsgs().unwrap().find_map(|message| match message {
            ControlMessageOwned::Ipv6TClass(class) => Some(class),
            _ => None,
        });
        assert_eq!(class, Some(10 << 2), "round {round}");
        echo.send_to(b"x", SocketAddr::from(std::net::SocketAddrV6::from(received.address.unwrap()))).unwrap();
        socket.recv(&mut [0; 1]).unwrap();
    }
}
