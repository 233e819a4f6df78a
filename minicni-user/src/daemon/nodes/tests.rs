use proptest::prelude::*;

use super::*;

/// A Node as people write it by hand.
fn yaml(name: &str, cidr: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {{podCIDR: {cidr}}}\n\
         status: {{addresses: [{{type: InternalIP, address: {ip}}}]}}\n"
    )
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

/// The message names all of `parts`.
#[track_caller]
fn assert_error(text: &str, parts: &[&str]) {
    let message = error(text);
    for part in parts {
        assert!(message.contains(part), "{message:?} does not name {part:?}");
    }
}

const KUBECTL_LIST: &str = "
apiVersion: v1
kind: List
metadata: {resourceVersion: ''}
items:
- apiVersion: v1
  kind: Node
  metadata:
    name: cp
    labels: {kubernetes.io/os: linux}
    annotations: {node.alpha.kubernetes.io/ttl: '0'}
  spec:
    podCIDR: 10.244.0.0/24
    podCIDRs: [10.244.0.0/24, 'fd00:10:244::/64']
    taints: [{effect: NoSchedule, key: node-role.kubernetes.io/control-plane}]
  status:
    addresses:
    - {address: 172.18.0.2, type: InternalIP}
    - {address: 'fc00:f853:ccd:e793::2', type: InternalIP}
    - {address: cp, type: Hostname}
    capacity: {cpu: '2', pods: '110'}
- apiVersion: v1
  kind: Node
  metadata: {name: worker}
  spec: {providerID: kind://docker/kind/worker}
  status: {addresses: [{address: 172.18.0.3, type: InternalIP}]}
";

#[test]
fn what_kubectl_prints_is_read_with_both_families_and_in_order() {
    let nodes = parse(KUBECTL_LIST).unwrap();
    let cp = Node {
        name: "cp".into(),
        pod_cidrs: vec!["10.244.0.0/24".parse().unwrap(), "fd00:10:244::/64".parse().unwrap()],
        internal_ips: vec!["172.18.0.2".parse().unwrap(), "fc00:f853:ccd:e793::2".parse().unwrap()],
    };
    let worker = Node { name: "worker".into(), pod_cidrs: vec![], internal_ips: vec!["172.18.0.3".parse().unwrap()] };
    assert_eq!(nodes, [cp, worker]);
}

#[test]
fn documents_and_a_node_list_may_be_mixed_and_documents_may_be_empty() {
    let list = "kind: NodeList\nitems:\n- metadata: {name: c}\n  status: {addresses: [{type: InternalIP, address: 10.0.0.3}]}\n";
    let text = format!(
        "# our nodes\n---\n{}---\n# nothing\n---\n{}---\n{list}---\n",
        yaml("a", "10.1.0.0/24", "10.0.0.1"),
        yaml("b", "10.2.0.0/24", "10.0.0.2")
    );
    let names: Vec<_> = parse(&text).unwrap().into_iter().map(|node| node.name).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn a_text_without_nodes_is_an_error_because_it_would_remove_every_route() {
    for text in ["", "\n", "# nothing\n", "---\n---\n", "kind: NodeList\nitems: []\n", "kind: List\n"] {
        assert!(matches!(parse(text), Err(NodesError::Empty)), "{text:?}: {:?}", parse(text));
    }
}

#[test]
fn a_syntax_error_names_document_and_line() {
    let text = format!("{}---\nkind: Node\nmetadata: {{name: b\nspec: 1\n", yaml("a", "10.1.0.0/24", "10.0.0.1"));
    assert_error(&text, &["document 2", "line 9"]);
}

#[test]
fn a_field_of_the_wrong_type_is_named_with_its_line() {
    assert_error("kind: Node\nmetadata:\n  name: a\nspec:\n  podCIDRs: 10.1.0.0/24\n", &["podCIDRs", "line 5"]);
    assert_error("just text", &["document 1", "just text"]);
}

#[test]
fn other_kinds_are_refused_by_name_also_those_that_are_only_called_node() {
    let config_map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    assert_error(config_map, &["document 1", "kind ConfigMap of v1"]);
    assert_error("apiVersion: longhorn.io/v1beta2\nkind: Node\n", &["kind Node of longhorn.io/v1beta2"]);
    assert_error("metadata: {name: a}\n", &["document 1", "without kind"]);
    assert_error("kind: List\nitems: [{kind: Pod}]\n", &["document 1, item 1", "kind Pod"]);
}

#[test]
fn a_node_without_name_is_refused() {
    assert_error("kind: Node\n", &["document 1", "metadata.name"]);
    assert_error("kind: List\nitems: [{kind: Node, metadata: {name: ''}}]\n", &["item 1", "metadata.name"]);
}

#[test]
fn a_name_given_twice_is_refused_with_both_places() {
    let text = format!("{}---\n{}", yaml("a", "10.1.0.0/24", "10.0.0.1"), yaml("a", "10.2.0.0/24", "10.0.0.2"));
    assert_error(&text, &["document 2", "node a", "document 1"]);
}

#[test]
fn a_bad_pod_cidr_is_named_with_node_value_and_what_would_be_right() {
    for bad in ["10.1.0.0", "10.1.0.0/33", "10.1.0/24", "''", "pods"] {
        assert_error(&yaml("a", bad, "10.0.0.1"), &["node a", "spec.podCIDR", bad.trim_matches('\''), "10.244.1.0/24"]);
    }
    assert_error(&yaml("a", "10.1.0.5/24", "10.0.0.1"), &["10.1.0.5/24", "host bits", "write 10.1.0.0/24"]);
}

#[test]
fn a_bad_or_missing_internal_ip_is_named() {
    for bad in ["10.0.0", "0.0.0.0", "127.0.0.1", "224.0.0.1", "worker-1", "::1", "fe80::1", "ff02::1"] {
        assert_error(&yaml("a", "10.1.0.0/24", &format!("'{bad}'")), &["node a", "InternalIP", bad]);
    }
    let external = "kind: Node\nmetadata: {name: a}\nstatus: {addresses: [{type: ExternalIP, address: 1.2.3.4}]}\n";
    assert_error(external, &["node a", "InternalIP", "there is none"]);
}

#[test]
fn a_pod_cidr_of_a_family_without_internal_ip_is_refused_unless_it_is_the_second() {
    assert_error(&yaml("a", "'fd00::/64'", "10.0.0.1"), &["node a", "fd00::/64", "family", "10.0.0.1"]);
    let dual = "kind: Node\nmetadata: {name: a}\nspec: {podCIDRs: [10.1.0.0/24, 'fd00::/64']}\n\
                status: {addresses: [{type: InternalIP, address: 10.0.0.1}]}\n";
    assert_eq!(parse(dual).unwrap()[0].pod_cidrs.len(), 2);
}

#[test]
fn pod_cidr_and_pod_cidrs_must_agree_and_hold_one_prefix_per_family() {
    let with = |spec: &str| yaml("a", "10.1.0.0/24", "10.0.0.1").replace("{podCIDR: 10.1.0.0/24}", spec);
    assert_error(
        &with("{podCIDR: 10.1.0.0/24, podCIDRs: [10.2.0.0/24]}"),
        &["spec.podCIDR ", "10.1.0.0/24", "10.2.0.0/24"],
    );
    assert_error(&with("{podCIDRs: [10.1.0.0/24, 10.2.0.0/24]}"), &["spec.podCIDRs", "10.2.0.0/24", "one per family"]);
}

#[test]
fn overlapping_pod_cidrs_are_refused_with_both_nodes() {
    let text = [("a", "10.9.0.0/24", "10.0.0.1"), ("b", "10.1.2.0/24", "10.0.0.2"), ("c", "10.1.0.0/16", "10.0.0.3")]
        .map(|(name, cidr, ip)| yaml(name, cidr, ip))
        .join("---\n");
    assert_error(&text, &["node b", "10.1.2.0/24", "10.1.0.0/16 of node c"]);
}

#[test]
fn one_internal_ip_for_two_nodes_is_refused() {
    let text = format!("{}---\n{}", yaml("a", "10.1.0.0/24", "10.0.0.1"), yaml("b", "10.2.0.0/24", "10.0.0.1"));
    assert_error(&text, &["node b", "InternalIP", "10.0.0.1 of node a"]);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-z0-9:/.{}\\[\\]\\- \n]{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn an_overlap_is_found_exactly_when_two_prefixes_overlap(
        prefixes in proptest::collection::vec((0_u8..4, 0_u8..4, 14_u8..25), 1..8),
    ) {
        let cidrs: Vec<IpNet> = prefixes.iter().map(|(a, b, len)| {
            IpNet::new(IpAddr::from([10, *a, *b, 0]), *len).unwrap().trunc()
        }).collect();
        let text: Vec<_> = cidrs.iter().enumerate()
            .map(|(i, cidr)| yaml(&format!("n{i}"), &cidr.to_string(), &format!("192.168.0.{}", i + 1)))
            .collect();
        let overlap = (0..cidrs.len()).any(|i| (0..i).any(|j| cidrs[i].contains(&cidrs[j]) || cidrs[j].contains(&cidrs[i])));
        prop_assert_eq!(parse(&text.join("---\n")).is_err(), overlap);
    }
}
