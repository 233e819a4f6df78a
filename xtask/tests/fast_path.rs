//! The fast path with real traffic, beside real translation and real firewall rules. Needs root.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use minicni::{datapath::Generations, link::sysctl};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
    sockopt::{Linger, ReuseAddr},
};
use serde_json::json;
use xtask::lab::{
    Lab, Node, Pod, Programs, rules,
    traffic::{Client, Protocol, Server},
};

const PORT: u16 = 8080;
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

fn lab(name: &str) -> Lab {
    let mut lab = Lab::new(&format!("mnifast-{name}"), 1, Programs::beside_us().unwrap()).unwrap();
    lab.start_daemons().unwrap();
    lab
}

fn to(pod: &Pod) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(pod.address().unwrap()), PORT)
}

/// Two pods, of which the second answers.
fn pair(node: &Node) -> (Pod, Pod, Server) {
    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    let server = Server::start(&b.netns, PORT).unwrap();
    (a, b, server)
}

/// A pod of a range of two addresses: whoever comes second gets the other one, cooling or not.
fn pool(node: &Node, name: &str) -> Pod {
    let mut pod = node.sandbox(name).unwrap();
    pod.config["subnet"] = json!("10.244.1.0/30");
    pod.add(node).unwrap();
    pod
}

/// Packets redirected while something is done.
fn redirected(node: &Node, work: impl FnOnce()) -> u64 {
    let before = node.counters().redirected;
    work();
    node.counters().redirected - before
}

fn conntrack(node: &Node, arguments: &[&str]) -> String {
    node.run(Command::new("conntrack").args(arguments)).unwrap()
}

#[test]
fn more_than_99_percent_of_a_long_conversation_is_redirected() {
    let lab = lab("share");
    let node = &lab.nodes[0];
    let (a, b, _server) = pair(node);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let count = redirected(node, || {
            Client::connect(&a.netns, protocol, to(&b)).unwrap().measure(10_000).unwrap();
        });
        assert!(count > 19_800, "{protocol:?}: {count} of about 20,000");
    }
}

#[test]
fn promoted_connections_close_cleanly_beside_a_rule_that_drops_what_is_invalid() {
    let lab = lab("close");
    let node = &lab.nodes[0];
    let (a, b, _server) = pair(node);
    node.run(Command::new("iptables").args("-A FORWARD -m conntrack --ctstate INVALID -j DROP".split(' '))).unwrap();
    let payload = vec![7; 40_000];
    for _ in 0..10 {
        let mut client = Client::connect(&a.netns, Protocol::Tcp, to(&b)).unwrap();
        // Far beyond the window that conntrack saw.
        let count = redirected(node, || (0..200).for_each(|_| client.exchange(&payload).unwrap()));
        assert!(count > 400, "{count} packets were redirected");
        client.close().unwrap();
    }
    thread::sleep(Duration::from_millis(200));
    let left = conntrack(node, &["-L", "-p", "tcp"]);
    assert!(left.contains("TIME_WAIT") || left.contains("LAST_ACK") || left.contains("CLOSE"), "{left}");
    assert!(!left.contains("ESTABLISHED"), "{left}");
    let dropped = node.run(Command::new("iptables").args(["-L", "FORWARD", "-v", "-x", "-n"])).unwrap();
    let rule = dropped.lines().find(|line| line.contains("INVALID")).unwrap();
    assert_eq!(rule.split_whitespace().next(), Some("0"), "{rule}");
}

/// SYNPROXY answers in the server's name before the server does, and shifts the server's sequence numbers ever after.
#[test]
fn a_connection_whose_sequence_numbers_netfilter_shifts_is_never_redirected_and_works() {
    let lab = lab("synproxy");
    let node = &lab.nodes[0];
    let (a, b, _server) = pair(node);
    node.netns.run(|| sysctl::write("net/netfilter/nf_conntrack_tcp_loose", "0")).unwrap().unwrap();
    for rule in [
        "-t raw -A PREROUTING -p tcp --dport 8080 --syn -j CT --notrack",
        "-A FORWARD -p tcp -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY --sack-perm --timestamp --wscale 7 --mss 1460",
        "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
    ] {
        node.run(Command::new("iptables-legacy").args(rule.split(' '))).unwrap();
    }
    let payload = vec![7; 40_000];
    let count = redirected(node, || {
        let mut client = Client::connect(&a.netns, Protocol::Tcp, to(&b)).unwrap();
        client.measure(300).unwrap();
        (0..50).for_each(|_| client.exchange(&payload).unwrap());
        client.close().unwrap();
    });
    assert_eq!(count, 0);
}

#[test]
fn a_translated_flow_is_never_redirected_and_works() {
    let lab = lab("cluster-ip");
    let node = &lab.nodes[0];
    let (a, b, _server) = pair(node);
    rules::nft(node, &rules::cluster_ip(VIRTUAL, 80, b.address().unwrap(), PORT)).unwrap();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let count = redirected(node, || {
            let mut client = Client::connect(&a.netns, protocol, (VIRTUAL, 80).into()).unwrap();
            client.measure(2_000).unwrap();
            client.close().unwrap();
        });
        assert_eq!(count, 0, "{protocol:?}");
    }
    // Conntrack is sure of a UDP flow after two seconds.
    let mut client = Client::connect(&a.netns, Protocol::Udp, (VIRTUAL, 80).into()).unwrap();
    let count = redirected(node, || {
        for _ in 0..25 {
            client.measure(100).unwrap();
            thread::sleep(Duration::from_millis(100));
        }
    });
    assert_eq!(count, 0);
    assert!(conntrack(node, &["-L", "-p", "udp"]).contains("ASSURED"));
}

#[test]
fn a_promoted_flow_that_conntrack_forgets_goes_on_and_a_translated_one_from_its_port_is_right() {
    let lab = lab("forgotten");
    let node = &lab.nodes[0];
    let (a, b, _server) = pair(node);
    rules::nft(node, &rules::cluster_ip(VIRTUAL, 80, b.address().unwrap(), PORT)).unwrap();
    let socket = a.netns.run(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let exchange = |address: SocketAddr| {
        socket.send_to(b"x", address).unwrap();
        assert_eq!(socket.recv_from(&mut [0; 8]).unwrap().1, address);
    };
    let count = redirected(node, || (0..200).for_each(|_| exchange(to(&b))));
    assert!(count > 350, "{count} packets were redirected");
    conntrack(node, &["-F"]);
    let count = redirected(node, || (0..200).for_each(|_| exchange(to(&b))));
    assert!(count > 390, "{count} packets were redirected");
    // Conntrack knows of no flow whose answers these might be taken for, and leaves the port as it is.
    conntrack(node, &["-F"]);
    let translated = SocketAddr::new(IpAddr::V4(VIRTUAL), 80);
    let count = redirected(node, || (0..200).for_each(|_| exchange(translated)));
    assert_eq!(count, 0);
}

#[test]
fn a_flow_that_conntrack_does_not_track_is_redirected_and_works() {
    let lab = lab("untracked");
    let node = &lab.nodes[0];
    let (a, b, _server) = pair(node);
    rules::nft(
        node,
        "table ip untracked { chain first { type filter hook prerouting priority raw; udp dport 8080 notrack; udp sport 8080 notrack; }; }",
    )
    .unwrap();
    let count = redirected(node, || {
        Client::connect(&a.netns, Protocol::Udp, to(&b)).unwrap().measure(1_000).unwrap();
    });
    assert!(count > 1_900, "{count} of about 2,000");
    assert!(!conntrack(node, &["-L", "-p", "udp"]).contains("8080"));
}

#[test]
fn what_the_node_itself_asks_of_its_pods_is_answered_and_never_redirected() {
    let lab = lab("probes");
    let node = &lab.nodes[0];
    let (_a, b, _server) = pair(node);
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let count = redirected(node, || {
            let mut client = Client::connect(&node.netns, protocol, to(&b)).unwrap();
            client.measure(500).unwrap();
            client.close().unwrap();
        });
        assert_eq!(count, 0, "{protocol:?}");
    }
}

#[test]
fn one_socket_may_talk_to_a_pod_and_to_a_virtual_address_of_the_same_pod() {
    let lab = lab("twin");
    let node = &lab.nodes[0];
    let (a, b, _server) = pair(node);
    rules::nft(node, &rules::cluster_ip(VIRTUAL, 80, b.address().unwrap(), PORT)).unwrap();
    let direct = to(&b);
    let translated = SocketAddr::new(IpAddr::V4(VIRTUAL), 80);
    for order in [[direct, translated], [translated, direct]] {
        let socket = a.netns.run(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap()).unwrap();
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
    let lab = lab("tcp-twins");
    let node = &lab.nodes[0];
    let (a, b, _server) = pair(node);
    rules::nft(node, &rules::cluster_ip(VIRTUAL, 80, b.address().unwrap(), PORT)).unwrap();
    let direct = to(&b);
    let translated = SocketAddr::new(IpAddr::V4(VIRTUAL), 80);
    for (port, order) in [(40_001, [direct, translated]), (40_002, [translated, direct])] {
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
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::from(([0, 0, 0, 0], port))))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    let stream = TcpStream::from(fd);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    Ok(stream)
}

#[test]
fn a_connection_that_is_reset_after_more_than_two_gigabytes_does_not_leave_its_peer_hanging() {
    let lab = lab("reset");
    let node = &lab.nodes[0];
    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    rules::nft(node, &rules::cluster_ip(VIRTUAL, 80, b.address().unwrap(), PORT)).unwrap();
    let listener = b.netns.run(|| TcpListener::bind(("0.0.0.0", PORT)).unwrap()).unwrap();
    let count = redirected(node, || {
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
                let mut buffer = vec![0; 1 << 20];
                loop {
                    if let Err(error) = stream.read(&mut buffer) {
                        return error.kind();
                    }
                }
            });
            let mut stream = a.netns.run(|| TcpStream::connect(to(&b)).unwrap()).unwrap();
            let chunk = vec![0; 1 << 20];
            for _ in 0..2_600 {
                stream.write_all(&chunk).unwrap();
            }
            // So closes a process that dies with data unread.
            setsockopt(&stream, Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
            drop(stream);
            assert_eq!(reader.join().unwrap(), std::io::ErrorKind::ConnectionReset);
        });
    });
    assert!(count > 10_000, "{count} packets were redirected");
}

#[test]
fn a_new_pod_with_the_address_of_an_old_one_gets_what_is_sent_to_it() {
    let lab = lab("reuse");
    let node = &lab.nodes[0];
    let (a, old) = (pool(node, "a"), pool(node, "old"));
    let server = Server::start(&old.netns, PORT).unwrap();
    let destination = to(&old);
    let mut client = Client::connect(&a.netns, Protocol::Udp, destination).unwrap();
    let count = redirected(node, || assert!(client.measure(100).is_ok()));
    assert!(count > 150);
    let mut connection = Client::connect(&a.netns, Protocol::Tcp, destination).unwrap();
    let count = redirected(node, || assert!(connection.measure(100).is_ok()));
    assert!(count > 150);
    old.del(node).unwrap();
    drop(server);
    let new = pool(node, "new");
    assert_eq!(to(&new), destination);
    let _server = Server::start(&new.netns, PORT).unwrap();
    client.exchange(b"the first packet already").unwrap();
    let count = redirected(node, || assert!(client.measure(100).is_ok()));
    assert!(count > 150, "{count} packets were redirected to the new pod");
    // The new pod knows of no connection, and says so.
    let error = connection.exchange(b"x").unwrap_err();
    assert_eq!(
        error.downcast_ref::<std::io::Error>().map(std::io::Error::kind),
        Some(ErrorKind::ConnectionReset),
        "{error:#}"
    );
    let mut connection = Client::connect(&a.netns, Protocol::Tcp, destination).unwrap();
    let count = redirected(node, || assert!(connection.measure(100).is_ok()));
    assert!(count > 150, "{count} packets were redirected to the new pod");
}

#[test]
fn a_new_pod_with_the_address_of_an_old_one_gets_what_is_sent_to_their_virtual_address() {
    let lab = lab("reuse-vip");
    let node = &lab.nodes[0];
    let (a, old) = (pool(node, "a"), pool(node, "old"));
    let server = Server::start(&old.netns, PORT).unwrap();
    rules::nft(node, &rules::cluster_ip(VIRTUAL, 80, old.address().unwrap(), PORT)).unwrap();
    let connect = |protocol| Client::connect(&a.netns, protocol, (VIRTUAL, 80).into()).unwrap();
    let mut clients = [connect(Protocol::Udp), connect(Protocol::Tcp)];
    let count = redirected(node, || clients.iter_mut().for_each(|client| assert!(client.measure(100).is_ok())));
    assert_eq!(count, 0);
    let direct = to(&old);
    let mut client = Client::connect(&a.netns, Protocol::Udp, direct).unwrap();
    let count = redirected(node, || assert!(client.measure(100).is_ok()));
    assert!(count > 150, "{count} packets were redirected to the old pod");
    old.del(node).unwrap();
    drop(server);
    let new = pool(node, "new");
    assert_eq!(to(&new), direct);
    let _server = Server::start(&new.netns, PORT).unwrap();
    let [udp, tcp] = &mut clients;
    let count = redirected(node, || {
        udp.exchange(b"the first packet already").unwrap();
        udp.measure(100).unwrap();
        // The new pod knows of no connection, and says so.
        let error = tcp.exchange(b"x").unwrap_err();
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        assert_eq!(kind, Some(ErrorKind::ConnectionReset), "{error:#}");
        connect(Protocol::Tcp).measure(100).unwrap();
    });
    assert_eq!(count, 0, "a translated flow was redirected");
    let count = redirected(node, || assert!(client.measure(100).is_ok()));
    assert!(count > 150, "{count} packets were redirected to the new pod");
}

/// The daemon looks at the setting every 2 s, and TCP tries again after at most as long.
#[test]
fn a_promoted_connection_goes_on_within_seconds_when_somebody_makes_conntrack_strict() {
    const LIBERAL: &str = "net/netfilter/nf_conntrack_tcp_be_liberal";
    let lab = lab("strict");
    let node = &lab.nodes[0];
    let (a, b, _server) = pair(node);
    node.run(Command::new("iptables").args("-A FORWARD -m conntrack --ctstate INVALID -j DROP".split(' '))).unwrap();
    let payload = vec![7; 40_000];
    let Client::Tcp(stream) = Client::connect(&a.netns, Protocol::Tcp, to(&b)).unwrap() else { panic!("a stream") };
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    let mut client = Client::Tcp(stream);
    // Far beyond the window that conntrack saw.
    let count = redirected(node, || (0..200).for_each(|_| client.exchange(&payload).unwrap()));
    assert!(count > 400, "{count} packets were redirected");
    let liberal = || node.netns.run(|| sysctl::read(LIBERAL).unwrap()).unwrap() == "1";
    // Just after the daemon's look, and so that the next packets meet conntrack, as those of a refresh do.
    node.netns.run(|| sysctl::write(LIBERAL, "0")).unwrap().unwrap();
    let start = Instant::now();
    while !liberal() {
        assert!(start.elapsed() < Duration::from_secs(10), "the daemon does not make conntrack liberal again");
        thread::sleep(Duration::from_millis(10));
    }
    node.netns.run(|| sysctl::write(LIBERAL, "0")).unwrap().unwrap();
    Generations::open(&node.pins()).unwrap().bump_all().unwrap();
    let start = Instant::now();
    client.exchange(&payload).unwrap();
    let took = start.elapsed();
    eprintln!("the exchange through strict conntrack took {took:?}");
    assert!(took > Duration::from_millis(200), "conntrack was not asked: {took:?}");
    assert!(liberal());
    (0..200).for_each(|_| client.exchange(&payload).unwrap());
    let count = redirected(node, || (0..200).for_each(|_| client.exchange(&payload).unwrap()));
    assert!(count > 400, "{count} packets were redirected");
    client.close().unwrap();
}

#[test]
fn large_fragmented_and_icmp_traffic_works_beside_a_promoted_flow() {
    let lab = lab("sizes");
    let node = &lab.nodes[0];
    let (a, b, _server) = pair(node);
    let mut udp = Client::connect(&a.netns, Protocol::Udp, to(&b)).unwrap();
    udp.measure(100).unwrap();
    for length in [1, 1_472, 1_473, 4_000, 30_000] {
        udp.exchange(&vec![7; length]).unwrap();
    }
    udp.measure(100).unwrap();
    let mut tcp = Client::connect(&a.netns, Protocol::Tcp, to(&b)).unwrap();
    for length in [1, 1_000, 65_536, 60_000] {
        (0..20).for_each(|_| tcp.exchange(&vec![7; length]).unwrap());
    }
    let address = b.address().unwrap().to_string();
    let ping = || xtask::command::output(Command::new("ping").args(["-q", "-c", "3", "-i", "0.01", &address])).unwrap();
    assert!(a.netns.run(ping).unwrap().contains(" 0% packet loss"));
}

#[test]
fn a_pod_cannot_send_with_anothers_address() {
    let lab = lab("spoof");
    let node = &lab.nodes[0];
    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    let receiver = b.netns.run(|| UdpSocket::bind(("0.0.0.0", PORT)).unwrap()).unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let spoof =
        || xtask::command::output(Command::new("ip").args("addr add 10.244.1.99/32 dev eth0".split(' '))).unwrap();
    a.netns.run(spoof).unwrap();
    let sender = a.netns.run(|| UdpSocket::bind(("10.244.1.99", 0)).unwrap()).unwrap();
    sender.send_to(b"x", to(&b)).unwrap();
    assert!(receiver.recv_from(&mut [0; 8]).is_err());
    assert_eq!(node.counters().spoofed_source, 1);
}
