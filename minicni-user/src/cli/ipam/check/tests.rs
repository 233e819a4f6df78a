use ipnet::IpNet;

use super::*;
use crate::{
    ipam::{Lease, Owner},
    link::{MacAddress, RouteScope},
    plugin::reclaim,
};

const NOW: u64 = 1000;

fn entry(network: &str, address: &str, state: LeaseState, owner: Option<&str>) -> Entry {
    let owner = owner.map(|name| Owner::new(name, "eth0").unwrap());
    Entry {
        network: network.to_owned(),
        lease: Lease { address: address.parse().unwrap(), state },
        device: owner.as_ref().map(|owner| reclaim::device(network, owner)),
        owner,
    }
}

fn leased(network: &str, address: &str, name: &str, since: u64) -> Entry {
    let state =
        LeaseState::Leased { owner: Owner::new(name, "eth0").unwrap(), pod: Some(format!("default/{name}")), since };
    entry(network, address, state, Some(name))
}

fn link(ifindex: u32, name: String) -> LinkInfo {
    LinkInfo {
        ifindex,
        name,
        kind: Some("veth".to_owned()),
        mac: Some(MacAddress([2; 6])),
        ethernet: true,
        mtu: 1500,
        alias: Some("default/alias".to_owned()),
        up: true,
        peer_ifindex: None,
        peer_netns_id: None,
        vxlan: None,
    }
}

fn route(address: &str, ifindex: u32) -> Route {
    Route {
        destination: IpNet::from(address.parse::<IpAddr>().unwrap()),
        via: None,
        ifindex,
        onlink: false,
        scope: RouteScope::Link,
        protocol: ENDPOINT_ROUTE_PROTOCOL,
        source: None,
        mtu: None,
        tunnel: None,
    }
}

fn endpoint(ipv4: [u8; 4], ipv6: [u8; 16]) -> Endpoint {
    Endpoint { kind: EndpointKind::Pod as u32, flags: 0, ipv4, mac: [2; 6], reserved: [0; 2], ipv6 }
}

/// Two pods of two networks, the first with addresses of both families, and everything as it should be.
fn well() -> Found {
    let entries = vec![
        leased("pods", "10.1.0.2", "a", 1),
        leased("pods", "fd00::2", "a", 1),
        entry("pods", "10.1.0.9", LeaseState::Cooling { since: 1 }, None),
        leased("more", "10.1.0.3", "b", 1),
    ];
    let devices = vec![link(3, entries[0].device.clone().unwrap()), link(4, entries[3].device.clone().unwrap())];
    let routes = vec![route("10.1.0.2", 3), route("fd00::2", 3), route("10.1.0.3", 4)];
    let both = endpoint([10, 1, 0, 2], "fd00::2".parse::<Ipv6Addr>().unwrap().octets());
    let endpoints = BTreeMap::from([(3, both), (4, endpoint([10, 1, 0, 3], [0; 16]))]);
    Found { entries, devices, routes, endpoints, fast: HashSet::new(), now: NOW, map: PathBuf::from("/bpf/endpoints") }
}

#[test]
fn where_everything_agrees_nothing_is_wrong() {
    let found = well();
    assert_eq!((found.differences(None), found.differences(Some("pods"))), (vec![], vec![]));
    let checked = Checked { leases: found.leased().count(), differences: vec![] };
    assert_eq!((checked.to_string().as_str(), checked.is_well()), ("3 leases, nothing is wrong", true));
}

fn drop_device(found: &mut Found, ifindex: u32) {
    found.devices.retain(|link| link.ifindex != ifindex);
}

#[test]
fn each_difference_is_one_line_that_says_what_it_is_and_what_to_do() {
    type Break = fn(&mut Found);
    let gone: Break = |found| {
        drop_device(found, 4);
        found.routes.remove(2);
    };
    let unreadable: Break = |found| {
        found.entries[3].lease.state = LeaseState::Unreadable { reason: "EOF".to_owned() };
        found.routes.remove(2);
    };
    let cases: [(Break, &str, &str); 11] = [
        (
            gone,
            "10.1.0.3 of network more: default/b (b:eth0) holds it, and its device mni",
            "ipam release 10.1.0.3 --network more",
        ),
        (
            |found| drop_device(found, 4),
            "default/b (b:eth0) is gone, and a route leads to interface 4",
            "ip route del 10.1.0.3 proto 110",
        ),
        (
            unreadable,
            "10.1.0.3 of network more: its lease cannot be read (EOF); b:eth0 claims it",
            "ipam release 10.1.0.3",
        ),
        (
            |found| found.routes.retain(|route| route.destination.addr().is_ipv4()),
            "fd00::2 of network pods: default/a (a:eth0) has no route",
            "ip route add fd00::2 dev",
        ),
        (
            |found| found.routes[1].ifindex = 4,
            "fd00::2 of network pods: the host's route leads elsewhere",
            "delete the pod",
        ),
        (
            |found| found.endpoints.get_mut(&4).unwrap().ipv4 = [10, 1, 0, 4],
            "the endpoint map has another address",
            "delete the pod",
        ),
        (
            |found| {
                found.endpoints.remove(&4);
                found.fast.insert(4);
            },
            "is not in the endpoint map, its flows stay in the stack",
            "delete the pod",
        ),
        (
            |found| found.devices.push(link(9, "mni999".to_owned())),
            "mni999 leads to default/alias, which has no lease",
            "ip link del mni999",
        ),
        (
            |found| found.routes.push(route("10.1.0.77", 3)),
            "route to 10.1.0.77/32 leads to an address that is not",
            "ip route del 10.1.0.77/32 proto 110",
        ),
        (|found| found.routes.push(route("10.1.0.9", 3)), "route to 10.1.0.9/32 leads to", "ip route del 10.1.0.9/32"),
        (
            |found| found.endpoints.extend([(258, endpoint([10, 1, 0, 77], [0; 16]))]),
            "the endpoint map has interface 258, which is gone, for 10.1.0.77",
            "bpftool map delete pinned /bpf/endpoints key 2 1 0 0",
        ),
    ];
    for (breaks, what, advice) in cases {
        let mut found = well();
        breaks(&mut found);
        let checked = Checked { leases: 3, differences: found.differences(None) };
        let text = checked.to_string();
        assert!(!checked.is_well() && text.lines().count() == 1, "{what}: {text}");
        assert!(text.contains(what) && text.contains(advice), "{what}: {text}");
    }
}

#[test]
fn what_is_still_being_added_and_what_has_no_fast_path_is_no_difference() {
    let mut found = well();
    found.devices.clear();
    found.routes.clear();
    found.endpoints.clear();
    found.entries.retain(|entry| entry.network == "more");
    assert_eq!(found.differences(None).len(), 1);
    found.entries = vec![leased("more", "10.1.0.3", "b", NOW - 1)];
    assert_eq!(found.differences(None), []);
    let mut found = well();
    found.endpoints.clear();
    assert_eq!(found.differences(None), []);
}

#[test]
fn of_one_network_only_its_own_differences_are_named() {
    let mut found = well();
    found.devices.remove(0);
    found.devices.push(link(9, "mni999".to_owned()));
    assert_eq!(found.differences(Some("more")), []);
    assert_eq!(found.differences(Some("pods")).len(), 2);
    assert_eq!(found.differences(None).len(), 3);
}
