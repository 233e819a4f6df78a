//! Against the real kernel: every test runs in a network namespace of its own and needs root.

mod rules;
mod sweep;

use std::fmt::Write;
use std::future::Future;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

use super::nodes::Node;
use super::plan::{Op, RouteSpec};
use super::problems::Reason;
use super::reconcile::{Report, reconcile, reconcile_from};
use super::routes::{ApplyError, Kernel};
use super::underlay::{Encapsulation, Settings};
use super::watch::RouteWatch;

mod ipv6;
mod tunnel;

/// Runs `test` on a thread of its own, in a new network namespace that ends with it. There `up0` is 10.0.0.1/24.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a new network namespace needs root");
        for command in [
            "link set lo up",
            "link add up0 type veth peer name peer0",
            // Whose duplicates are looked for during some seconds, and then it is told of.
            "link set up0 addrgenmode none",
            "link set peer0 addrgenmode none",
            "link set peer0 up",
            "address add 10.0.0.1/24 dev up0",
            "link set up0 up",
        ] {
            ip(command);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` in the thread's namespace and returns what it prints.
#[track_caller]
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("iproute2 is needed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The routes of the main table, without the connected one.
fn routes() -> Vec<String> {
    let routes = ip("-N route show table main");
    let routes = routes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    routes.filter(|line| !line.contains("proto 2")).collect()
}

fn node(name: &str, number: u8) -> Node {
    Node {
        name: name.into(),
        pod_cidrs: vec![format!("10.244.{number}.0/24").parse().unwrap()],
        internal_ips: vec![format!("10.0.0.{}", number + 1).parse().unwrap()],
    }
}

fn three_nodes() -> Vec<Node> {
    vec![node("me", 0), node("a", 1), node("b", 2)]
}

const ROUTE_A: &str = "10.244.1.0/24 via 10.0.0.2 dev up0 proto 109";
const ROUTE_B: &str = "10.244.2.0/24 via 10.0.0.3 dev up0 proto 109";

async fn pass(nodes: &[Node], kernel: &Kernel) -> Report {
    let settings = Settings { encapsulation: Encapsulation::Never, ..Settings::default() };
    reconcile(nodes, "me", &settings, kernel).await.unwrap()
}

fn destinations(routes: &[RouteSpec]) -> Vec<String> {
    routes.iter().map(|route| route.dst.to_string()).collect()
}

fn did_nothing(report: &Report) -> bool {
    report.added.is_empty() && report.replaced.is_empty() && report.deleted.is_empty() && report.errors.is_empty()
}

#[test]
fn the_first_pass_adds_all_routes_and_the_second_does_nothing() {
    in_namespace(|| async {
        let kernel = Kernel::new().unwrap();
        let report = pass(&three_nodes(), &kernel).await;
        assert_eq!(routes(), [ROUTE_A, ROUTE_B]);
        assert_eq!(report.added, report.desired);
        assert!(report.problems.is_empty() && report.errors.is_empty(), "{report:?}");
        assert_eq!(kernel.actual().await.unwrap(), report.desired);

        let report = pass(&three_nodes(), &kernel).await;
        assert!(did_nothing(&report) && report.desired.len() == 2, "{report:?}");
    });
}

#[test]
fn a_namespace_that_never_had_a_route_is_read_as_empty() {
    in_namespace(|| async {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let kernel = Kernel::new().unwrap();
        assert_eq!(kernel.actual().await.unwrap(), []);
        assert_eq!(kernel.local_prefixes().await.unwrap(), []);
    });
}

#[test]
fn a_node_that_goes_takes_its_route_only() {
    in_namespace(|| async {
        let kernel = Kernel::new().unwrap();
        ip("route add 10.99.0.0/16 via 10.0.0.9 proto static");
        pass(&three_nodes(), &kernel).await;
        let report = pass(&[node("me", 0), node("b", 2)], &kernel).await;
        assert_eq!(destinations(&report.deleted), ["10.244.1.0/24"]);
        assert_eq!(routes(), ["10.99.0.0/16 via 10.0.0.9 dev up0 proto 4", ROUTE_B]);
    });
}

#[test]
fn while_this_node_is_missing_or_has_no_pod_cidr_no_route_changes_and_it_is_said() {
    in_namespace(|| async {
        let kernel = Kernel::new().unwrap();
        pass(&three_nodes(), &kernel).await;
        let anew = Node { pod_cidrs: Vec::new(), ..node("me", 0) };
        for (own, reason) in [(node("mee", 0), Reason::NodeMissing), (anew, Reason::PodCidrMissing)] {
            let report = pass(&[node("a", 1), own], &kernel).await;
            assert!(did_nothing(&report) && report.desired.len() == 2, "{report:?}");
            assert_eq!(routes(), [ROUTE_A, ROUTE_B]);
            let [problem] = &report.problems[..] else { panic!("{report:?}") };
            assert_eq!(problem.reason, reason);
        }
        pass(&[node("me", 0), node("b", 2)], &kernel).await;
        assert_eq!(routes(), [ROUTE_B]);
    });
}

#[test]
fn a_node_with_a_new_address_has_its_route_replaced() {
    in_namespace(|| async {
        let kernel = Kernel::new().unwrap();
        let mut nodes = three_nodes();
        pass(&nodes, &kernel).await;
        nodes[1].internal_ips = vec!["10.0.0.77".parse().unwrap()];
        let report = pass(&nodes, &kernel).await;
        assert_eq!(destinations(&report.replaced), ["10.244.1.0/24"]);
        assert_eq!(routes(), ["10.244.1.0/24 via 10.0.0.77 dev up0 proto 109", ROUTE_B]);
        assert!(did_nothing(&pass(&nodes, &kernel).await));
    });
}

#[test]
fn leftovers_with_our_protocol_are_swept_whatever_they_look_like() {
    in_namespace(|| async {
        let kernel = Kernel::new().unwrap();
        for leftover in [
            "10.244.1.0/24 via 10.0.0.9 metric 50",
            "10.50.0.0/16 dev up0 scope link",
            "blackhole 10.51.0.0/16",
            "10.52.0.0/16 nexthop via 10.0.0.8 nexthop via 10.0.0.9",
            "default via 10.0.0.9",
        ] {
            ip(&format!("route add proto 109 {leftover}"));
        }
        ip("route append 10.244.2.0/24 via 10.0.0.8 proto 109");
        ip("route append 10.244.2.0/24 via 10.0.0.9 proto 109");
        let report = pass(&three_nodes(), &kernel).await;
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        assert_eq!(routes(), [ROUTE_A, ROUTE_B]);
        assert!(did_nothing(&pass(&three_nodes(), &kernel).await));
    });
}

#[test]
fn a_foreign_route_to_the_same_destination_is_left_alone_and_reported() {
    in_namespace(|| async {
        let kernel = Kernel::new().unwrap();
        ip("route add 10.244.1.0/24 via 10.0.0.9 proto static");
        // Not in the way: another metric.
        ip("route add 10.244.2.0/24 via 10.0.0.9 proto static metric 7");
        let report = pass(&three_nodes(), &kernel).await;
        let [error @ ApplyError::Foreign { protocol: 4, op: Op::Add(_), .. }] = report.errors.as_slice() else {
            panic!("{:?}", report.errors)
        };
        assert!(error.to_string().contains("protocol 4, see `ip route show 10.244.1.0/24`"), "{error}");
        assert_eq!(destinations(&report.added), ["10.244.2.0/24"]);
        let foreign = "10.244.1.0/24 via 10.0.0.9 dev up0 proto 4";
        assert_eq!(routes(), [foreign, ROUTE_B, "10.244.2.0/24 via 10.0.0.9 dev up0 proto 4 metric 7"]);

        ip("route del 10.244.1.0/24 proto static");
        assert_eq!(destinations(&pass(&three_nodes(), &kernel).await.added), ["10.244.1.0/24"]);
    });
}

#[test]
fn a_foreign_route_put_before_ours_is_not_overwritten_when_ours_has_to_change() {
    in_namespace(|| async {
        let kernel = Kernel::new().unwrap();
        let mut nodes = three_nodes();
        pass(&nodes, &kernel).await;
        ip("route prepend 10.244.1.0/24 via 10.0.0.9 proto static");
        nodes[1].internal_ips = vec!["10.0.0.77".parse().unwrap()];
        let report = pass(&nodes, &kernel).await;
        assert!(matches!(report.errors.as_slice(), [ApplyError::Foreign { protocol: 4, .. }]), "{:?}", report.errors);
        assert_eq!(routes(), ["10.244.1.0/24 via 10.0.0.9 dev up0 proto 4", ROUTE_A, ROUTE_B]);
    });
}

#[test]
fn one_refused_route_does_not_keep_back_the_others() {
    in_namespace(|| async {
        let kernel = Kernel::new().unwrap();
        // An address without its connected route: the kernel refuses next hops there.
        ip("address add 10.5.0.1/24 dev up0 noprefixroute");
        let mut nodes = three_nodes();
        nodes[1].internal_ips = vec!["10.5.0.2".parse().unwrap()];
        let report = pass(&nodes, &kernel).await;
        let [error @ ApplyError::Refused { .. }] = report.errors.as_slice() else { panic!("{:?}", report.errors) };
        assert!(error.to_string().starts_with("cannot add the route 10.244.1.0/24 via 10.5.0.2 dev #"), "{error}");
        assert_eq!(routes(), [ROUTE_B]);
    });
}

#[test]
fn a_node_off_the_link_or_behind_a_link_that_is_down_is_a_problem() {
    in_namespace(|| async {
        let kernel = Kernel::new().unwrap();
        let mut nodes = three_nodes();
        nodes[1].internal_ips = vec!["192.0.2.1".parse().unwrap()];
        let report = pass(&nodes, &kernel).await;
        assert!(report.problems[0].to_string().contains("10.0.0.0/24 on up0"), "{:?}", report.problems);
        assert_eq!(routes(), [ROUTE_B]);

        ip("link set up0 down");
        let report = pass(&nodes, &kernel).await;
        assert!(did_nothing(&report) && report.problems.len() == 2, "{report:?}");
    });
}

#[test]
fn the_host_end_of_a_point_to_point_address_is_told_from_its_peer() {
    in_namespace(|| async {
        ip("address add 10.6.0.1 peer 10.6.0.2/32 dev up0");
        let local = Kernel::new().unwrap().local_prefixes().await.unwrap();
        let p2p = local.iter().find(|local| local.on_link == "10.6.0.2/32".parse().unwrap()).unwrap();
        assert_eq!(p2p.address.to_string(), "10.6.0.1");
        assert_eq!(p2p.ifname, "up0");
    });
}

/// Waits until the watch has nothing more to say, such as about interfaces that were just set up.
async fn calm(watch: &mut RouteWatch) {
    while tokio::time::timeout(Duration::from_millis(500), watch.changed()).await.is_ok() {}
}

/// Reconciles whenever the watch says so, as the daemon does.
async fn keep_reconciled(nodes: &[Node]) {
    let kernel = Kernel::new().unwrap();
    let mut watch = RouteWatch::new().unwrap();
    loop {
        pass(nodes, &kernel).await;
        watch.changed().await.unwrap();
    }
}

/// Waits up to a second for the routes to be those of `three_nodes`.
async fn restored() {
    let start = Instant::now();
    while routes() != [ROUTE_A, ROUTE_B] {
        assert!(start.elapsed() < Duration::from_secs(1), "not restored within 1 s: {:?}", routes());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn whatever_takes_our_routes_away_they_are_back_within_a_second() {
    in_namespace(|| async {
        let nodes = three_nodes();
        let hands = async {
            let mut watch = RouteWatch::new().unwrap();
            for harm in [
                "route del 10.244.1.0/24",
                "route flush proto 109",
                "link set up0 down",
                "address del 10.0.0.1/24 dev up0",
                "route change 10.244.2.0/24 via 10.0.0.9 proto 109",
            ] {
                restored().await;
                // So that it is not the echo of the last change which wakes the loop.
                calm(&mut watch).await;
                ip(harm);
                match harm {
                    "link set up0 down" => drop(ip("link set up0 up")),
                    "address del 10.0.0.1/24 dev up0" => drop(ip("address add 10.0.0.1/24 dev up0")),
                    _ => {}
                }
                assert_ne!(routes(), [ROUTE_A, ROUTE_B], "{harm}");
            }
            restored().await;
        };
        tokio::select! {
            () = hands => {}
            () = keep_reconciled(&nodes) => {}
        }
    });
}

#[test]
fn a_foreign_route_that_replaces_ours_wakes_the_watch() {
    in_namespace(|| async {
        let kernel = Kernel::new().unwrap();
        pass(&three_nodes(), &kernel).await;
        let mut watch = RouteWatch::new().unwrap();
        calm(&mut watch).await;
        ip("route replace 10.244.1.0/24 via 10.0.0.9 proto static");
        tokio::time::timeout(Duration::from_secs(1), watch.changed()).await.expect("nothing seen").unwrap();
    });
}

#[test]
fn the_watch_is_silent_about_foreign_routes() {
    in_namespace(|| async {
        let mut watch = RouteWatch::new().unwrap();
        calm(&mut watch).await;
        ip("route add 10.99.0.0/16 via 10.0.0.9 proto static");
        ip("route del 10.99.0.0/16");
        assert!(tokio::time::timeout(Duration::from_millis(400), watch.changed()).await.is_err());
    });
}

#[test]
fn the_watch_reports_what_others_change_and_not_what_is_changed_by_way_of_its_kernel() {
    in_namespace(|| async {
        let kernel = Kernel::new().unwrap();
        let mut watch = RouteWatch::new().unwrap().except(&kernel);
        calm(&mut watch).await;
        let (all, alone) = (three_nodes(), three_nodes()[..1].to_vec());
        let mut silent = 0;
        // Something else may come from the kernel at any time, such as an address that turns out to be nobody else's.
        for nodes in [&all, &alone, &all] {
            let report = pass(nodes, &kernel).await;
            assert!(report.added.len() + report.deleted.len() > 0, "{report:?}");
            silent += usize::from(tokio::time::timeout(Duration::from_millis(300), watch.changed()).await.is_err());
        }
        assert!(silent > 0);
        let route = kernel.actual().await.unwrap().remove(0);
        calm(&mut watch).await;
        ip(&format!("route del {}", route.dst));
        tokio::time::timeout(Duration::from_secs(1), watch.changed()).await.expect("nothing seen").unwrap();
    });
}

#[test]
fn routes_that_are_known_are_not_read_and_where_that_was_wrong_the_next_pass_reads_them() {
    in_namespace(|| async {
        let kernel = Kernel::new().unwrap();
        let settings = Settings { encapsulation: Encapsulation::Never, ..Settings::default() };
        let from = |known| {
            let (nodes, settings, kernel) = (three_nodes(), &settings, &kernel);
            async move { reconcile_from(known, &nodes, "me", settings, kernel).await.unwrap() }
        };
        let first = from(None).await;
        let known = first.actual.unwrap();
        assert_eq!(known, first.added);
        ip(&format!("route del {}", known[0].dst));
        let second = from(Some(known.clone())).await;
        assert_eq!((second.added, second.actual), (Vec::new(), Some(known.clone())));
        assert_eq!(from(None).await.added, known[..1]);
        let wrong = from(Some(known[1..].to_vec())).await;
        assert_eq!((wrong.errors.len(), wrong.actual), (1, None));
    });
}

#[test]
fn an_overrun_of_the_socket_counts_as_a_change_and_the_watch_goes_on() {
    in_namespace(|| async {
        let mut watch = RouteWatch::new().unwrap();
        calm(&mut watch).await;
        let mut batch = String::new();
        for n in 0..6000_u32 {
            writeln!(batch, "route add 10.{}.{}.0/24 via 10.0.0.9", 100 + n / 256, n % 256).unwrap();
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch).unwrap();
        ip(&format!("-batch {}", file.path().display()));
        tokio::time::timeout(Duration::from_secs(1), watch.changed()).await.expect("nothing seen").unwrap();
        tokio::time::timeout(Duration::from_secs(10), calm(&mut watch)).await.expect("it goes on and on");

        pass(&three_nodes(), &Kernel::new().unwrap()).await;
        tokio::time::timeout(Duration::from_secs(1), watch.changed()).await.expect("nothing seen").unwrap();
    });
}

#[test]
fn a_thousand_routes_move_to_another_next_hop_quickly() {
    in_namespace(|| async {
        let kernel = Kernel::new().unwrap();
        let nodes = |last: u8| -> Vec<Node> {
            let others = (0..1000_u16).map(|n| Node {
                name: format!("n{n}"),
                pod_cidrs: vec![format!("10.{}.{}.0/24", 100 + n / 256, n % 256).parse().unwrap()],
                internal_ips: vec![std::net::IpAddr::from([10, 0, 0, last])],
            });
            others.chain([node("me", 0)]).collect()
        };
        let first = pass(&nodes(7), &kernel).await;
        assert_eq!((first.added.len(), first.errors.len()), (1000, 0));
        let start = Instant::now();
        let second = pass(&nodes(8), &kernel).await;
        assert_eq!((second.replaced.len(), second.errors.len()), (1000, 0));
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    });
}
