//! Beside an agent of network policies that decides packet by packet in a process, behind a queue of netfilter. The policy
//! is ours; queue, verdicts and marks of conntrack are the kernel's.

use std::{
    collections::HashSet,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nfq::{Queue, Verdict};
use xtask::lab::{
    Lab, Node, Pod, rules,
    traffic::{Client, Protocol, Server},
};

use super::{
    IPTABLES, PORT, iptables, nodes,
    policy::{HEARD, UNHEARD, assert_stops, promoted},
    run, settle,
};

const QUEUE: u16 = 100;
/// What accepted packets bear, and in conntrack accepted connections.
const ACCEPTED: u32 = 0x64;
/// How long nothing is heard of what does not pass.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the agent decides by.
#[derive(Debug, Default)]
struct Policy {
    /// Pods that get packets at these addresses and ports alone, and from them.
    allowed: Mutex<HashSet<SocketAddr>>,
    /// How many packets it was asked about.
    asked: AtomicUsize,
}

/// Reads the queue until it is killed. Then there is nobody on the queue.
struct Agent {
    policy: Arc<Policy>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    fn start(node: &Node) -> Self {
        let mut queue = node.netns.run(Queue::open).unwrap().unwrap();
        queue.bind(QUEUE).unwrap();
        queue.set_nonblocking(true);
        let (policy, end) = (Arc::<Policy>::default(), Arc::<AtomicBool>::default());
        let thread = thread::spawn({
            let (policy, end) = (Arc::clone(&policy), Arc::clone(&end));
            move || {
                while !end.load(Relaxed) {
                    let Ok(mut packet) = queue.recv() else {
                        thread::sleep(Duration::from_micros(200));
                        continue;
                    };
                    let allowed = policy.allows(packet.get_payload());
                    policy.asked.fetch_add(1, Relaxed);
                    if allowed {
                        packet.set_nfmark(ACCEPTED);
                    }
                    packet.set_verdict(if allowed { Verdict::Accept } else { Verdict::Drop });
                    queue.verdict(packet).unwrap();
                }
                // A process that another test started may have a copy of the socket, so that closing it is not enough.
                queue.unbind(QUEUE).unwrap();
            }
        });
        Self { policy, end, thread: Some(thread) }
    }

    fn allow(&self, to: &[SocketAddr]) {
        *self.policy.allowed.lock().unwrap() = to.iter().copied().collect();
    }

    fn asked(&self) -> usize {
        self.policy.asked.load(Relaxed)
    }
}

impl Policy {
    fn allows(&self, packet: &[u8]) -> bool {
        let packet = SlicedPacket::from_ip(packet).unwrap();
        let (source, destination) = match packet.net {
            Some(NetSlice::Ipv4(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            Some(NetSlice::Ipv6(ip)) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            _ => return true,
        };
        let (from, to) = match packet.transport {
            Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
            Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
            // Neighbours and errors are let through, as by the agents.
            _ => return true,
        };
        let allowed = self.allowed.lock().unwrap();
        allowed.contains(&SocketAddr::new(source, from)) || allowed.contains(&SocketAddr::new(destination, to))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end.store(true, Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

/// Queues what pods send and get, as kube-network-policies does in its table. `nft` writes that as `queue`, which kernels
/// may lack; the target of iptables leads to the same queues. Where the agent remembers, a mark of conntrack stands for the
/// label that it sets, and what bears it is not queued.
fn queue(node: &Node, remembers: bool) {
    for program in IPTABLES {
        let rule = |rule: &str| drop(iptables(node, &format!("{program}-nft -t mangle -A POSTROUTING {rule}")));
        if remembers {
            rule(&format!("-m connmark --mark {ACCEPTED} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"));
        }
        rule(&format!("-j NFQUEUE --queue-num {QUEUE}"));
    }
    if remembers {
        table(node);
    }
}

/// Writes the agent's table, which remembers what was accepted.
fn table(node: &Node) {
    let script = format!(
        "table inet kube-network-policies\n delete table inet kube-network-policies\n\
         table inet kube-network-policies {{\n\
         chain postrouting {{ type filter hook postrouting priority srcnat - 5; policy accept;\n\
         meta mark {ACCEPTED} ct mark set {ACCEPTED}\n }}\n }}"
    );
    rules::nft(node, &script).unwrap();
}

struct Bed {
    agent: Agent,
    a: Pod,
    /// Where the other pod answers.
    to: Vec<SocketAddr>,
    _server: Server,
    lab: Lab,
}

/// Two pods and an agent that allows one to dial the other.
fn bed(name: &str, remembers: bool) -> Bed {
    let mut lab = nodes(name, 1);
    lab.start_daemons().unwrap();
    let node = &lab.nodes[0];
    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    let server = Server::start(&b.netns, PORT).unwrap();
    let to: Vec<_> = b.addresses().into_iter().map(|ip| SocketAddr::new(ip, PORT)).collect();
    let agent = Agent::start(node);
    agent.allow(&to);
    queue(node, remembers);
    settle();
    Bed { agent, a, to, _server: server, lab }
}

impl Bed {
    fn node(&self) -> &Node {
        &self.lab.nodes[0]
    }

    /// Forgets that connections to an address were accepted.
    fn take_back(&self, to: SocketAddr) {
        let family = if to.is_ipv4() { "ipv4" } else { "ipv6" };
        run(&self.node().netns, &format!("conntrack -U -f {family} -p udp -d {} --mark 0", to.ip()));
    }
}

#[test]
fn an_agent_on_a_queue_decides_about_every_new_connection_and_about_promoted_ones_within_the_stated_times() {
    let bed = bed("agent", true);
    for &to in &bed.to {
        bed.agent.allow(&[]);
        let before = bed.agent.asked();
        assert!(!passes(&bed.a, to), "what it denies does not pass");
        assert!(bed.agent.asked() > before);
        bed.agent.allow(&bed.to);
        assert!(passes(&bed.a, to));
        let before = bed.agent.asked();
        let mut client = promoted(bed.node(), &bed.a, to);
        assert_eq!(bed.agent.asked(), before + 1, "once about a connection");

        // Nobody asks it about the connections that there are, with or without a fast path.
        bed.agent.allow(&[]);
        assert!(!passes(&bed.a, to), "a new connection");
        client.measure(10).unwrap();
        assert_stops(client, UNHEARD, || bed.take_back(to));

        bed.agent.allow(&bed.to);
        let client = promoted(bed.node(), &bed.a, to);
        assert_stops(client, HEARD, || {
            bed.agent.allow(&[]);
            bed.take_back(to);
            table(bed.node());
        });
    }
}

#[test]
fn an_agent_that_wants_every_packet_gets_those_of_the_stack_and_its_end_stops_old_and_new_connections() {
    let Bed { lab, a, to, agent, _server } = bed("asked", false);
    let node = &lab.nodes[0];
    let client = promoted(node, &a, to[0]);
    let asked = agent.asked();
    assert!(asked >= 16, "eight packets of each direction cross the stack: {asked}");
    assert_stops(client, UNHEARD, || drop(agent));
    for to in to {
        assert!(!passes(&a, to), "nobody accepts");
    }
}

/// Whether a new conversation of a pod is let through, over TCP and over UDP.
fn passes(a: &Pod, to: SocketAddr) -> bool {
    let by_tcp = a.netns.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap().is_ok();
    let mut client = Client::connect(&a.netns, Protocol::Udp, to).unwrap();
    if let Client::Udp(socket) = &client {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let by_udp = client.exchange(b"x").is_ok();
    assert_eq!(by_tcp, by_udp, "{to}");
    by_tcp
}
