use super::{super::elements, *};

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

fn asked(except: &[&str]) -> Asked {
    let except = except.iter().map(|prefix| prefix.parse().unwrap()).collect();
    Asked { masquerade: super::super::Masquerade { on: true, except }, tunnel_port: None }
}

fn texts(prefixes: &[IpNet]) -> Vec<String> {
    prefixes.iter().map(ToString::to_string).collect()
}

#[test]
fn pods_keep_their_address_towards_the_pods_and_addresses_of_all_nodes_and_what_else_was_asked_for() {
    let contents = Contents::new(&two_nodes(), "me", &[], &asked(&["172.16.0.0/12"])).unwrap();
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
    let contents = Contents::new(&nodes, "me", &[], &asked(&[])).unwrap();
    assert!(!texts(&contents.cluster).contains(&"192.168.0.0/16".to_owned()), "{contents:?}");
    assert_eq!(Contents::new(&nodes, "greedy", &[], &asked(&[])), None);
}

#[test]
fn without_a_pod_cidr_of_this_node_nothing_is_wanted() {
    assert_eq!(Contents::new(&two_nodes(), "unknown", &[], &asked(&[])), None);
    assert_eq!(Contents::new(&[node("me", &[], &["192.168.77.1"])], "me", &[], &asked(&[])), None);
}

#[test]
fn a_node_that_comes_changes_elements_only() {
    let [me, other] = two_nodes();
    let alone = Contents::new(std::slice::from_ref(&me), "me", &[], &asked(&[])).unwrap();
    let both = Contents::new(&[me, other], "me", &[], &asked(&[])).unwrap();
    assert_eq!(
        elements::script(&both.changes(&alone).unwrap()),
        "delete element inet minicni cluster4 { 10.244.0.0/24 }\ndelete element inet minicni cluster6 { fd44::/64 }\n\
         add element inet minicni cluster4 { 10.244.0.0/23, 192.168.77.2/32 }\n\
         add element inet minicni cluster6 { fd44::/63, fd77::2/128 }\n"
    );
    assert_eq!(both.changes(&both).unwrap(), []);
}

#[test]
fn pods_are_kept_from_the_tunnels_of_all_nodes_also_where_nothing_is_masqueraded() {
    let asked =
        Asked { masquerade: super::super::Masquerade { on: false, except: Vec::new() }, tunnel_port: Some(4790) };
    let contents = Contents::new(&two_nodes(), "me", &[], &asked).unwrap();
    let script = contents.script();
    for line in [
        "set networks4 { type ipv4_addr; flags interval; elements = { 10.244.0.0/23 }; }",
        "udp dport 4790 iifname \"mni*\" counter drop",
        "udp dport 4790 ip saddr @networks4 counter drop",
        "udp dport 4790 iifname \"mni*\" ip6 daddr != @networks6 counter drop",
    ] {
        assert!(script.contains(line), "{line}: {script}");
    }
    assert!(!script.contains("masquerade"), "{script}");
}

#[test]
fn after_the_first_of_a_connection_no_ipv4_packet_that_the_stack_forwards_meets_a_rule() {
    let [dual, _] = two_nodes();
    for node in [node("me", &["10.244.0.0/24"], &["192.168.77.1"]), dual] {
        let contents = Contents::new(&[node], "me", &[], &Asked { tunnel_port: Some(4790), ..asked(&[]) }).unwrap();
        let script = contents.script();
        let (ipv4, ipv6) = script.split_once("table ip6 minicni {").unwrap_or((&script, ""));
        let hooks: Vec<_> = ipv4.lines().filter(|line| line.contains(" hook ")).collect();
        assert_eq!(hooks.len(), 3, "{script}");
        assert!(hooks.iter().all(|hook| hook.contains("type nat ") || hook.contains(" hook input ")), "{script}");
        assert_eq!(ipv6.contains("drop"), contents.pods.len() == 2, "{script}");
    }
}

#[test]
fn what_changes_the_rules_takes_the_whole_script() {
    let v4 = Contents::new(&[node("me", &["10.244.0.0/24"], &["192.168.77.1"])], "me", &[], &asked(&[])).unwrap();
    let dual = Contents::new(&two_nodes(), "me", &[], &asked(&[])).unwrap();
    assert_eq!(dual.changes(&v4), None);
    let off = Contents { masquerade: false, ..v4.clone() };
    assert_eq!(off.changes(&v4), None);
    assert_eq!(off.script(), removal());
}
