use super::*;

pub(super) fn node(name: &str, cidrs: &[&str], ips: &[&str]) -> Node {
    Node {
        name: name.to_owned(),
        pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        internal_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
    }
}

fn two_nodes() -> [Node; 2] {
    [
        node("me", &["10.244.0.0/24", "fd44::/64"], &["192.168.77.1", "fd77::1"]),
        node("other", &["10.244.1.0/24", "fd44:0:0:1::/64"], &["192.168.77.2", "fd77::2"]),
    ]
}

fn texts(prefixes: &[IpNet]) -> Vec<String> {
    prefixes.iter().map(ToString::to_string).collect()
}

#[test]
fn pods_keep_their_address_towards_the_pods_and_addresses_of_all_nodes_and_what_else_was_asked_for() {
    let contents = Contents::new(&two_nodes(), "me", &[], &["172.16.0.0/12".parse().unwrap()]).unwrap();
    assert_eq!(texts(&contents.pods), ["10.244.0.0/24", "fd44::/64"]);
    let cluster = [
        "10.244.0.0/23",
        "172.16.0.0/12",
        "192.168.77.1/32",
        "192.168.77.2/32",
        "fd44::/63",
        "fd77::1/128",
        "fd77::2/128",
    ];
    assert_eq!(texts(&contents.cluster), cluster);
}

#[test]
fn who_claims_the_address_of_a_node_as_a_pods_is_not_believed() {
    let mut nodes = two_nodes().to_vec();
    nodes.push(node("greedy", &["192.168.0.0/16"], &["192.168.77.3"]));
    let contents = Contents::new(&nodes, "me", &[], &[]).unwrap();
    assert!(!texts(&contents.cluster).contains(&"192.168.0.0/16".to_owned()), "{contents:?}");
    assert_eq!(Contents::new(&nodes, "greedy", &[], &[]), None);
}

#[test]
fn without_a_pod_cidr_of_this_node_nothing_is_wanted() {
    assert_eq!(Contents::new(&two_nodes(), "unknown", &[], &[]), None);
    assert_eq!(Contents::new(&[node("me", &[], &["192.168.77.1"])], "me", &[], &[]), None);
}

#[test]
fn a_node_that_comes_changes_elements_only() {
    let [me, other] = two_nodes();
    let alone = Contents::new(std::slice::from_ref(&me), "me", &[], &[]).unwrap();
    let both = Contents::new(&[me, other], "me", &[], &[]).unwrap();
    assert_eq!(
        both.changes(&alone).unwrap(),
        "delete element inet minicni cluster4 { 10.244.0.0/24 }\ndelete element inet minicni cluster6 { fd44::/64 }\n\
         add element inet minicni cluster4 { 10.244.0.0/23, 192.168.77.2/32 }\n\
         add element inet minicni cluster6 { fd44::/63, fd77::2/128 }\n"
    );
    assert_eq!(both.changes(&both).unwrap(), "");
}

#[test]
fn what_changes_the_rules_takes_the_whole_script() {
    let v4 = Contents::new(&[node("me", &["10.244.0.0/24"], &["192.168.77.1"])], "me", &[], &[]).unwrap();
    let dual = Contents::new(&two_nodes(), "me", &[], &[]).unwrap();
    assert_eq!(dual.changes(&v4), None);
    let off = Contents { masquerade: false, ..v4.clone() };
    assert_eq!(off.changes(&v4), None);
    assert_eq!(off.script(), removal());
}
