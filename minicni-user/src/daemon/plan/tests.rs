use proptest::prelude::*;

use super::*;
use crate::daemon::underlay::Settings;

fn node(name: &str, cidrs: &[&str], ips: &[&str]) -> Node {
    Node {
        name: name.into(),
        pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        internal_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
    }
}

fn local(ifindex: u32, address: &str) -> LocalPrefix {
    let net: IpNet = address.parse().unwrap();
    LocalPrefix { ifindex, ifname: format!("eth{ifindex}"), address: net.addr(), on_link: net.trunc(), mtu: 1500 }
}

fn route(dst: &str, gateway: &str, ifindex: u32) -> RouteSpec {
    let dst: IpNet = dst.parse().unwrap();
    RouteSpec {
        dst,
        gateway: Some(gateway.parse().unwrap()),
        ifindex: Some(ifindex),
        source: None,
        encap: None,
        metric: if dst.addr().is_ipv4() { 0 } else { 1024 },
        protocol: ROUTE_PROTOCOL,
    }
}

/// What is desired without a tunnel.
fn direct(nodes: &[Node], me: &str, local: &[LocalPrefix]) -> (Vec<RouteSpec>, Vec<Problem>) {
    through(None, nodes, me, local)
}

fn through(tunnel: Option<Tunnel>, nodes: &[Node], me: &str, local: &[LocalPrefix]) -> (Vec<RouteSpec>, Vec<Problem>) {
    let own = nodes.iter().find(|node| node.name == me).unwrap();
    desired(nodes, own, &Underlay::new(&Settings::default(), own, local.to_vec()).unwrap(), tunnel)
}

const TUNNEL: Tunnel = Tunnel { ifindex: 9, vni: 109, always: false };
const ALWAYS: Tunnel = Tunnel { always: true, ..TUNNEL };

/// A route through [`TUNNEL`].
fn encapsulated(dst: &str, remote: &str) -> RouteSpec {
    let encap = Some(Encap::Vxlan { vni: 109, remote: remote.parse().unwrap() });
    let source = dst.contains("::").then(|| "fd44::".parse().unwrap());
    RouteSpec { gateway: None, source, encap, ..route(dst, remote, TUNNEL.ifindex) }
}

/// The one problem's text names all of `parts`.
#[track_caller]
fn assert_problem(problems: &[Problem], parts: &[&str]) {
    let [problem] = problems else { panic!("one problem expected: {problems:?}") };
    let text = problem.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} does not name {part:?}");
    }
}

fn me() -> Node {
    node("me", &["10.244.0.0/24"], &["10.0.0.1"])
}

#[test]
fn every_other_node_gets_a_route_through_its_internal_ip() {
    let nodes = [node("b", &["10.244.2.0/24"], &["10.0.0.3"]), me(), node("a", &["10.244.1.0/24"], &["10.0.0.2"])];
    let (routes, problems) = direct(&nodes, "me", &[local(2, "10.0.0.1/24")]);
    assert_eq!(routes, [route("10.244.1.0/24", "10.0.0.2", 2), route("10.244.2.0/24", "10.0.0.3", 2)]);
    assert_eq!(problems, []);
}

#[test]
fn a_node_that_cannot_be_routed_is_a_problem_of_its_own_only() {
    let good = node("good", &["10.244.9.0/24"], &["10.0.0.9"]);
    let on_the_network = [local(2, "10.0.0.1/24")];
    for (bad, parts) in [
        (node("far", &["10.244.1.0/24"], &["10.7.0.2"]), ["node far", "10.7.0.2", "10.0.0.0/24 on eth2"]),
        (node("new", &[], &["10.0.0.2"]), ["node new", "spec.podCIDR is missing", "allocate-node-cidrs"]),
        (node("six", &["10.244.1.0/24"], &["fd00::2"]), ["node six", "InternalIP", "no IPv4 address"]),
        (node("four", &["fd44:1::/64"], &["10.0.0.2"]), ["node four", "no IPv6 address", "fd44:1::/64"]),
        (node("twin", &["10.244.1.0/24"], &["10.0.0.1"]), ["node twin", "10.0.0.1", "address of this host"]),
        (node("wide", &["10.0.0.0/16"], &["10.0.0.2"]), ["node wide", "10.0.0.0/16 covers the InternalIP", "of node"]),
        (node("all", &["0.0.0.0/0"], &["10.0.0.2"]), ["node all", "0.0.0.0/0 covers the InternalIP", "of node"]),
        (node("dup", &["10.244.9.0/25"], &["10.0.0.2"]), ["node dup", "10.244.9.0/25", "10.244.9.0/24 of node good"]),
        (node("also", &["10.244.0.0/24"], &["10.0.0.2"]), ["node also", "10.244.0.0/24", "of node me"]),
    ] {
        let (routes, problems) = direct(&[bad, me(), good.clone()], "me", &on_the_network);
        assert_eq!(routes, [route("10.244.9.0/24", "10.0.0.9", 2)]);
        assert_problem(&problems, &parts);
    }
}

#[test]
fn each_pod_cidr_leads_through_an_internal_ip_of_its_family() {
    let own = node("me", &["10.244.0.0/24", "fd44:0::/64"], &["10.0.0.1", "fd00::1"]);
    let dual = node("a", &["fd44:1::/64", "10.244.1.0/24"], &["fd00::2", "10.0.0.2"]);
    let six = node("b", &["fd44:2::/64"], &["fd0f::3", "fd00::3"]);
    let nodes = [six, dual, own];
    let (four, six) = (local(2, "10.0.0.1/24"), local(3, "fd00::1/64"));
    let (routes, problems) = direct(&nodes, "me", &[four.clone(), six]);
    let expected =
        [route("10.244.1.0/24", "10.0.0.2", 2), route("fd44:1::/64", "fd00::2", 3), route("fd44:2::/64", "fd00::3", 3)];
    assert_eq!((routes.as_slice(), problems.as_slice()), (&expected[..], &[][..]));

    let (routes, problems) = direct(&nodes, "me", &[four]);
    assert_eq!(routes, expected[..1]);
    let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert!(texts[0].contains("node a") && texts[0].contains("fd00::2 is on no network of this host (none is up)"));
    assert!(texts[1].contains("node b") && texts[1].contains("fd0f::3, fd00::3 is on no network"), "{texts:?}");
}

#[test]
fn a_family_without_internal_ip_is_a_problem_for_the_node_itself_too_and_the_other_family_is_routed() {
    let own = node("me", &["10.244.0.0/24", "fd44:0::/64"], &["10.0.0.1"]);
    let other = node("a", &["10.244.1.0/24", "fd44:1::/64"], &["10.0.0.2", "fd00::2"]);
    let (routes, problems) = direct(&[own, other], "me", &[local(2, "10.0.0.1/24"), local(2, "fd00::1/64")]);
    assert_eq!(routes, [route("10.244.1.0/24", "10.0.0.2", 2), route("fd44:1::/64", "fd00::2", 2)]);
    assert_problem(&problems, &["node me", "InternalIP", "no IPv6 address", "fd44::/64", "--node-ip"]);
}

#[test]
fn the_uplink_is_the_longest_prefix_and_then_the_interface_of_the_own_internal_ip() {
    let nodes = [me(), node("a", &["10.244.1.0/24"], &["10.0.0.2"])];
    for (prefixes, uplink) in [
        (vec![local(2, "10.0.0.7/24"), local(3, "10.0.0.1/24")], 3),
        (vec![local(2, "10.0.0.7/28"), local(3, "10.0.0.1/24")], 2),
        (vec![local(4, "10.0.0.8/24"), local(3, "10.0.0.7/24")], 3),
    ] {
        assert_eq!(direct(&nodes, "me", &prefixes).0, [route("10.244.1.0/24", "10.0.0.2", uplink)]);
    }
}

#[test]
fn without_any_network_the_problem_says_so() {
    assert_problem(&direct(&[me(), node("a", &["10.1.0.0/24"], &["10.0.0.2"])], "me", &[]).1, &["none is up"]);
}

#[test]
fn only_nodes_on_no_network_of_this_host_are_reached_through_the_tunnel_unless_all_are() {
    let own = node("me", &["10.244.0.0/24", "fd44:0::/64"], &["10.0.0.1", "fd00::1"]);
    let near = node("near", &["10.244.1.0/24", "fd44:1::/64"], &["10.0.0.2", "fd00::2"]);
    let far = node("far", &["10.244.2.0/24", "fd44:2::/64"], &["10.7.0.2", "fd07::2"]);
    let local = [local(2, "10.0.0.1/24"), local(2, "fd00::1/64")];
    let nodes = [own, near, far];
    let far = [encapsulated("10.244.2.0/24", "10.7.0.2"), encapsulated("fd44:2::/64", "fd07::2")];
    let near = [encapsulated("10.244.1.0/24", "10.0.0.2"), encapsulated("fd44:1::/64", "fd00::2")];
    for (tunnel, expected) in [
        (TUNNEL, [&route("10.244.1.0/24", "10.0.0.2", 2), &far[0], &route("fd44:1::/64", "fd00::2", 2), &far[1]]),
        (ALWAYS, [&near[0], &far[0], &near[1], &far[1]]),
    ] {
        let (routes, problems) = through(Some(tunnel), &nodes, "me", &local);
        assert_eq!(routes.iter().collect::<Vec<_>>(), expected);
        assert_eq!(problems, []);
    }
}

#[test]
fn a_family_that_nodes_have_no_address_of_goes_through_the_tunnel_by_the_other() {
    let own = node("me", &["10.244.0.0/24", "fd44:0::/64"], &["10.0.0.1"]);
    let other = node("a", &["10.244.1.0/24", "fd44:1::/64"], &["10.0.0.2", "fd00::2"]);
    let (routes, problems) = through(Some(TUNNEL), &[own, other], "me", &[local(2, "10.0.0.1/24")]);
    assert_eq!(routes, [route("10.244.1.0/24", "10.0.0.2", 2), encapsulated("fd44:1::/64", "10.0.0.2")]);
    assert_eq!(problems, []);
}

#[test]
fn an_address_that_this_host_lost_for_a_moment_moves_nothing_to_the_other_family() {
    let own = node("me", &["10.244.0.0/24", "fd44:0::/64"], &["10.0.0.1", "fd00::1"]);
    let other = node("a", &["10.244.1.0/24", "fd44:1::/64"], &["10.0.0.2", "fd00::2"]);
    let (routes, problems) = through(Some(TUNNEL), &[own, other], "me", &[local(2, "10.0.0.1/24")]);
    assert_eq!(routes, [route("10.244.1.0/24", "10.0.0.2", 2)]);
    assert_problem(&problems, &["node a", "fd00::2 is on no network of this host"]);
}

#[test]
fn while_the_uplink_is_down_nothing_moves_to_the_tunnel() {
    let nodes = [me(), node("a", &["10.244.1.0/24"], &["10.0.0.2"])];
    for tunnel in [TUNNEL, ALWAYS] {
        let (routes, problems) = through(Some(tunnel), &nodes, "me", &[local(3, "10.9.0.1/24")]);
        assert_eq!(routes, []);
        assert_problem(&problems, &["node a", "10.0.0.2 is on no network of this host", "interface that is up"]);
    }
}

#[test]
fn a_node_with_an_address_of_this_host_is_a_problem_with_a_tunnel_too() {
    let nodes = [me(), node("twin", &["10.244.1.0/24"], &["10.0.0.1"])];
    let (routes, problems) = through(Some(ALWAYS), &nodes, "me", &[local(2, "10.0.0.1/24")]);
    assert_eq!(routes, []);
    assert_problem(&problems, &["node twin", "10.0.0.1 is an address of this host"]);
}

#[test]
fn with_a_named_uplink_nodes_are_on_link_there_alone() {
    let nodes = [
        node("me", &["10.244.0.0/24"], &["10.0.0.1"]),
        node("a", &["10.244.1.0/24"], &["10.0.0.2"]),
        node("b", &["10.244.2.0/24"], &["10.5.0.2"]),
    ];
    let networks = vec![local(2, "10.0.0.1/24"), local(3, "10.5.0.1/24")];
    let settings = Settings { uplink: Some("eth3".parse().unwrap()), ..Settings::default() };
    let underlay = Underlay::new(&settings, &nodes[0], networks).unwrap();
    let (routes, problems) = desired(&nodes, &nodes[0], &underlay, None);
    assert_eq!(routes, [route("10.244.2.0/24", "10.5.0.2", 3)]);
    assert_problem(&problems, &["node a", "10.5.0.0/24 on eth3", "--encapsulation cross-subnet"]);
    let (routes, problems) = desired(&nodes, &nodes[0], &underlay, Some(TUNNEL));
    assert_eq!(routes, [encapsulated("10.244.1.0/24", "10.0.0.2"), route("10.244.2.0/24", "10.5.0.2", 3)]);
    assert_eq!(problems, []);
}

/// The kernel's table: destination and metric may repeat only through `append`, and `replace` hits the first.
fn apply(table: &mut Vec<RouteSpec>, op: &Op) {
    let position = |table: &[RouteSpec], new: &RouteSpec| {
        table.iter().position(|route| (route.dst, route.metric) == (new.dst, new.metric))
    };
    match op {
        Op::Add(route) => {
            assert_eq!(position(table, route), None, "EEXIST: {op}");
            table.push(route.clone());
        }
        Op::Replace { old, new } => {
            let at = position(table, new).expect("ENOENT");
            assert_eq!(&table[at], old);
            assert!(!table.contains(new), "EEXIST: {op}");
            table[at] = new.clone();
        }
        Op::Delete(route) => {
            let at = table.iter().position(|other| other == route).expect("ESRCH");
            table.remove(at);
        }
    }
}

/// One destination per number and family.
fn destination(number: u8, ipv6: bool) -> IpNet {
    let text = if ipv6 { format!("fd44:{number}::/32") } else { format!("10.{number}.0.0/16") };
    text.parse().unwrap()
}

fn any_route(dsts: std::ops::Range<u8>, protocol: u8) -> impl Strategy<Value = RouteSpec> {
    let shape = (dsts, any::<bool>(), 1_u8..4, 1_u32..3, 0_u32..2, any::<bool>());
    shape.prop_map(move |(dst, ipv6, gateway, ifindex, more, tunnel)| {
        let dst = destination(dst, ipv6);
        let gateway = if ipv6 { format!("fd00::{gateway}") } else { format!("192.168.0.{gateway}") };
        let dst_text = dst.to_string();
        let route = if tunnel { encapsulated(&dst_text, &gateway) } else { route(&dst_text, &gateway, ifindex) };
        RouteSpec { metric: metric(dst) + more, protocol, ..route }
    })
}

fn any_desired() -> impl Strategy<Value = Vec<RouteSpec>> {
    proptest::collection::vec(any_route(0..8, ROUTE_PROTOCOL), 0..12).prop_map(|routes| {
        let by_dst: BTreeMap<_, _> = routes.into_iter().map(|route| (route.dst, route)).collect();
        by_dst.into_values().map(|route| RouteSpec { metric: metric(route.dst), ..route }).collect()
    })
}

fn any_table() -> impl Strategy<Value = Vec<RouteSpec>> {
    let ours = proptest::collection::btree_set(any_route(0..8, ROUTE_PROTOCOL), 0..12);
    let foreign = proptest::collection::btree_set(any_route(8..12, 4), 0..6);
    (ours, foreign).prop_map(|(ours, foreign)| ours.into_iter().chain(foreign).collect::<Vec<_>>()).prop_shuffle()
}

/// A node with a number: which of its pod CIDRs and addresses, IPv4 and IPv6, there are.
fn any_nodes() -> impl Strategy<Value = Vec<Node>> {
    proptest::collection::vec(any::<[bool; 4]>(), 1..8).prop_map(|nodes| {
        let present = |these: [(bool, String); 2]| -> Vec<String> {
            these.into_iter().filter_map(|(there, text)| there.then_some(text)).collect()
        };
        let node = |(n, [cidr, cidr6, ip, ip6]): (usize, [bool; 4])| {
            let cidrs = present([(cidr, format!("10.244.{n}.0/24")), (cidr6, format!("fd44:0:0:{n}::/64"))]);
            let ips = present([(ip, format!("10.0.0.{}", n + 1)), (ip6, format!("fd00::{}", n + 1))]);
            Node {
                name: format!("n{n}"),
                pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
                internal_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            }
        };
        nodes.into_iter().enumerate().map(node).collect()
    })
}

proptest! {
    #[test]
    fn every_pod_cidr_of_another_node_is_routed_in_its_family_or_a_problem_names_the_node(
        nodes in any_nodes(), four in any::<bool>(), six in any::<bool>(),
    ) {
        let networks = [(four, local(2, "10.0.0.1/24")), (six, local(3, "fd00::1/64"))];
        let networks: Vec<_> = networks.into_iter().filter_map(|(there, network)| there.then_some(network)).collect();
        let (routes, problems) = direct(&nodes, "n0", &networks);
        for node in &nodes[1..] {
            let mut unrouted = usize::from(node.pod_cidrs.is_empty());
            for cidr in &node.pod_cidrs {
                let ip = node.internal_ips.iter().find(|ip| ip.is_ipv4() == cidr.addr().is_ipv4());
                let network = networks.iter().find(|network| network.address.is_ipv4() == cidr.addr().is_ipv4());
                let gateways: Vec<_> = routes.iter().filter(|route| route.dst == *cidr).map(|route| route.gateway).collect();
                if ip.is_some() && network.is_some() {
                    prop_assert_eq!(gateways, [ip.copied()]);
                } else {
                    prop_assert_eq!(gateways, []);
                    unrouted += 1;
                }
            }
            prop_assert_eq!(problems.iter().filter(|problem| problem.node == node.name).count(), unrouted);
        }
        prop_assert!(routes.iter().all(|route| route.metric == metric(route.dst) && !nodes[0].pod_cidrs.contains(&route.dst)));
    }

    #[test]
    fn with_a_tunnel_every_pod_cidr_of_a_node_with_an_address_is_routed_and_directly_only_where_it_is_on_link(
        nodes in any_nodes(), far in any::<[bool; 8]>(), always in any::<bool>(),
    ) {
        let mut nodes = nodes;
        nodes[0].internal_ips = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        for (number, node) in nodes.iter_mut().enumerate().skip(1).filter(|(number, _)| far[*number]) {
            for ip in &mut node.internal_ips {
                *ip = if ip.is_ipv4() { format!("10.7.0.{number}") } else { format!("fd07::{number}") }.parse().unwrap();
            }
        }
        let networks = [local(2, "10.0.0.1/24"), local(3, "fd00::1/64")];
        let (routes, _) = through(Some(Tunnel { always, ..TUNNEL }), &nodes, "n0", &networks);
        for (number, node) in nodes.iter().enumerate().skip(1) {
            for cidr in &node.pod_cidrs {
                let found: Vec<_> = routes.iter().filter(|route| route.dst == *cidr).collect();
                let of_family = node.internal_ips.iter().find(|ip| ip.is_ipv4() == cidr.addr().is_ipv4()).copied();
                let expected = match (of_family, node.internal_ips.first()) {
                    (Some(ip), _) if !always && !far[number] => Some((Some(ip), None)),
                    (Some(remote), _) | (None, Some(&remote)) => {
                        Some((None, Some(Encap::Vxlan { vni: 109, remote })))
                    }
                    (None, None) => None,
                };
                let found: Vec<_> = found.iter().map(|route| (route.gateway, route.encap.clone())).collect();
                prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn applying_a_plan_gives_what_was_desired_and_leaves_foreign_routes_alone(wanted in any_desired(), actual in any_table()) {
        let foreign: Vec<_> = actual.iter().filter(|route| route.protocol != ROUTE_PROTOCOL).cloned().collect();
        let mut table = actual.clone();
        for op in plan(&wanted, &actual) {
            apply(&mut table, &op);
        }
        let (mut ours, rest): (Vec<_>, Vec<_>) = table.iter().cloned().partition(|route| route.protocol == ROUTE_PROTOCOL);
        ours.sort();
        prop_assert_eq!(&ours, &wanted);
        prop_assert_eq!(rest, foreign);
        prop_assert_eq!(plan(&wanted, &table), []);
    }

    #[test]
    fn nothing_is_planned_for_what_is_already_there(wanted in any_desired()) {
        prop_assert_eq!(plan(&wanted, &wanted), []);
    }

    #[test]
    fn foreign_routes_never_appear_in_a_plan_even_where_they_are_in_the_way(
        wanted in any_desired(),
        foreign in proptest::collection::vec(any_route(0..8, 4), 0..8),
    ) {
        let added: Vec<_> = wanted.iter().cloned().map(Op::Add).collect();
        prop_assert_eq!(plan(&wanted, &foreign), added);
    }

    #[test]
    fn deletions_come_last(wanted in any_desired(), actual in any_table()) {
        let ops = plan(&wanted, &actual);
        let first_delete = ops.iter().position(|op| matches!(op, Op::Delete(_))).unwrap_or(ops.len());
        prop_assert!(ops[first_delete..].iter().all(|op| matches!(op, Op::Delete(_))));
    }
}
