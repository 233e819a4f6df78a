//! What the daemon does in the firewall, with real traffic and beside rules of others. Needs root.

mod forward;
mod masquerade;
mod policy;
mod queue;
mod real;

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use minicni::link::Netns;
use xtask::lab::{Families, Lab, Node, Pod, Programs, without_dad};

const PORT: u16 = 8080;
const IPTABLES: [&str; 2] = ["iptables", "ip6tables"];
/// How soon what somebody removed is back.
const SECOND: Duration = Duration::from_secs(1);
/// How soon pods reach each other beside a firewall that has just started.
const REACTION: Duration = Duration::from_secs(5);
/// The first node's addresses towards the host outside, and that host's.
const DOOR: [&str; 2] = ["203.0.113.1", "fd99::1"];
const OUTSIDE: [&str; 2] = ["203.0.113.9", "fd99::9"];

/// A time within which something is promised, where the machine is so many times slower as is said to us.
fn promised(limit: Duration) -> Duration {
    limit * std::env::var("MINICNI_TEST_SLOWER").map_or(1, |factor| factor.parse().unwrap())
}

/// Nodes of both families, without daemons.
fn nodes(name: &str, count: u8) -> Lab {
    Lab::with_families(&format!("mnifire-{name}"), count, Programs::beside_us().unwrap(), Families::Dual).unwrap()
}

/// A host beside the first node that knows no pod's address. It ends with the lab.
fn outside(lab: &Lab) -> Netns {
    let node = &lab.nodes[0];
    let name = node.netns_name().replace("node1", "outside");
    let outside = Netns::create_named(format!("/run/netns/{name}")).unwrap();
    without_dad(&outside).unwrap();
    ip(&node.netns, &format!("link add out0 type veth peer name out0 netns {name}"));
    for (netns, addresses) in [(&node.netns, DOOR), (&outside, OUTSIDE)] {
        ip(netns, &format!("address add {}/24 dev out0", addresses[0]));
        ip(netns, &format!("address add {}/64 dev out0 nodad", addresses[1]));
        ip(netns, "link set out0 up");
    }
    outside
}

fn ip(netns: &Netns, arguments: &str) -> String {
    run(netns, &format!("ip {arguments}"))
}

fn run(netns: &Netns, command: &str) -> String {
    let mut words = command.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    let output = netns.run(|| command.args(words).output().unwrap()).unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// As [`run`], with the lock of iptables that the node's daemon watches.
fn iptables(node: &Node, command: &str) -> String {
    let mut words = command.split_whitespace();
    let lock = ("XTABLES_LOCKFILE", node.xtables_lock());
    node.run(Command::new(words.next().unwrap()).args(words).envs([lock])).unwrap()
}

/// A socket. The one before it may still be open in a process that another test forked, until that executes its program.
fn bound<S>(bind: impl Fn() -> std::io::Result<S>) -> S {
    let start = Instant::now();
    loop {
        match bind() {
            Err(error) if error.kind() == ErrorKind::AddrInUse && start.elapsed() < Duration::from_secs(2) => {
                thread::sleep(Duration::from_millis(5));
            }
            socket => return socket.unwrap(),
        }
    }
}

/// The address from which a server sees a client's packet to `to` over UDP, if it comes soon enough.
fn seen_by_udp(client: &Netns, server: &Netns, to: SocketAddr, patience: Duration) -> Option<IpAddr> {
    let any = any(to);
    let udp = bound(|| server.run(|| UdpSocket::bind((any, PORT))).unwrap());
    udp.set_read_timeout(Some(patience)).unwrap();
    let socket = client.run(|| UdpSocket::bind((any, 0)).unwrap()).unwrap();
    // A refusal is told at once or later; nothing arrives then.
    let _ = socket.send_to(b"x", to);
    udp.recv_from(&mut [0; 8]).ok().map(|(_, from)| from.ip())
}

fn any(to: SocketAddr) -> IpAddr {
    if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() }
}

/// The address from which a server sees a client that dials `to`, over TCP and over UDP; `None` where nothing arrives.
/// The server listens on [`PORT`].
fn seen(client: &Netns, server: &Netns, to: SocketAddr) -> Option<IpAddr> {
    let patience = Duration::from_secs(2);
    let by_udp = seen_by_udp(client, server, to, patience);
    let any = any(to);
    let tcp = bound(|| server.run(|| TcpListener::bind((any, PORT))).unwrap());
    let accepted = thread::spawn(move || tcp.accept().map(|(_, from)| from.ip()).ok());
    let stream = client.run(|| TcpStream::connect_timeout(&to, patience)).unwrap();
    if stream.is_err() {
        // Ends the thread.
        drop(server.run(|| TcpStream::connect((IpAddr::from([127, 0, 0, 1]), PORT))));
    }
    let by_tcp = accepted.join().unwrap().filter(|_| stream.is_ok());
    assert_eq!(by_udp, by_tcp, "UDP and TCP to {to}");
    by_tcp
}

/// Waits until something holds.
#[track_caller]
fn eventually(limit: Duration, what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until the daemon has written, and has looked at what it wrote.
fn settle() {
    thread::sleep(Duration::from_millis(1_200));
}

/// What the daemon finds wrong, once it looked at the nodes anew.
fn problems(lab: &Lab) -> String {
    settle();
    let file = lab.nodes_file();
    fs::write(&file, fs::read_to_string(&file).unwrap()).unwrap();
    thread::sleep(Duration::from_millis(300));
    fs::read_to_string(lab.nodes[0].state_dir().join("daemon.json")).unwrap()
}

/// The nftables ruleset of a node.
fn ruleset(node: &Node) -> String {
    run(&node.netns, "nft list ruleset")
}

/// What `iptables-save` prints of all tables of a backend, without time and counters.
fn saved(node: &Node, backend: &str) -> String {
    let saved = IPTABLES.map(|program| run(&node.netns, &format!("{program}-{backend}-save")));
    let lines = saved.iter().flat_map(|saved| saved.lines()).filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(" [").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

fn without_ours(saved: &str) -> String {
    saved.lines().filter(|line| !line.contains("MINICNI-FORWARD")).collect::<Vec<_>>().join("\n")
}

/// Whether pods of one node and of two reach each other, over both families.
fn talk(a: &Pod, others: [&Pod; 2]) -> bool {
    others.iter().all(|other| {
        other.addresses().into_iter().all(|to| seen(&a.netns, &other.netns, SocketAddr::new(to, PORT)).is_some())
    })
}

/// Waits until a pod reaches others, and says how long that took.
#[track_caller]
fn reacts(what: &str, a: &Pod, others: [&Pod; 2]) {
    let start = Instant::now();
    let patience = Duration::from_millis(100);
    for other in others {
        for to in other.addresses() {
            let to = SocketAddr::new(to, PORT);
            let arrives = || seen_by_udp(&a.netns, &other.netns, to, patience).is_some();
            eventually(REACTION.saturating_sub(start.elapsed()), what, arrives);
        }
    }
    eprintln!("{what}: after {:.1?}", start.elapsed());
    assert!(talk(a, others), "{what}");
}
