use super::{calm, did_nothing, in_namespace, ip, routes as routes4};
use crate::daemon::{
    nodes::Node,
    plan::Encap,
    reconcile::{Report, reconcile, reconcile_from},
    routes::Kernel,
    tunnel::{self, TunnelError},
    underlay::{Encapsulation, Settings},
    watch::RouteWatch,
};
use crate::link::{RouteFilter, Socket, delete_route};
use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

const FAR4: &str = "10.244.2.0/24 encap ip id 109 src 0.0.0.0 dst 10.7.0.3 ttl 0 tos 0 dev minicni-vxlan proto 109";
const FAR6: &str =
    "fd44:0:0:2::/64 encap ip6 id 109 src :: dst fd07::3 hoplimit 0 tc 0 csum dev minicni-vxlan proto 109 src fd44::";
const NEAR4: &str = "10.244.1.0/24 via 10.0.0.2 dev up0 proto 109";
const NEAR6: &str = "fd44:0:0:1::/64 via fd00::2 dev up0 proto 109";

fn node(name: &str, number: u8, network: u8) -> Node {
    Node {
        name: name.into(),
        pod_cidrs: [format!("10.244.{number}.0/24"), format!("fd44:0:0:{number}::/64")]
            .map(|cidr| cidr.parse().unwrap())
            .into(),
        internal_ips: [format!("10.{network}.0.{}", number + 1), format!("fd0{network}::{}", number + 1)]
            .map(|ip| ip.parse().unwrap())
            .into(),
    }
}

/// This node, one on its network, one on another.
fn near_and_far() -> Vec<Node> {
    vec![node("me", 0, 0), node("near", 1, 0), node("far", 2, 7)]
}

fn set_up() {
    ip("address add fd00::1/64 dev up0 nodad");
    ip("route add default via 10.0.0.254");
    ip("-6 route add default via fd00::fe");
}

fn settings(encapsulation: Encapsulation) -> Settings {
    Settings { encapsulation, ..Settings::default() }
}

async fn pass(encapsulation: Encapsulation, kernel: &Kernel) -> Report {
    reconcile(&near_and_far(), "me", &settings(encapsulation), kernel).await.unwrap()
}

/// Our routes of both families.
fn routes() -> Vec<String> {
    let ours = |line: &String| line.contains("proto 109");
    let routes6 = ip("-6 -N route show table main");
    let short = |line: String| line.split(" scope ").next().unwrap().split(" metric ").next().unwrap().to_owned();
    let routes6 = routes6.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    routes4().into_iter().chain(routes6).filter(ours).map(short).collect()
}

fn tunnel_shown() -> String {
    ip("-d link show minicni-vxlan")
}

#[test]
fn nodes_behind_a_router_are_routed_through_the_tunnel_and_another_pass_changes_nothing() {
    in_namespace(|| async {
        set_up();
        let kernel = Kernel::new().unwrap();
        let report = pass(Encapsulation::CrossSubnet, &kernel).await;
        assert!(report.problems.is_empty() && report.errors.is_empty(), "{report:?}");
        assert_eq!(routes(), [NEAR4, FAR4, NEAR6, FAR6]);
        assert_eq!(kernel.actual().await.unwrap(), report.desired);
        assert_eq!(report.pod_mtu, Some(1444));
        let shown = tunnel_shown();
        assert!(shown.contains("mtu 1444") && shown.contains("dstport 4790") && shown.contains("external"), "{shown}");
        let addresses = ip("-o address show dev minicni-vxlan");
        assert!(addresses.contains("10.244.0.0/32") && addresses.contains("fd44::/128"), "{addresses}");
        assert_eq!(addresses.lines().count(), 2, "{addresses}");
        let mut watch = RouteWatch::new().unwrap();
        calm(&mut watch).await;
        for _ in 0..3 {
            assert!(did_nothing(&pass(Encapsulation::CrossSubnet, &kernel).await));
        }
        let told = tokio::time::timeout(Duration::from_millis(300), watch.changed()).await;
        assert!(told.is_err(), "a pass without a reason changed something");
    });
}

#[test]
fn pods_lose_no_mtu_to_a_tunnel_that_no_route_needs() {
    in_namespace(|| async {
        set_up();
        let kernel = Kernel::new().unwrap();
        let near = &near_and_far()[..2];
        let report = reconcile(near, "me", &settings(Encapsulation::CrossSubnet), &kernel).await.unwrap();
        assert_eq!(report.pod_mtu, Some(1500));
        // Another node may see it otherwise.
        assert!(tunnel_shown().contains("mtu 1444"));
        let report = reconcile(near, "me", &settings(Encapsulation::Always), &kernel).await.unwrap();
        assert_eq!(report.pod_mtu, Some(1444));
    });
}

#[test]
fn each_mode_follows_each_other_and_never_leaves_the_device_behind() {
    use Encapsulation::{Always, CrossSubnet, Never};
    in_namespace(|| async {
        set_up();
        let kernel = Kernel::new().unwrap();
        let near_in_tunnel = [
            FAR4.replace("10.244.2.0", "10.244.1.0").replace("10.7.0.3", "10.0.0.2"),
            FAR6.replace("fd44:0:0:2", "fd44:0:0:1").replace("fd07::3", "fd00::2"),
        ];
        for mode in [Always, Never, CrossSubnet, Always, CrossSubnet, Never, Always] {
            let report = pass(mode, &kernel).await;
            assert!(report.errors.is_empty() && report.tunnel_error.is_none(), "{mode}: {report:?}");
            let expected = match mode {
                Never => vec![NEAR4, NEAR6],
                CrossSubnet => vec![NEAR4, FAR4, NEAR6, FAR6],
                Always => vec![&near_in_tunnel[0], FAR4, &near_in_tunnel[1], FAR6],
            };
            assert_eq!(routes(), expected, "{mode}");
            assert_eq!(ip("-o link show type vxlan").lines().count(), usize::from(mode != Never), "{mode}");
            assert_eq!(report.problems.len(), if mode == Never { 2 } else { 0 });
            assert!(did_nothing(&pass(mode, &kernel).await), "{mode}");
        }
    });
}

#[test]
fn an_encapsulation_that_is_not_as_we_make_it_is_replaced() {
    in_namespace(|| async {
        set_up();
        let kernel = Kernel::new().unwrap();
        pass(Encapsulation::CrossSubnet, &kernel).await;
        for (other, route) in [
            ("encap ip id 109 dst 10.7.0.9", "10.244.2.0/24"),
            ("encap ip id 110 dst 10.7.0.3", "10.244.2.0/24"),
            ("encap ip id 109 dst 10.7.0.3 ttl 3", "10.244.2.0/24"),
            ("encap ip id 109 dst 10.7.0.3 csum", "10.244.2.0/24"),
            ("encap ip6 id 109 dst fd07::3", "fd44:0:0:2::/64"),
            ("encap ip6 id 109 src fd00::1 dst fd07::3 csum", "fd44:0:0:2::/64"),
            ("encap ip id 109 dst 10.7.0.3", "fd44:0:0:2::/64"),
        ] {
            ip(&format!("route replace {route} {other} dev minicni-vxlan proto 109"));
            let report = pass(Encapsulation::CrossSubnet, &kernel).await;
            assert_eq!((report.replaced.len(), report.errors.len()), (1, 0), "{other}: {report:?}");
            assert_eq!(routes(), [NEAR4, FAR4, NEAR6, FAR6], "{other}");
        }
    });
}

#[test]
fn whatever_is_done_to_the_tunnel_it_is_back_within_a_second() {
    in_namespace(|| async {
        set_up();
        let restored = || {
            let shown = ip("-o -d link show type vxlan");
            let addresses = ip("-o address show type vxlan");
            routes() == [NEAR4, FAR4, NEAR6, FAR6]
                && shown.contains("minicni-vxlan: ")
                && shown.contains("mtu 1444")
                && shown.contains("dstport 4790")
                && addresses.contains("10.244.0.0/32")
                && addresses.contains("fd44::/128")
                && !addresses.contains("10.55")
        };
        let wait = async |harm: &str| {
            let start = Instant::now();
            loop {
                // To look takes its own time, in which this thread repairs nothing.
                let late = start.elapsed() > Duration::from_secs(1);
                if restored() {
                    break;
                }
                assert!(!late, "{harm}: {:?}\n{}", routes(), ip("-d address show"));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let hands = async {
            let mut watch = RouteWatch::new().unwrap();
            wait("start").await;
            for harm in [
                "link del minicni-vxlan",
                "link set minicni-vxlan down",
                "link set minicni-vxlan mtu 1300",
                "address flush dev minicni-vxlan",
                "address add 10.55.0.1/24 dev minicni-vxlan",
                // As systemd-networkd does with what it does not know.
                "route flush proto 109",
                "-6 route flush proto 109",
                "route del 10.244.2.0/24",
                "route change 10.244.2.0/24 via 10.0.0.9 proto 109",
            ] {
                calm(&mut watch).await;
                ip(harm);
                assert!(!restored(), "{harm}");
                wait(harm).await;
            }
        };
        let daemon = async {
            let kernel = Kernel::new().unwrap();
            let mut watch = RouteWatch::new().unwrap();
            loop {
                pass(Encapsulation::CrossSubnet, &kernel).await;
                watch.changed().await.unwrap();
            }
        };
        tokio::select! { () = hands => {}, () = daemon => {} }
    });
}

#[test]
fn the_tunnel_follows_the_mtu_of_the_uplink() {
    in_namespace(|| async {
        set_up();
        let kernel = Kernel::new().unwrap();
        for (uplink, tunnel) in [(1500, 1444), (9000, 8944), (1400, 1344)] {
            ip(&format!("link set up0 mtu {uplink}"));
            let report = pass(Encapsulation::CrossSubnet, &kernel).await;
            assert_eq!(report.pod_mtu, Some(tunnel));
            assert!(tunnel_shown().contains(&format!("mtu {tunnel} ")), "{}", tunnel_shown());
        }
    });
}

#[test]
fn what_cannot_be_set_on_the_tunnel_is_told_and_takes_no_working_route_away() {
    in_namespace(|| async {
        set_up();
        let kernel = Kernel::new().unwrap();
        pass(Encapsulation::CrossSubnet, &kernel).await;
        // Less than IPv6 asks for is left of it, and the kernel takes IPv6 off the device.
        ip("link set up0 mtu 1300");
        for _ in 0..3 {
            let report = pass(Encapsulation::CrossSubnet, &kernel).await;
            assert_eq!(report.pod_mtu, Some(1244), "{report:?}");
            assert_eq!(routes()[..2], [NEAR4, FAR4], "{report:?}");
        }
        let report = pass(Encapsulation::CrossSubnet, &kernel).await;
        assert!(matches!(report.tunnel_error, Some(TunnelError::Link(_))), "{report:?}");
        ip("link set up0 mtu 1500");
        let report = pass(Encapsulation::CrossSubnet, &kernel).await;
        assert!(report.tunnel_error.is_none() && report.errors.is_empty(), "{report:?}");
        assert_eq!(routes(), [NEAR4, FAR4, NEAR6, FAR6]);
    });
}

#[test]
fn pods_get_the_mtu_of_a_tunnel_that_cannot_be_made_yet() {
    in_namespace(|| async {
        set_up();
        ip("link add minicni-vxlan type veth peer name minicni-peer");
        for mode in [Encapsulation::CrossSubnet, Encapsulation::Always] {
            let report = pass(mode, &Kernel::new().unwrap()).await;
            assert_eq!((report.tunnel_error.is_some(), report.pod_mtu), (true, Some(1444)), "{mode}: {report:?}");
        }
        // Where nobody needs it, they need no room for it.
        let near = &near_and_far()[..2];
        let settings = settings(Encapsulation::CrossSubnet);
        let report = reconcile(near, "me", &settings, &Kernel::new().unwrap()).await.unwrap();
        assert_eq!((report.tunnel_error.is_some(), report.pod_mtu), (true, Some(1500)), "{report:?}");
    });
}

#[test]
fn another_pod_cidr_of_this_node_leaves_no_moment_without_routes() {
    in_namespace(|| async {
        set_up();
        let kernel = Kernel::new().unwrap();
        let mut nodes = near_and_far();
        let known = pass(Encapsulation::CrossSubnet, &kernel).await.desired;
        nodes[0].pod_cidrs = vec!["10.244.9.0/24".parse().unwrap(), "fd44:0:0:9::/64".parse().unwrap()];
        let settings = settings(Encapsulation::CrossSubnet);
        let report = reconcile_from(Some(known), &nodes, "me", &settings, &kernel).await.unwrap();
        assert!(report.errors.is_empty() && report.tunnel_error.is_none(), "{report:?}");
        assert_eq!(kernel.actual().await.unwrap(), report.desired);
    });
}

#[test]
fn another_port_and_another_vni_are_taken_up() {
    in_namespace(|| async {
        set_up();
        let kernel = Kernel::new().unwrap();
        pass(Encapsulation::CrossSubnet, &kernel).await;
        let other = Settings { vxlan_port: 4999, vni: 7, ..Settings::default() };
        let report = reconcile(&near_and_far(), "me", &other, &kernel).await.unwrap();
        assert!(report.tunnel_error.is_none() && report.errors.is_empty(), "{report:?}");
        assert!(tunnel_shown().contains("dstport 4999"));
        let vxlan =
            |vni| move |encap: &Option<Encap>| matches!(encap, Some(Encap::Vxlan { vni: found, .. }) if *found == vni);
        let actual = kernel.actual().await.unwrap();
        assert_eq!(actual.iter().map(|route| &route.encap).filter(|encap| vxlan(7)(encap)).count(), 2);
        assert_eq!(routes().len(), 4);
    });
}

#[test]
fn a_device_of_somebody_else_is_left_alone_and_reported_and_what_is_on_link_is_reached() {
    in_namespace(|| async {
        set_up();
        let kernel = Kernel::new().unwrap();
        for theirs in ["veth peer name minicni-peer", "vxlan id 5 dstport 4790", "vxlan external dstport 4790"] {
            ip(&format!("link add minicni-vxlan type {theirs}"));
            let report = pass(Encapsulation::Always, &kernel).await;
            assert!(matches!(report.tunnel_error, Some(TunnelError::Foreign)), "{theirs}: {report:?}");
            assert_eq!(routes(), [NEAR4, NEAR6]);
            assert_eq!(report.problems.len(), 2, "{:?}", report.problems);
            // Nor does the end of the encapsulation take it away.
            pass(Encapsulation::Never, &kernel).await;
            ip("link del minicni-vxlan");
        }
        ip("link add other type vxlan external dstport 4790");
        ip("link set other up");
        let report = pass(Encapsulation::CrossSubnet, &kernel).await;
        let text = report.tunnel_error.expect("the port is taken").to_string();
        assert!(text.contains("UDP port 4790 is taken") && text.contains("--vxlan-port"), "{text}");
        assert_eq!(routes(), [NEAR4, NEAR6]);
        ip("link del other");
        let report = pass(Encapsulation::CrossSubnet, &kernel).await;
        assert!(report.tunnel_error.is_none() && report.problems.is_empty(), "{report:?}");
        assert_eq!(routes(), [NEAR4, FAR4, NEAR6, FAR6]);
    });
}

#[test]
fn a_tunnel_whose_maker_was_killed_half_way_is_completed() {
    in_namespace(|| async {
        set_up();
        ip("link add minicni-vxlan type vxlan external gpe dstport 4790");
        let report = pass(Encapsulation::CrossSubnet, &Kernel::new().unwrap()).await;
        assert!(report.tunnel_error.is_none() && report.errors.is_empty(), "{report:?}");
        assert!(tunnel_shown().contains("alias minicni"), "{}", tunnel_shown());
        assert_eq!(routes(), [NEAR4, FAR4, NEAR6, FAR6]);
    });
}

#[test]
fn what_an_uninstallation_does_leaves_nothing_and_takes_nothing_of_others() {
    in_namespace(|| async {
        set_up();
        pass(Encapsulation::CrossSubnet, &Kernel::new().unwrap()).await;
        let mut socket = Socket::open().unwrap();
        let ours = socket.routes(RouteFilter { protocol: Some(109), ifindex: None }).unwrap();
        let ends: Vec<_> = ours.iter().filter_map(|route| route.tunnel).map(|ip| ip.to_string()).collect();
        assert_eq!((ours.len(), ends), (4, vec!["10.7.0.3".to_owned(), "fd07::3".to_owned()]));
        socket.batch(ours.iter().map(delete_route).collect()).unwrap();
        assert!(routes().is_empty(), "{:?}", routes());
        assert!(tunnel::remove().unwrap() && !tunnel::remove().unwrap());
        ip("link add minicni-vxlan type vxlan id 5 dstport 4790");
        assert!(!tunnel::remove().unwrap());
        assert!(tunnel_shown().contains("vxlan id 5"));
    });
}

#[test]
fn an_uplink_that_is_not_there_is_reported_and_no_route_is_touched() {
    in_namespace(|| async {
        set_up();
        let kernel = Kernel::new().unwrap();
        pass(Encapsulation::CrossSubnet, &kernel).await;
        let wrong = Settings { uplink: Some("eth7".parse().unwrap()), ..Settings::default() };
        let report = reconcile(&near_and_far(), "me", &wrong, &kernel).await.unwrap();
        assert!(did_nothing(&report) && report.problems[0].to_string().contains("eth7"), "{report:?}");
        assert_eq!(routes(), [NEAR4, FAR4, NEAR6, FAR6]);
    });
}

#[test]
fn an_uplink_that_is_down_for_a_moment_moves_no_node_into_the_tunnel() {
    in_namespace(|| async {
        set_up();
        let kernel = Kernel::new().unwrap();
        pass(Encapsulation::CrossSubnet, &kernel).await;
        ip("link set up0 down");
        let report = pass(Encapsulation::CrossSubnet, &kernel).await;
        assert!(report.added.is_empty() && report.replaced.is_empty(), "{report:?}");
        assert!(!routes().iter().any(|route| route.contains("10.0.0.2")), "{:?}", routes());
    });
}

/// CPU time of the thread, which does all of the kernel's work for a request, too.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// What a node of a large cluster does when it starts.
#[test]
fn five_thousand_nodes_of_both_families_are_routed_in_a_moment() {
    in_namespace(|| async {
        set_up();
        let far = (0..5_000_u16).map(|n| Node {
            name: format!("n{n}"),
            pod_cidrs: vec![
                format!("10.{}.{}.0/24", 100 + n / 256, n % 256).parse().unwrap(),
                format!("fd44:0:1:{n:x}::/64").parse().unwrap(),
            ],
            internal_ips: vec![
                format!("10.{}.{}.9", if n % 2 == 0 { 7 } else { 8 } + n / 256 * 2, n % 256).parse().unwrap(),
                format!("fd07::{n:x}").parse().unwrap(),
            ],
        });
        let nodes: Vec<_> = far.chain([node("me", 0, 0)]).collect();
        let kernel = Kernel::new().unwrap();
        for vni in [109, 110] {
            let settings = Settings { vni, ..Settings::default() };
            let (start, start_cpu) = (Instant::now(), cpu_time());
            let report = reconcile(&nodes, "me", &settings, &kernel).await.unwrap();
            let cpu = cpu_time().saturating_sub(start_cpu);
            let (added, replaced) = (report.added.len(), report.replaced.len());
            eprintln!("{added} added, {replaced} replaced in {:?}, of which on a CPU {cpu:?}", start.elapsed());
            assert_eq!((added + replaced, report.errors.len(), report.problems.len()), (10_000, 0, 0));
            // In a debug build, whatever else the machine does meanwhile.
            assert!(cpu < Duration::from_secs(4), "{cpu:?}");
        }
        let settings = Settings { vni: 110, ..Settings::default() };
        let start = Instant::now();
        assert!(did_nothing(&reconcile(&nodes, "me", &settings, &kernel).await.unwrap()));
        eprintln!("nothing to do: {:?}", start.elapsed());
        let start = Instant::now();
        let report = reconcile(&nodes[4_999..], "me", &settings, &kernel).await.unwrap();
        eprintln!("{} deleted in {:?}", report.deleted.len(), start.elapsed());
    });
}
