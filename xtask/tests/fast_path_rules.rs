//! How soon a rule or a route that comes later takes effect on promoted flows, and what does not disturb them. Needs root.

use std::{
    fs,
    net::SocketAddr,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use xtask::lab::{
    Families, Lab, Node, Pod, Programs, rules,
    traffic::{Client, Protocol, Server},
};

const PORT: u16 = 8080;
/// What is promised where the daemon hears of the change.
const HEARD: Duration = Duration::from_millis(300);
/// What is promised in any case: the refresh after 5 s and the grace of 1 s, and half a second for a busy host.
const UNHEARD: Duration = Duration::from_millis(6_500);
/// How long a flow is silent until it counts as stopped.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often each promise is put to the test.
const RUNS: usize = 5;
const DENY: &str = "table ip deny { chain forward { type filter hook forward priority 0; policy drop;\n }\n }";

fn lab(name: &str) -> Lab {
    let mut lab = Lab::new(&format!("mnirule-{name}"), 1, Programs::beside_us().unwrap()).unwrap();
    lab.start_daemons().unwrap();
    lab
}

/// Two pods, of which the second answers.
fn pair(node: &Node) -> (Pod, SocketAddr, Server) {
    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    let server = Server::start(&b.netns, PORT).unwrap();
    (a, (b.address().unwrap(), PORT).into(), server)
}

/// Waits until the daemon has called the flows for everything so far, the wiring of a lab for example.
fn settle() {
    thread::sleep(Duration::from_millis(300));
}

/// A flow that is on the fast path.
fn promoted(node: &Node, a: &Pod, protocol: Protocol, to: SocketAddr) -> Client {
    let mut client = Client::connect(&a.netns, protocol, to).unwrap();
    match &client {
        Client::Tcp(stream) => stream.set_read_timeout(Some(PATIENCE)).unwrap(),
        Client::Udp(socket) => socket.set_read_timeout(Some(PATIENCE)).unwrap(),
    }
    client.measure(100).unwrap();
    let before = node.counters().redirected;
    client.measure(10).unwrap();
    assert!(node.counters().redirected > before, "the {protocol:?} flow is not promoted");
    client
}

/// How long after `change` came into force the last answer arrived; fails if that is longer than `limit`.
fn stopped_after(client: &mut Client, limit: Duration, change: impl FnOnce() + Send) -> Duration {
    thread::scope(|scope| {
        let change = scope.spawn(|| {
            thread::sleep(Duration::from_millis(30));
            change();
            Instant::now()
        });
        let mut last = Instant::now();
        let start = last;
        while client.exchange(b"x").is_ok() {
            last = Instant::now();
            assert!(start.elapsed() < Duration::from_secs(20), "the flow goes on");
        }
        let changed = change.join().unwrap();
        assert!(changed < last + PATIENCE, "the flow stopped before the change");
        let after = last.saturating_duration_since(changed);
        assert!(after < limit, "the last answer came {after:?} after the change");
        after
    })
}

fn run(node: &Node, command: &str) {
    let mut words = command.split_whitespace();
    let lock = ("XTABLES_LOCKFILE", node.xtables_lock());
    node.run(Command::new(words.next().unwrap()).args(words).envs([lock])).unwrap();
}

#[test]
fn an_nftables_rule_stops_promoted_flows_within_300_ms() {
    let lab = lab("nft");
    let node = &lab.nodes[0];
    let (a, to, _server) = pair(node);
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let mut times: Vec<_> = (0..RUNS)
            .map(|_| {
                settle();
                let mut client = promoted(node, &a, protocol, to);
                let time = stopped_after(&mut client, HEARD, || rules::nft(node, DENY).unwrap());
                rules::nft(node, "delete table ip deny").unwrap();
                time
            })
            .collect();
        times.sort();
        eprintln!("{protocol:?}: median {:?}, longest {:?}", times[times.len() / 2], times[times.len() - 1]);
    }
}

#[test]
fn whatever_the_daemon_can_hear_of_stops_a_promoted_flow_within_300_ms() {
    let lab = lab("heard");
    let node = &lab.nodes[0];
    let (a, to, _server) = pair(node);
    let b = to.ip();
    run(node, "ip rule add pref 99 lookup 77");
    for (command, undo) in [
        ("iptables-nft -A FORWARD -j DROP".to_owned(), "iptables-nft -D FORWARD -j DROP".to_owned()),
        ("iptables-legacy -A FORWARD -j DROP".to_owned(), "iptables-legacy -D FORWARD -j DROP".to_owned()),
        (format!("ip rule add pref 98 to {b} blackhole"), "ip rule del pref 98".to_owned()),
        (format!("ip route add blackhole {b} table 77"), format!("ip route del blackhole {b} table 77")),
        (format!("ip address add {b}/32 dev lo"), format!("ip address del {b}/32 dev lo")),
    ] {
        settle();
        let mut client = promoted(node, &a, Protocol::Udp, to);
        let time = stopped_after(&mut client, HEARD, || run(node, &command));
        eprintln!("{command}: {time:?}");
        run(node, &undo);
        client.measure(10).unwrap_or_else(|error| panic!("after {undo}: {error}"));
    }
}

#[test]
fn without_a_daemon_or_without_the_lock_of_iptables_a_rule_stops_a_promoted_flow_within_six_seconds() {
    let lab = lab("unheard");
    let node = &lab.nodes[0];
    let (a, to, _server) = pair(node);
    settle();
    let mut client = promoted(node, &a, Protocol::Udp, to);
    let secret = || {
        let mut iptables = Command::new("iptables-legacy");
        iptables.args("-A FORWARD -j DROP".split(' '));
        node.run(iptables.env("XTABLES_LOCKFILE", node.xtables_lock().with_extension("other"))).unwrap();
    };
    let time = stopped_after(&mut client, UNHEARD, secret);
    eprintln!("unheard by the daemon: {time:?}");
    run(node, "iptables-legacy -F");

    node.stop_daemon().unwrap();
    let mut client = promoted(node, &a, Protocol::Udp, to);
    let time = stopped_after(&mut client, UNHEARD, || rules::nft(node, DENY).unwrap());
    eprintln!("without a daemon: {time:?}");
    // And comes back when the rule goes.
    rules::nft(node, "delete table ip deny").unwrap();
    client.measure(10).unwrap();
}

#[test]
fn fifty_pods_that_come_and_go_leave_a_promoted_flow_where_it_is() {
    let mut lab = Lab::with_families("mnirule-churn", 1, Programs::beside_us().unwrap(), Families::Dual).unwrap();
    lab.start_daemons().unwrap();
    let node = &lab.nodes[0];
    let (a, to, _server) = pair(node);
    settle();
    let mut client = promoted(node, &a, Protocol::Udp, to);
    let before = node.counters();
    let (done, mut exchanges) = (AtomicBool::new(false), 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let pods: Vec<_> = (0..50).map(|number| node.pod(&format!("churn{number}")).unwrap()).collect();
            // All at once: that is when there is most to hear.
            thread::scope(|scope| pods.iter().for_each(|pod| drop(scope.spawn(|| pod.del(node).unwrap()))));
            settle();
            done.store(true, Relaxed);
        });
        while !done.load(Relaxed) {
            client.exchange(b"x").unwrap();
            exchanges += 1;
        }
    });
    let after = node.counters();
    assert_eq!(after.demoted, before.demoted, "the flow had to prove itself again");
    let redirected = after.redirected - before.redirected;
    assert!(redirected > exchanges * 19 / 10, "{redirected} packets of {exchanges} exchanges");
}

#[test]
fn a_burst_of_transactions_calls_the_flows_a_few_times_only_and_its_last_rule_counts() {
    let lab = lab("burst");
    let node = &lab.nodes[0];
    let (a, to, _server) = pair(node);
    settle();
    let mut client = promoted(node, &a, Protocol::Udp, to);
    rules::nft(node, "table ip t { chain forward { type filter hook forward priority 0; policy accept;\n }\n }")
        .unwrap();
    client.measure(100).unwrap();
    let before = node.counters().demoted;
    let mut calls = 0;
    let mut took = Duration::ZERO;
    let time = stopped_after(&mut client, HEARD, || {
        let start = Instant::now();
        for port in 0..200 {
            run(node, &format!("nft add rule ip t forward udp dport {} drop", 20_000 + port));
            if let Some(pause) = (port * Duration::from_millis(5)).checked_sub(start.elapsed()) {
                thread::sleep(pause);
            }
        }
        took = start.elapsed();
        // Each call ends the promotion of the one flow there is, which has it again at once.
        calls = node.counters().demoted - before;
        run(node, &format!("nft add rule ip t forward udp dport {PORT} drop"));
    });
    eprintln!("200 transactions in {took:?}: {calls} calls; the last answer came {time:?} after the last rule");
    let most = took.as_millis() / 200 + 2;
    assert!((2..=most).contains(&u128::from(calls)), "{calls} calls in {took:?}");
}

#[test]
fn what_the_daemon_cannot_hear_of_is_a_problem_that_status_names_and_the_rest_works() {
    let mut lab = Lab::new("mnirule-deaf", 1, Programs::beside_us().unwrap()).unwrap();
    fs::create_dir_all(lab.nodes[0].xtables_lock()).unwrap();
    lab.start_daemons().unwrap();
    let node = &lab.nodes[0];
    settle();
    let report = fs::read_to_string(node.state_dir().join("daemon.json")).unwrap();
    assert!(
        report.contains("changes of iptables-legacy rules take effect on flows of the fast path after 6 s"),
        "{report}"
    );
    let (a, to, _server) = pair(node);
    settle();
    let mut client = promoted(node, &a, Protocol::Udp, to);
    stopped_after(&mut client, HEARD, || run(node, "iptables-nft -A FORWARD -j DROP"));
}
