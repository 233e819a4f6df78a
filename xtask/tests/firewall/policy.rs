//! Beside an agent that enforces network policies. The agents themselves are not here: what stands for them are rules in
//! their layout, with fixed verdicts.

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

/// How soon a policy is in force on flows that are on the fast path.
const PROMISE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(1);

/// A flow of a pod to another that is on the fast path.
fn promoted(node: &Node, a: &Pod, to: SocketAddr) -> Client {
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
fn assert_stops(mut client: Client, change: impl FnOnce() + Send) {
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
            assert!(start.elapsed() < Duration::from_secs(10), "the flow goes on");
        }
        last.saturating_duration_since(change.join().unwrap())
    });
    eprintln!("the last answer came {after:?} after the policy");
    assert!(after < PROMISE, "{after:?}");
}

#[test]
fn rules_in_the_layout_of_kube_network_policies_see_the_first_packets_and_stop_promoted_flows_within_300_ms() {
    let mut lab = nodes("policy", 1);
    lab.start_daemons().unwrap();
    let node = &lab.nodes[0];
    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    let _server = Server::start(&b.netns, PORT).unwrap();
    for (to, family, set) in b
        .addresses()
        .into_iter()
        .zip(["ip", "ip6"])
        .zip(["podips-v4", "podips-v6"])
        .map(|((to, family), set)| (to, family, set))
    {
        // The pods with a policy are in a set; the agent queues their packets, where this has a counter and a drop.
        let kind = if family == "ip" { "ipv4_addr" } else { "ipv6_addr" };
        let table = format!(
            "table inet kube-network-policies {{ set {set} {{ type {kind}; }}\n chain postrouting {{\n\
             type filter hook postrouting priority srcnat - 5; policy accept;\n\
             {family} daddr {to} counter\n {family} daddr @{set} drop\n }}\n }}"
        );
        rules::nft(node, &table).unwrap();
        settle();
        let to = SocketAddr::new(to, PORT);
        let client = promoted(node, &a, to);
        let counted = run(&node.netns, "nft list table inet kube-network-policies");
        assert!(!counted.contains("packets 0 "), "the first packets were not seen: {counted}");
        let element = |verb: &str| {
            run(&node.netns, &format!("nft {verb} element inet kube-network-policies {set} {{{}}}", to.ip()))
        };
        assert_stops(client, || drop(element("add")));
        element("delete");
        promoted(node, &a, to);
        run(&node.netns, "nft delete table inet kube-network-policies");
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
        assert_stops(client, || drop(iptables(node, &closed)));
    }
}
