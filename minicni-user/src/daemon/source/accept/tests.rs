use proptest::prelude::*;

use super::*;

type Cluster = BTreeMap<String, Known>;

fn node(name: &str, created: i64, cidrs: &[&str], ips: &[&str]) -> (String, Known) {
    let node = Node {
        name: name.to_owned(),
        pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        internal_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
    };
    (name.to_owned(), Known { node: Ok(node), created, condition: None })
}

fn names(accepted: &Accepted) -> Vec<&str> {
    accepted.nodes.iter().map(|node| node.name.as_str()).collect()
}

#[track_caller]
fn assert_left_out(cluster: &Cluster, name: &str, reason: Reason, words: &str) {
    let accepted = accept(cluster, "me", &["10.96.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap()]);
    let [problem] = accepted.problems.as_slice() else { panic!("{:?}", accepted.problems) };
    assert_eq!(problem.reason, reason);
    assert!(problem.message.starts_with(&format!("node {name}: ")) && problem.message.contains(words), "{problem}");
    let expected: Vec<_> = cluster.keys().filter(|known| *known != name).cloned().collect();
    let mut names = names(&accepted);
    names.sort_unstable();
    assert_eq!(names, expected);
}

/// `me`, the older `a` and `b`.
fn three() -> Cluster {
    Cluster::from([
        node("me", 5, &["10.244.0.0/24"], &["10.0.0.1"]),
        node("a", 1, &["10.244.1.0/24", "fd00:1::/64"], &["10.0.0.2", "fd10::2"]),
        node("b", 2, &["10.244.2.0/24"], &["10.0.0.3"]),
    ])
}

fn three_and(other: (String, Known)) -> Cluster {
    let mut cluster = three();
    cluster.insert(other.0, other.1);
    cluster
}

#[test]
fn nodes_that_do_not_contradict_each_other_are_all_taken_the_own_one_first() {
    let accepted = accept(&three(), "me", &["10.96.0.1".parse().unwrap()]);
    assert_eq!(names(&accepted), ["me", "a", "b"]);
    assert_eq!((accepted.problems, accepted.own_refused), (vec![], None));
}

#[test]
fn a_node_that_is_wrong_is_left_out_alone() {
    let (name, mut known) = node("x", 0, &[], &[]);
    known.node = Err(crate::daemon::nodes::FieldError {
        field: "spec.podCIDR",
        value: "10.244.9.7/24".into(),
        why: "has host bits set; write 10.244.9.0/24".into(),
    });
    assert_left_out(&three_and((name, known)), "x", Reason::NodeMalformed, "spec.podCIDR \"10.244.9.7/24\"");

    for (cidrs, ips, reason, words) in [
        (&["10.244.1.0/24"][..], &["10.0.0.9"][..], Reason::PodCidrConflict, "overlaps 10.244.1.0/24 of node a"),
        (&["10.244.1.128/25"], &["10.0.0.9"], Reason::PodCidrConflict, "overlaps 10.244.1.0/24 of node a"),
        (&["10.244.0.0/16"], &["10.0.0.9"], Reason::PodCidrConflict, "overlaps"),
        (&["10.244.9.0/24", "fd00:1::/80"], &["10.0.0.9"], Reason::PodCidrConflict, "overlaps fd00:1::/64 of node a"),
        (&["10.0.0.0/24"], &["10.7.0.9"], Reason::PodCidrConflict, "covers the InternalIP 10.0.0.1 of node me"),
        (&["10.7.0.0/24"], &["10.7.0.9"], Reason::PodCidrConflict, "covers the node's own InternalIP 10.7.0.9"),
        (&["10.96.0.0/24"], &["10.0.0.9"], Reason::PodCidrConflict, "covers the API server's address 10.96.0.1"),
        (&["192.0.2.0/30"], &["10.0.0.9"], Reason::PodCidrConflict, "covers the API server's address 192.0.2.1"),
        (&["10.244.9.0/24"], &["10.0.0.3"], Reason::AddressConflict, "InternalIP 10.0.0.3 is that of node b"),
        (&["10.244.9.0/24"], &["10.244.1.7"], Reason::AddressConflict, "is in the pod CIDR 10.244.1.0/24 of node a"),
    ] {
        assert_left_out(&three_and(node("x", 9, cidrs, ips)), "x", reason, words);
    }
}

#[test]
fn nobody_takes_what_is_this_nodes_own_however_old_the_claim() {
    let cidr = node("x", 0, &["10.244.0.0/16"], &["10.0.0.9"]);
    let mut cluster = three_and(cidr);
    cluster.remove("a");
    cluster.remove("b");
    assert_left_out(&cluster, "x", Reason::PodCidrConflict, "overlaps 10.244.0.0/24 of node me");
    cluster.extend([node("x", 0, &["10.245.0.0/16"], &["10.0.0.1"])]);
    assert_left_out(&cluster, "x", Reason::AddressConflict, "InternalIP 10.0.0.1 is that of node me");
}

#[test]
fn of_two_that_contradict_each_other_the_older_is_right_whatever_their_names() {
    let mut cluster = three();
    cluster.extend([node("0", 3, &["10.244.2.0/24"], &["10.0.0.9"])]);
    assert_left_out(&cluster, "0", Reason::PodCidrConflict, "of node b");
}

#[test]
fn where_the_own_object_is_wrong_the_others_are_taken_all_the_same() {
    let mut cluster = three();
    cluster.extend([node("me", 5, &["10.96.0.0/16"], &["10.0.0.1"])]);
    let accepted = accept(&cluster, "me", &["10.96.0.1".parse().unwrap()]);
    assert_eq!(names(&accepted), ["a", "b"]);
    assert_eq!(accepted.own_refused.as_ref(), accepted.problems.first());
    assert!(accepted.own_refused.unwrap().message.contains("covers the API server's address"));
}

/// Nodes within so small a space that they often contradict each other.
fn any_cluster() -> impl Strategy<Value = Cluster> {
    let cidr = (0..32u32, 0..4u8).prop_map(|(number, bits)| {
        let length = 28 + bits;
        let net = ipnet::Ipv4Net::new(std::net::Ipv4Addr::from(0x0a00_0000 + number * 2), length).unwrap();
        IpNet::V4(net.trunc())
    });
    let ip = (0..64u32).prop_map(|number| IpAddr::V4(std::net::Ipv4Addr::from(0x0a00_0000 + number)));
    let known = (prop::collection::vec(cidr, 0..2), prop::collection::vec(ip, 1..3), 0..4u8, prop::bool::weighted(0.9));
    prop::collection::vec(known, 0..8).prop_map(|all| {
        let entry = |(index, (pod_cidrs, internal_ips, age, good)): (usize, (Vec<IpNet>, Vec<IpAddr>, u8, bool))| {
            let name = if index == 0 { "me".to_owned() } else { format!("n{index}") };
            let bad = crate::daemon::nodes::FieldError { field: "f", value: String::new(), why: "w".into() };
            let node = if good { Ok(Node { name: name.clone(), pod_cidrs, internal_ips }) } else { Err(bad) };
            (name, Known { node, created: i64::from(age), condition: None })
        };
        all.into_iter().enumerate().map(entry).collect()
    })
}

fn api_server() -> Vec<IpAddr> {
    vec!["10.0.0.40".parse().unwrap()]
}

proptest! {
    #[test]
    fn what_is_accepted_never_contradicts_itself_and_who_is_not_is_named(cluster in any_cluster()) {
        let server = api_server();
        let accepted = accept(&cluster, "me", &server);
        prop_assert_eq!(accepted.nodes.len() + accepted.problems.len(), cluster.len());
        for name in cluster.keys() {
            let taken = accepted.nodes.iter().any(|node| node.name == *name);
            let named = accepted.problems.iter().any(|p| p.message.starts_with(&format!("node {name}: ")));
            prop_assert!(taken != named);
        }
        let cidrs: Vec<_> = accepted.nodes.iter().flat_map(|node| &node.pod_cidrs).collect();
        let ips = accepted.nodes.iter().flat_map(|node| &node.internal_ips);
        for (index, cidr) in cidrs.iter().enumerate() {
            prop_assert!(!server.iter().chain(ips.clone()).any(|ip| cidr.contains(ip)));
            prop_assert!(!cidrs[..index].iter().any(|other| other.contains(*cidr) || cidr.contains(*other)));
        }
        for (index, node) in accepted.nodes.iter().enumerate() {
            let others = accepted.nodes[..index].iter().flat_map(|node| &node.internal_ips);
            prop_assert!(!others.into_iter().any(|ip| node.internal_ips.contains(ip)));
        }
    }

    #[test]
    fn who_comes_takes_nothing_away_from_who_was_there(cluster in any_cluster(), newcomer in any_cluster()) {
        let before = accept(&cluster, "me", &api_server());
        let mut after = cluster.clone();
        for (name, known) in newcomer {
            // An own object that comes late takes what is its own.
            if name != "me" {
                after.insert(format!("new-{name}"), Known { created: 100 + known.created, ..known });
            }
        }
        let after = accept(&after, "me", &api_server());
        prop_assert!(before.nodes.iter().all(|node| after.nodes.contains(node)));
    }
}
