//! Beside an agent that enforces network policies. The agents themselves are not here: what stands for them are rules in
//! their layout, with a fixed verdict in the place of a queue.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use xtask::lab::{
    Node, Pod, rules,
    traffic::{Client, Protocol, Server},
};

use super::{PORT, iptables, nodes, run, settle};

/// How soon rules are in force on flows that are on the fast path.
pub(super) const HEARD: Duration = Duration::from_millis(300);
/// As long, where the daemon does not hear of it: the refresh after 5 s and the grace of 1 s, and half a second for a busy
/// host.
pub(super) const UNHEARD: Duration = Duration::from_millis(6_500);
const PATIENCE: Duration = Duration::from_secs(1);

/// A flow of a pod to another that is on the fast path.
pub(super) fn promoted(node: &Node, a: &Pod, to: SocketAddr) -> Client {
    let mut client = Client::connect(&a.netns, Protocol::Udp, to).unwrap();
    if let Client::Udp(socket) = &client {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    client.measure(100).unwrap();
    let before = node.counters().redirected;
    client.measure(10).unwrap();
    assert!(node.counters().redirected > before, "the flow is not promoted");
    client
}

/// Fails unless the flow stops in time after `change` came into force.
pub(super) fn assert_stops(mut client: Client, limit: Duration, change: impl FnOnce() + Send) {
    let after = thread::scope(|scope| {
        let change = scope.spawn(|| {
            thread::sleep(Duration::from_millis(30));
            change();
            Instant::now()
        });
        let start = Instant::now();
        let mut last = start;
        while client.exchange(b"x").is_ok() {
            last = Instant::now();
            assert!(start.elapsed() < Duration::from_secs(15), "the flow goes on");
        }
        last.saturating_duration_since(change.join().unwrap())
    });
    eprintln!("the last answer came {after:?} after the policy");
    assert!(after < limit, "{after:?}");
}

/// The table of kube-network-policies, which its agent replaces at every change:
/// <https://github.com/kubernetes-sigs/kube-network-policies/blob/main/pkg/dataplane/controller.go>. Where that queues
/// packets of pods with a policy, this has a verdict; where that has a label of conntrack for what was accepted, a mark.
fn agent(node: &Node, pods: [SocketAddr; 2], verdict: &str) {
    let [v4, v6] = pods.map(|pod| pod.ip());
    let script = format!(
        "table inet kube-network-policies\n delete table inet kube-network-policies\n\
         table inet kube-network-policies {{\n\
         set podips-v4 {{ type ipv4_addr; elements = {{ {v4} }}; }}\n set podips-v6 {{ type ipv6_addr; elements = {{ {v6} }}; }}\n\
         chain postrouting {{ type filter hook postrouting priority srcnat - 5; policy accept;\n\
         ct mark 0x64 ct state established,related counter accept\n\
         ip saddr @podips-v4 counter {verdict}\n ip daddr @podips-v4 counter {verdict}\n\
         ip6 saddr @podips-v6 counter {verdict}\n ip6 daddr @podips-v6 counter {verdict}\n }}\n }}"
    );
    rules::nft(node, &script).unwrap();
}

#[test]
fn the_layout_of_kube_network_policies_sees_first_packets_and_its_verdicts_stop_promoted_flows_in_time() {
    let mut lab = nodes("policy", 1);
    lab.start_daemons().unwrap();
    let node = &lab.nodes[0];
    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    let _server = Server::start(&b.netns, PORT).unwrap();
    let pods: [SocketAddr; 2] =
        b.addresses().into_iter().map(|ip| SocketAddr::new(ip, PORT)).collect::<Vec<_>>().try_into().unwrap();
    for (index, to) in pods.into_iter().enumerate() {
        agent(node, pods, "accept");
        settle();
        let client = promoted(node, &a, to);
        let daddr = run(&node.netns, "nft list chain inet kube-network-policies postrouting");
        let daddr = daddr.lines().find(|line| line.contains(["ip daddr", "ip6 daddr"][index])).unwrap();
        assert!(!daddr.contains("packets 0 "), "the first packets were not seen: {daddr}");
        assert_stops(client, HEARD, || agent(node, pods, "drop"));

        // What was accepted stays so, until the agent takes its word back: that is no change of rules.
        agent(node, pods, "ct mark set 0x64 accept");
        settle();
        let mut client = promoted(node, &a, to);
        agent(node, pods, "drop");
        settle();
        client.measure(10).unwrap();
        let family = ["ipv4", "ipv6"][index];
        let back = format!("conntrack -U -f {family} -p udp -d {} --mark 0", to.ip());
        assert_stops(client, UNHEARD, || drop(run(&node.netns, &back)));
    }
}

#[test]
fn packets_that_are_queued_to_nobody_pass_where_the_queue_may_be_bypassed_and_stop_where_it_may_not() {
    for backend in ["nft", "legacy"] {
        let mut lab = nodes("queue", 1);
        lab.start_daemons().unwrap();
        let node = &lab.nodes[0];
        let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
        let _server = Server::start(&b.netns, PORT).unwrap();
        iptables(node, &format!("iptables-{backend} -A FORWARD -j NFQUEUE --queue-num 100 --queue-bypass"));
        settle();
        let client = promoted(node, &a, SocketAddr::new(b.addresses()[0], PORT));
        let closed = format!("iptables-{backend} -I FORWARD -j NFQUEUE --queue-num 100");
        assert_stops(client, HEARD, || drop(iptables(node, &closed)));
    }
}
