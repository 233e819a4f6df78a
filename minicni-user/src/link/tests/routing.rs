use ipnet::IpNet;

use super::{HOST_INDEX, HOST_MAC, POD_INDEX, POD_MAC, fresh_netns, in_fresh_netns, socket_with_pair};
use crate::link::{
    Neighbour, Route, RouteFilter, RouteScope, Socket, address, delete_route, link_up, neighbour, route,
};

fn pod_route(destination: &str, via: Option<&str>) -> Route {
    Route {
        destination: destination.parse().unwrap(),
        via: via.map(|gateway| gateway.parse().unwrap()),
        ifindex: POD_INDEX,
        onlink: via.is_some(),
        scope: RouteScope::Universe,
        protocol: 201,
        source: None,
        mtu: None,
        tunnel: None,
    }
}

#[test]
fn addresses_routes_and_neighbours_are_read_back_as_they_were_written() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        let _host = socket_with_pair(&pod);
        let addresses: [IpNet; 2] = ["10.1.0.5/32".parse().unwrap(), "fd00:1::5/128".parse().unwrap()];
        let gateways = ["169.254.1.1".parse().unwrap(), "fe80::1".parse().unwrap()];
        let routes = [
            Route {
                source: Some("10.1.0.5".parse().unwrap()),
                mtu: Some(1400),
                ..pod_route("0.0.0.0/0", Some("169.254.1.1"))
            },
            Route { scope: RouteScope::Link, ..pod_route("10.9.0.0/16", None) },
            pod_route("::/0", Some("fe80::1")),
            Route { mtu: Some(1400), ..pod_route("fd00:9::/64", Some("fe80::1")) },
        ];
        pod.run(|| {
            let mut socket = Socket::open().unwrap();
            let mut batch = vec![link_up(POD_INDEX)];
            batch.extend(addresses.map(|ip| address(POD_INDEX, ip, true)));
            batch.extend(gateways.map(|gateway| neighbour(POD_INDEX, gateway, HOST_MAC)));
            batch.extend(routes.iter().map(route));
            socket.batch(batch).unwrap();

            let found = socket.addresses(POD_INDEX).unwrap();
            assert!(addresses.iter().all(|address| found.contains(address)), "{found:?}");

            let found = socket.neighbours(POD_INDEX).unwrap();
            for address in gateways {
                assert!(found.contains(&Neighbour { address, mac: Some(HOST_MAC), permanent: true }), "{found:?}");
            }

            let filter = RouteFilter { protocol: Some(201), ifindex: Some(POD_INDEX) };
            let mut found = socket.routes(filter).unwrap();
            found.sort_by_key(|route| route.destination);
            let mut expected = routes.to_vec();
            expected.sort_by_key(|route| route.destination);
            // IPv6 reports no ONLINK for a link-local gateway, which is on-link by nature.
            for route in found.iter_mut().chain(&mut expected) {
                route.onlink = route.onlink && route.destination.addr().is_ipv4();
            }
            assert_eq!(found, expected);
        })
        .unwrap();
    });
}

#[test]
fn a_neighbour_entry_is_replaced_by_a_newer_one() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        let mut socket = socket_with_pair(&pod);
        let ip = "10.1.0.5".parse().unwrap();
        socket.batch(vec![neighbour(HOST_INDEX, ip, HOST_MAC), neighbour(HOST_INDEX, ip, POD_MAC)]).unwrap();
        let entry = Neighbour { address: ip, mac: Some(POD_MAC), permanent: true };
        assert_eq!(socket.neighbours(HOST_INDEX).unwrap(), [entry]);
    });
}

#[test]
fn a_filter_lists_only_the_routes_of_its_protocol_and_device() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        let mut socket = socket_with_pair(&pod);
        let ours = Route { ifindex: HOST_INDEX, ..pod_route("10.1.0.5/32", None) };
        let other = Route { protocol: 4, destination: "10.1.0.6/32".parse().unwrap(), ..ours.clone() };
        socket.batch(vec![route(&ours), route(&other)]).unwrap();

        let list = |socket: &mut Socket, protocol, ifindex| {
            let mut routes = socket.routes(RouteFilter { protocol, ifindex }).unwrap();
            routes.retain(|route| route.destination.addr().is_ipv4());
            routes
        };
        assert_eq!(list(&mut socket, Some(201), None), std::slice::from_ref(&ours));
        assert_eq!(list(&mut socket, None, Some(HOST_INDEX)), [ours, other]);
        assert_eq!(list(&mut socket, None, Some(1)), []);
        assert_eq!(list(&mut socket, Some(202), None), []);
    });
}

#[test]
fn a_namespace_without_routes_and_a_device_that_is_gone_have_no_routes() {
    in_fresh_netns(|| {
        let mut socket = Socket::open().unwrap();
        assert_eq!(socket.routes(RouteFilter::default()).unwrap(), []);
        assert_eq!(socket.routes(RouteFilter { protocol: None, ifindex: Some(9999) }).unwrap(), []);
    });
}

#[test]
fn a_deleted_route_is_gone_and_deleting_it_again_is_success() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        let mut socket = socket_with_pair(&pod);
        for destination in ["10.1.0.5/32", "fd00:1::5/128"] {
            let ours = Route { ifindex: HOST_INDEX, ..pod_route(destination, None) };
            let elsewhere = Route { ifindex: 9999, ..ours.clone() };
            socket
                .batch(vec![route(&ours), delete_route(&ours), delete_route(&ours), delete_route(&elsewhere)])
                .unwrap();
        }
        assert_eq!(socket.routes(RouteFilter { protocol: Some(201), ifindex: None }).unwrap(), []);
    });
}

#[test]
fn deleting_a_route_leaves_another_protocols_route_alone() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        let mut socket = socket_with_pair(&pod);
        let foreign = Route { ifindex: HOST_INDEX, protocol: 4, ..pod_route("10.1.0.5/32", None) };
        let ours = Route { protocol: 201, ..foreign.clone() };
        socket.batch(vec![route(&foreign), delete_route(&ours)]).unwrap();
        assert_eq!(socket.routes(RouteFilter { protocol: Some(4), ifindex: None }).unwrap(), [foreign]);
    });
}
