//! The tests of plugin and daemon that `test kernels` runs: those that ask the kernel for what differs between kernels.

use super::kernel::Release;

/// The check of IPv6 source addresses by nftables' `fib`, for pods without programs; and by the programs.
const SPOOFING: [&str; 2] = [
    "a_foreign_source_address_is_dropped_behind_any_number_of_vlan_tags",
    "without_the_programs_a_foreign_source_address_is_dropped_too_unless_the_pod_may_use_any",
];

/// nftables: masquerading, sets, and the rules of others.
const FIREWALL: [&str; 3] = [
    "forward::pods_talk_beside_a_forward_policy_of_drop_and_nothing_else_of_the_rules_changes",
    "masquerade::a_service_of_kube_proxy_keeps_the_pods_address_and_its_own_masquerading_works_beside_ours",
    "masquerade::hosts_outside_see_the_nodes_address_and_everybody_in_the_cluster_the_pods_own",
];

/// VXLAN-GPE, routes with an encapsulation of their own, offloads.
const TUNNEL: [&str; 5] = [
    "modes::without_encapsulation_a_node_behind_a_router_is_a_problem_that_says_what_to_do",
    "traffic::checksums_are_right_whatever_the_uplink_offloads_and_whether_translated_or_not",
    "traffic::nodes_with_ipv6_alone_use_a_tunnel_too",
    "traffic::pods_of_nodes_behind_a_router_that_drops_their_addresses_reach_each_other",
    "traffic::the_flow_cache_goes_on_for_what_does_not_go_through_the_tunnel",
];

/// UDP on the fast path between pods of one node, beside translation, and until a rule or a route says otherwise.
const FAST_PATH: [&str; 2] = [
    "a_flow_that_conntrack_does_not_track_is_redirected_and_works",
    "one_socket_may_talk_to_a_pod_and_to_a_virtual_address_of_the_same_pod",
];
const RULES: [&str; 1] = ["whatever_the_daemon_can_hear_of_stops_a_promoted_flow_within_300_ms"];

/// TCX from Linux 6.6 on, else filters of a clsact qdisc; redirects between pods and uplinks.
const UPLINK: [&str; 4] = [
    "attachment::an_uplink_that_is_made_anew_or_renamed_is_attached_again",
    "attachment::beside_filters_in_a_clsact_qdisc_the_programs_run_behind_them_and_leave_them_alone",
    "attachment::route_mode_takes_the_programs_off_and_the_next_start_brings_them_back",
    "attachment::the_programs_are_on_the_uplink_from_when_the_daemon_is_ready_and_stay_when_it_stops",
];

/// TCP, too, from Linux 5.14 on.
const WITH_TCP: &str =
    "traffic::more_than_98_percent_of_a_conversation_between_pods_of_two_nodes_is_redirected_on_both";

/// Beside programs that others attached by TCX.
const WITH_TCX: [&str; 2] = [
    "attachment::the_programs_of_others_survive_all_that_the_daemon_does",
    "attachment::what_a_program_of_others_before_ours_drops_is_dropped_of_promoted_flows_too_and_at_once",
];

/// Test programs of this package, and the names of the tests of each.
pub(super) fn tests(release: Release) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut uplink = UPLINK.to_vec();
    if release != Release::Bullseye {
        uplink.push(WITH_TCP);
        if release != Release::Bookworm {
            uplink.extend(WITH_TCX);
        }
    }
    vec![
        ("fast_path", FAST_PATH.to_vec()),
        ("fast_path_rules", RULES.to_vec()),
        ("spoofing", SPOOFING.to_vec()),
        ("firewall", FIREWALL.to_vec()),
        ("tunnel", TUNNEL.to_vec()),
        ("uplink", uplink),
    ]
}
