use super::{calm, destinations, did_nothing, in_namespace, ip, keep_reconciled, pass};
use crate::daemon::{
    nodes::Node,
    plan::Op,
    routes::{ApplyError, Kernel},
    watch::RouteWatch,
};
use std::{
    future::Future,
    time::{Duration, Instant},
};

const ROUTE_A: &str = "fd44:0:0:1::/64 via fd00::2 dev up0 proto 109 metric 1024";
const ROUTE_B: &str = "fd44:0:0:2::/64 via fd00::3 dev up0 proto 109 metric 1024";

/// As [`in_namespace`], with `fd00::1/64` on `up0` too.
fn in_namespace6<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    in_namespace(|| {
        ip("address add fd00::1/64 dev up0 nodad");
        test()
    });
}

/// The IPv6 routes of the main table, without those that the kernel made, and without the preference.
fn routes() -> Vec<String> {
    let routes = ip("-6 -N route show table main");
    let routes = routes.lines().map(|line| line.split(" pref ").next().unwrap_or_default().to_owned());
    routes.filter(|line| !line.contains("proto 2")).collect()
}

fn node(name: &str, number: u8) -> Node {
    Node {
        name: name.into(),
        pod_cidrs: vec![format!("fd44:0:0:{number}::/64").parse().unwrap()],
        internal_ips: vec![format!("fd00::{}", number + 1).parse().unwrap()],
    }
}

fn three_nodes() -> Vec<Node> {
    vec![node("me", 0), node("a", 1), node("b", 2)]
}

#[test]
fn nodes_with_ipv6_alone_get_their_routes_and_another_pass_changes_nothing() {
    in_namespace6(|| async {
        let kernel = Kernel::new().unwrap();
        let report = pass(&three_nodes(), &kernel).await;
        assert_eq!(routes(), [ROUTE_A, ROUTE_B]);
        assert!(report.problems.is_empty() && report.errors.is_empty(), "{report:?}");
        assert_eq!(kernel.actual().await.unwrap(), report.desired);
        for _ in 0..3 {
            assert!(did_nothing(&pass(&three_nodes(), &kernel).await));
        }
    });
}

#[test]
fn nodes_with_both_families_get_a_route_of_each() {
    in_namespace6(|| async {
        let kernel = Kernel::new().unwrap();
        let mut nodes = three_nodes();
        for (node, other) in nodes.iter_mut().zip(super::three_nodes()) {
            node.pod_cidrs.extend(other.pod_cidrs);
            node.internal_ips.extend(other.internal_ips);
        }
        let report = pass(&nodes, &kernel).await;
        assert_eq!((report.added.len(), report.problems.len(), report.errors.len()), (4, 0, 0));
        assert_eq!(
            (routes(), super::routes()),
            (vec![ROUTE_A.into(), ROUTE_B.into()], vec![super::ROUTE_A.into(), super::ROUTE_B.into()])
        );
        assert!(did_nothing(&pass(&nodes, &kernel).await));
        let report = pass(&super::three_nodes(), &kernel).await;
        assert_eq!(destinations(&report.deleted), ["fd44:0:0:1::/64", "fd44:0:0:2::/64"]);
        assert_eq!((routes().len(), super::routes().len()), (0, 2));
    });
}

#[test]
fn a_node_with_a_new_ipv6_address_has_its_route_replaced() {
    in_namespace6(|| async {
        let kernel = Kernel::new().unwrap();
        let mut nodes = three_nodes();
        pass(&nodes, &kernel).await;
        nodes[1].internal_ips = vec!["fd00::77".parse().unwrap()];
        let report = pass(&nodes, &kernel).await;
        assert_eq!(destinations(&report.replaced), ["fd44:0:0:1::/64"]);
        assert_eq!(routes(), ["fd44:0:0:1::/64 via fd00::77 dev up0 proto 109 metric 1024", ROUTE_B]);
        assert!(did_nothing(&pass(&nodes, &kernel).await));
    });
}

#[test]
fn ipv6_leftovers_with_our_protocol_are_swept_whatever_they_look_like() {
    in_namespace6(|| async {
        let kernel = Kernel::new().unwrap();
        for leftover in [
            "fd44:0:0:1::/64 via fd00::9 metric 50",
            "fd50::/32 dev up0",
            "blackhole fd51::/32",
            "fd52::/32 nexthop via fd00::8 nexthop via fd00::9",
            "default via fd00::9",
        ] {
            ip(&format!("-6 route add proto 109 {leftover}"));
        }
        // The kernel makes one route with two next hops of these.
        ip("-6 route append fd44:0:0:2::/64 via fd00::8 proto 109");
        ip("-6 route append fd44:0:0:2::/64 via fd00::9 proto 109");
        let report = pass(&three_nodes(), &kernel).await;
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        assert_eq!(routes(), [ROUTE_A, ROUTE_B]);
        assert!(did_nothing(&pass(&three_nodes(), &kernel).await));
    });
}

#[test]
fn a_foreign_ipv6_route_is_left_alone_and_reported_where_it_is_in_the_way() {
    in_namespace6(|| async {
        let kernel = Kernel::new().unwrap();
        ip("-6 route add fd44:0:0:1::/64 via fd00::9 proto static");
        ip("-6 route add fd44:0:0:2::/64 via fd00::9 proto static metric 2000");
        let report = pass(&three_nodes(), &kernel).await;
        let [error @ ApplyError::Foreign { protocol: 4, op: Op::Add(_), .. }] = report.errors.as_slice() else {
            panic!("{:?}", report.errors)
        };
        assert!(error.to_string().contains("see `ip -6 route show fd44:0:0:1::/64`"), "{error}");
        let foreign = [
            "fd44:0:0:1::/64 via fd00::9 dev up0 proto 4 metric 1024",
            "fd44:0:0:2::/64 via fd00::9 dev up0 proto 4 metric 2000",
        ];
        assert_eq!(routes(), [foreign[0], ROUTE_B, foreign[1]]);
    });
}

#[test]
fn only_addresses_that_other_hosts_can_know_make_a_network_reachable() {
    in_namespace6(|| async {
        let kernel = Kernel::new().unwrap();
        ip("address add fe80::1/64 dev up0 nodad");
        // Nobody answers for this one during detection, which takes a second.
        ip("address add fd01::1/64 dev up0");
        let shown = ip("-6 address show dev up0");
        assert!(shown.contains("fe80::") && shown.contains("fd01::1/64 scope global tentative"), "{shown}");
        let networks = || async {
            let local = kernel.local_prefixes().await.unwrap();
            let local = local.into_iter().filter(|prefix| prefix.ifname == "up0" && prefix.address.is_ipv6());
            local.map(|prefix| prefix.on_link.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(networks().await, ["fd00::/64"]);
        let mut watch = RouteWatch::new().unwrap();
        let start = Instant::now();
        while networks().await.len() < 2 {
            let left = Duration::from_secs(5).saturating_sub(start.elapsed());
            tokio::time::timeout(left, watch.changed()).await.expect("the end of detection was not seen").unwrap();
        }
    });
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
fn whatever_takes_our_ipv6_routes_away_they_are_back_within_a_second() {
    in_namespace6(|| async {
        let nodes = three_nodes();
        let hands = async {
            let mut watch = RouteWatch::new().unwrap();
            // The kernel takes the address along when the link goes down.
            for (harm, repair) in [
                ("route del fd44:0:0:1::/64", None),
                ("route flush proto 109", None),
                ("link set up0 down", Some("link set up0 up")),
                ("address del fd00::1/64 dev up0", Some("address add fd00::1/64 dev up0 nodad")),
                ("route change fd44:0:0:2::/64 via fd00::9 proto 109", None),
                ("route append fd44:0:0:2::/64 via fd00::9 proto 109", None),
            ] {
                restored().await;
                // So that it is not the echo of the last change which wakes the loop.
                calm(&mut watch).await;
                ip(&format!("-6 {harm}"));
                if let Some(repair) = repair {
                    calm(&mut watch).await;
                    assert_eq!(routes(), Vec::<String>::new(), "{harm}");
                    ip(&format!("-6 {repair}"));
                    if harm.starts_with("link") {
                        ip("address add fd00::1/64 dev up0 nodad");
                    }
                } else {
                    assert_ne!(routes(), [ROUTE_A, ROUTE_B], "{harm}");
                }
            }
            restored().await;
        };
        tokio::select! {
            () = hands => {}
            () = keep_reconciled(&nodes) => {}
        }
    });
}
