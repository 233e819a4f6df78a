use nix::errno::Errno;

use super::{HOST_INDEX, HOST_MAC, POD_INDEX, fresh_netns, in_fresh_netns, pair, socket_with_pair};
use crate::link::{LinkError, Route, RouteFilter, RouteScope, Socket, address, alias, link_up, neighbour, route};

fn host_route(destination: &str) -> Route {
    Route {
        destination: destination.parse().unwrap(),
        via: None,
        ifindex: HOST_INDEX,
        onlink: false,
        scope: RouteScope::Link,
        protocol: 201,
        source: None,
        mtu: None,
        tunnel: None,
    }
}

#[test]
fn the_first_failure_of_a_batch_is_named_and_the_other_requests_are_applied() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        let mut socket = socket_with_pair(&pod);
        let error = socket
            .batch(vec![
                route(&host_route("10.1.0.5/32")),
                route(&Route { ifindex: 9999, ..host_route("10.1.0.6/32") }),
                route(&host_route("10.1.0.5/32")),
                route(&host_route("10.1.0.7/32")),
            ])
            .unwrap_err();
        assert_eq!(error.to_string(), "add route 10.1.0.6/32 dev 9999: ENODEV: No such device");
        assert_eq!(error.errno(), Some(Errno::ENODEV as i32));

        let routes = socket.routes(RouteFilter { protocol: Some(201), ifindex: None }).unwrap();
        let found: Vec<_> = routes.iter().map(|route| route.destination.to_string()).collect();
        assert_eq!(found, ["10.1.0.5/32", "10.1.0.7/32"]);
    });
}

#[test]
fn the_kernels_own_words_are_part_of_the_error() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        let mut socket = socket_with_pair(&pod);
        let gateway = Some("169.254.1.1".parse().unwrap());
        let error = socket
            .batch(vec![route(&Route { via: gateway, scope: RouteScope::Universe, ..host_route("0.0.0.0/0") })])
            .unwrap_err();
        let LinkError::Refused { reason, .. } = &error else { panic!("{error}") };
        assert_eq!(reason, "Nexthop has invalid gateway");
    });
}

#[test]
fn an_error_is_success_only_for_the_request_that_tolerates_it() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        let mut socket = socket_with_pair(&pod);
        let again = || route(&host_route("10.1.0.5/32"));
        socket.batch(vec![again(), again().tolerate(Errno::EEXIST)]).unwrap();
        let error = socket.batch(vec![again().tolerate(Errno::EEXIST), again()]).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EEXIST as i32), "{error}");
        let error = socket.batch(vec![again().tolerate(Errno::ENOENT)]).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EEXIST as i32), "{error}");
    });
}

#[test]
fn a_batch_of_a_thousand_requests_loses_no_answer() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        let mut socket = socket_with_pair(&pod);
        let destinations = || (0..1000).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256));
        socket.batch(destinations().map(|destination| route(&host_route(&destination))).collect()).unwrap();
        assert_eq!(socket.routes(RouteFilter { protocol: Some(201), ifindex: Some(HOST_INDEX) }).unwrap().len(), 1000);

        let mut again: Vec<_> =
            destinations().map(|destination| route(&host_route(&destination)).tolerate(Errno::EEXIST)).collect();
        again.push(route(&Route { ifindex: 9999, ..host_route("10.250.0.0/24") }));
        let error = socket.batch(again).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::ENODEV as i32), "{error}");
    });
}

#[test]
fn an_empty_batch_is_success() {
    in_fresh_netns(|| Socket::open().unwrap().batch(Vec::new()).unwrap());
}

#[test]
fn a_socket_serves_on_after_a_refusal() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        let mut socket = socket_with_pair(&pod);
        socket.batch(vec![pair("mni0", &pod)]).unwrap_err();
        assert!(socket.link_by_name("absent").unwrap().is_none());
        assert!(socket.link_by_name("mni0").unwrap().is_some());
        assert_eq!(socket.links().unwrap().len(), 2);
    });
}

/// Prints what the plugin's two batches cost: `cargo test -p minicni-user --lib link:: -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a promise"]
fn wiring_a_pod_takes_about_a_millisecond() {
    use std::{os::fd::AsFd as _, time::Instant};

    use super::traffic_control::program;
    use crate::link::{block_filter, clsact, delete_link, without_link_local};

    let mut times = Vec::new();
    let program = program();
    in_fresh_netns(|| {
        for _ in 0..30 {
            let pod = fresh_netns();
            let start = Instant::now();
            let mut socket = Socket::open().unwrap();
            socket.batch(vec![pair("mni0", &pod)]).unwrap();
            let made = start.elapsed();
            let ip = "10.1.0.5".parse().unwrap();
            socket
                .batch(vec![
                    alias(HOST_INDEX, "shop/cart-7f9c"),
                    without_link_local(HOST_INDEX),
                    clsact(HOST_INDEX, 100, 101),
                    block_filter(100, program.as_fd(), "ingress", false).tolerate(Errno::EEXIST),
                    block_filter(101, program.as_fd(), "egress", false).tolerate(Errno::EEXIST),
                    neighbour(HOST_INDEX, ip, super::POD_MAC),
                    route(&host_route("10.1.0.5/32")),
                ])
                .unwrap();
            let host = start.elapsed();
            let gateway = "169.254.1.1".parse().unwrap();
            pod.run(|| {
                Socket::open().unwrap().batch(vec![
                    link_up(POD_INDEX),
                    address(POD_INDEX, "10.1.0.5/32".parse().unwrap(), true),
                    neighbour(POD_INDEX, gateway, HOST_MAC),
                    route(&Route {
                        via: Some(gateway),
                        ifindex: POD_INDEX,
                        onlink: true,
                        scope: RouteScope::Universe,
                        ..host_route("0.0.0.0/0")
                    }),
                ])
            })
            .unwrap()
            .unwrap();
            let total = start.elapsed();
            times.push([made, host.saturating_sub(made), total.saturating_sub(host), total]);
            socket.batch(vec![delete_link(HOST_INDEX)]).unwrap();
        }
    });
    for (column, name) in ["veth", "rest of host", "pod", "total"].iter().enumerate() {
        let mut column: Vec<_> = times.iter().map(|row| row[column]).collect();
        column.sort();
        println!("{name}: min {:?}, median {:?}, max {:?}", column[0], column[15], column[29]);
    }
}
