//! Firewalls that drop what they do not know.

use std::net::{IpAddr, SocketAddr};

use minicni::daemon::firewall;
use xtask::lab::{Lab, Node, rules};

use super::{
    IPTABLES, PORT, SECOND, eventually, iptables, nodes, problems, promised, reacts, ruleset, saved, seen, settle,
    without_ours,
};

/// As Docker and ufw leave them: a policy of DROP, and rules and chains of their own.
fn drop_by_policy(node: &Node, backend: &str) {
    for program in IPTABLES {
        for rule in [
            "-N DOCKER-USER",
            "-A DOCKER-USER -j RETURN",
            "-A FORWARD -j DOCKER-USER",
            "-A FORWARD -i docker0 -j ACCEPT",
            "-A INPUT -p tcp --dport 23 -j DROP",
            "-P FORWARD DROP",
        ] {
            iptables(node, &format!("{program}-{backend} {rule}"));
        }
    }
}

#[test]
fn pods_talk_beside_a_forward_policy_of_drop_and_nothing_else_of_the_rules_changes() {
    for backend in ["nft", "legacy"] {
        let mut lab = nodes(&format!("drop-{backend}"), 2);
        for node in &lab.nodes {
            drop_by_policy(node, backend);
        }
        let before = saved(&lab.nodes[0], backend);
        lab.start_daemons().unwrap();
        settle();
        let (a, n, r) =
            (lab.nodes[0].pod("a").unwrap(), lab.nodes[0].pod("n").unwrap(), lab.nodes[1].pod("r").unwrap());
        reacts("pods talk beside a policy of DROP", &a, [&n, &r]);
        let node = &lab.nodes[0];
        let now = saved(node, backend);
        assert_eq!(without_ours(&now), before, "{backend}");
        assert!(now.contains("-A FORWARD -i docker0 -j ACCEPT\n-A FORWARD -m comment --comment \"minicni: forward pod traffic\" -j MINICNI-FORWARD"), "{now}");
        let other = if backend == "nft" { "legacy" } else { "nft" };
        assert!(!saved(node, other).contains("MINICNI"), "only the backend that drops gets rules");
        assert!(!problems(&lab).contains("Forward"), "{}", problems(&lab));

        // What somebody removes is back, and what is removed on purpose is gone, byte by byte.
        for program in IPTABLES {
            iptables(node, &format!("{program}-{backend} -F MINICNI-FORWARD"));
        }
        eventually(promised(2 * SECOND), "the rules are back", || saved(node, backend) == now);
        node.stop_daemon().unwrap();
        let errors = node.netns.run(firewall::remove).unwrap();
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(saved(node, backend), before, "{backend}");
        assert!(!ruleset(node).contains("minicni"), "{}", ruleset(node));
        let errors = node.netns.run(firewall::remove).unwrap();
        assert!(errors.is_empty(), "a second time: {errors:?}");
    }
}

#[test]
fn without_a_policy_of_drop_iptables_is_left_alone_and_with_one_that_comes_later_it_is_not() {
    let mut lab = nodes("later", 1);
    iptables(&lab.nodes[0], "iptables-nft -A FORWARD -i docker0 -j ACCEPT");
    iptables(&lab.nodes[0], "iptables-legacy -A FORWARD -i docker0 -j ACCEPT");
    let untouched = |node: &Node| ["nft", "legacy"].map(|backend| saved(node, backend));
    let before = untouched(&lab.nodes[0]);
    lab.start_daemons().unwrap();
    settle();
    let node = &lab.nodes[0];
    assert_eq!(untouched(node), before);
    let (a, n) = (node.pod("a").unwrap(), node.pod("n").unwrap());
    let reaches = |to: IpAddr| seen(&a.netns, &n.netns, SocketAddr::new(to, PORT)).is_some();
    for backend in ["nft", "legacy"] {
        iptables(node, &format!("iptables-{backend} -P FORWARD DROP"));
        eventually(2 * SECOND, "the rules", || saved(node, backend).contains("-A FORWARD -m comment"));
        assert!(reaches(n.addresses()[0]));
        iptables(node, &format!("iptables-{backend} -P FORWARD ACCEPT"));
        eventually(2 * SECOND, "no rules", || !saved(node, backend).contains("MINICNI"));
    }
    assert_eq!(untouched(node), before);
}

#[test]
fn an_administrators_drop_that_stands_before_the_policy_is_obeyed() {
    let mut lab = nodes("obeyed", 1);
    drop_by_policy(&lab.nodes[0], "nft");
    lab.start_daemons().unwrap();
    settle();
    let node = &lab.nodes[0];
    let (a, n) = (node.pod("a").unwrap(), node.pod("n").unwrap());
    let to = SocketAddr::new(n.addresses()[0], PORT);
    assert!(seen(&a.netns, &n.netns, to).is_some());
    iptables(node, &format!("iptables-nft -I DOCKER-USER -d {} -j DROP", n.addresses()[0]));
    settle();
    assert_eq!(seen(&a.netns, &n.netns, to), None);
}

#[test]
fn a_table_of_nftables_that_drops_what_it_does_not_know_is_named_until_it_knows_the_pods() {
    let mut lab = nodes("foreign", 1);
    let strict = "table inet strict { chain forward { type filter hook forward priority 0; policy drop;\n }\n }";
    rules::nft(&lab.nodes[0], strict).unwrap();
    lab.start_daemons().unwrap();
    let told = |lab: &Lab| problems(lab).contains("chain inet strict forward drops what none of its rules accepts");
    assert!(told(&lab), "{}", problems(&lab));
    assert!(problems(&lab).contains("10.244.1.0/24"));
    let accept = "add rule inet strict forward ip saddr 10.244.0.0/16 ip daddr 10.244.0.0/16 accept\n\
                  add rule inet strict forward ip6 saddr fd44::/48 ip6 daddr fd44::/48 accept\n";
    rules::nft(&lab.nodes[0], accept).unwrap();
    assert!(!told(&lab), "{}", problems(&lab));
}
