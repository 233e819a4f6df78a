use std::{os::fd::AsFd as _, thread, time::Duration};

use nix::errno::Errno;

use super::{
    HOST_INDEX, HOST_MAC, POD_END, POD_INDEX, POD_MAC, fresh_netns, host_end, in_fresh_netns, link_in, socket_with_pair,
};
use crate::link::{
    LinkError, Socket, VethEnd, Vxlan, address, alias, delete_address, delete_group, delete_link, index_of, link_up,
    mac_of, name_of, set_group, set_mtu, sysctl, veth, vxlan, without_link_local,
};

#[test]
fn a_veth_pair_is_made_with_its_peer_inside_another_namespace() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        let mut socket = socket_with_pair(&pod);
        socket.batch(vec![alias(HOST_INDEX, "shop/cart-7f9c")]).unwrap();

        let host = socket.link_by_name("mni0").unwrap().unwrap();
        assert_eq!(
            (host.ifindex, host.mac, host.mtu, host.up, host.kind.as_deref(), host.alias.as_deref()),
            (HOST_INDEX, Some(HOST_MAC), 1450, true, Some("veth"), Some("shop/cart-7f9c"))
        );
        assert_eq!(host.peer_ifindex, Some(POD_INDEX));
        assert!(host.peer_netns_id.is_some());
        assert_eq!(socket.link_by_index(HOST_INDEX).unwrap().as_ref(), Some(&host));
        assert!(socket.links().unwrap().contains(&host));

        let peer = link_in(&pod, "eth0").unwrap();
        assert_eq!(
            (peer.ifindex, peer.mac, peer.mtu, peer.up, peer.kind.as_deref()),
            (POD_INDEX, Some(POD_MAC), 1450, false, Some("veth"))
        );
        assert_eq!(socket.link_by_name("eth0").unwrap(), None);
    });
}

#[test]
fn an_index_is_chosen_by_the_kernel_where_none_is_given() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        let host = VethEnd { ifindex: None, ..host_end("mni0") };
        let peer = VethEnd { ifindex: None, ..POD_END };
        let mut socket = Socket::open().unwrap();
        socket.batch(vec![veth(&host, &peer, pod.as_fd()).unwrap()]).unwrap();
        assert!(socket.link_by_name("mni0").unwrap().is_some());
        assert!(link_in(&pod, "eth0").is_some());
    });
}

#[test]
fn a_taken_name_or_index_on_either_side_is_an_error_and_makes_no_device() {
    in_fresh_netns(|| {
        let (pod, free) = (fresh_netns(), fresh_netns());
        let mut socket = socket_with_pair(&pod);
        let host = VethEnd { ifindex: Some(HOST_INDEX + 1), ..host_end("mni1") };
        let peer = VethEnd { name: "eth1", ifindex: Some(POD_INDEX + 1), ..POD_END };
        for (host, peer, netns) in [
            (VethEnd { name: "mni0", ..host }, peer, &free),
            (VethEnd { ifindex: Some(HOST_INDEX), ..host }, peer, &free),
            (host, VethEnd { name: "eth0", ..peer }, &pod),
            (host, VethEnd { ifindex: Some(POD_INDEX), ..peer }, &pod),
        ] {
            let error = socket.batch(vec![veth(&host, &peer, netns.as_fd()).unwrap()]).unwrap_err();
            let taken = [Some(Errno::EEXIST as i32), Some(Errno::EBUSY as i32)];
            assert!(taken.contains(&error.errno()), "{error}");
            assert_eq!(socket.link_by_name("mni1").unwrap(), None);
            assert_eq!(link_in(netns, "eth1"), None);
        }
    });
}

#[test]
fn a_name_the_kernel_would_not_take_is_refused_with_the_reason() {
    let pod = fresh_netns();
    for name in ["", ".", "..", "a/b", "with blank", "sixteen-letters-", "a:b", "nul\0"] {
        let error = veth(&host_end(name), &POD_END, pod.as_fd()).unwrap_err();
        assert!(matches!(&error, LinkError::Invalid { value, .. } if value == name), "{error}");
    }
}

#[test]
fn index_and_mac_are_found_by_name_without_netlink() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        let _socket = socket_with_pair(&pod);
        assert_eq!((index_of("mni0").unwrap(), mac_of("mni0").unwrap()), (Some(HOST_INDEX), Some(HOST_MAC)));
        assert_eq!((name_of(HOST_INDEX).unwrap().as_deref(), name_of(HOST_INDEX + 1).unwrap()), (Some("mni0"), None));
        assert_eq!(mac_of("lo").unwrap(), None, "it is no Ethernet device");
        for name in ["eth0", "", "a-name-that-is-too-long-for-a-device"] {
            assert_eq!((index_of(name).unwrap(), mac_of(name).unwrap()), (None, None), "{name}");
        }
    });
}

#[test]
fn deleting_a_group_deletes_its_devices_and_no_other_and_an_empty_group_is_success() {
    in_fresh_netns(|| {
        let pods = [fresh_netns(), fresh_netns(), fresh_netns()];
        let mut socket = Socket::open().unwrap();
        for (number, pod) in (0..).zip(&pods) {
            let name = format!("mni{number}");
            let host = VethEnd { ifindex: Some(HOST_INDEX + number), ..host_end(&name) };
            socket.batch(vec![veth(&host, &POD_END, pod.as_fd()).unwrap()]).unwrap();
        }
        socket.batch(vec![delete_group(77)]).unwrap();
        socket.batch(vec![set_group(HOST_INDEX, 77), set_group(HOST_INDEX + 2, 77), set_group(99, 77)]).unwrap();
        socket.batch(vec![delete_group(77)]).unwrap();
        let left = (0..3).filter(|number| socket.link_by_index(HOST_INDEX + number).unwrap().is_some());
        assert_eq!(left.collect::<Vec<_>>(), [1]);
        socket.batch(vec![delete_group(77)]).unwrap();
    });
}

#[test]
fn deleting_one_end_deletes_both_and_deleting_again_is_success() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        let mut socket = socket_with_pair(&pod);
        socket.batch(vec![delete_link(HOST_INDEX)]).unwrap();
        assert_eq!(socket.link_by_index(HOST_INDEX).unwrap(), None);
        assert_eq!(link_in(&pod, "eth0"), None);
        socket.batch(vec![delete_link(HOST_INDEX)]).unwrap();
    });
}

#[test]
fn a_device_without_link_local_has_no_ipv6_address_when_it_is_up() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        let mut socket = socket_with_pair(&pod);
        socket.batch(vec![without_link_local(HOST_INDEX)]).unwrap();
        let has_address = pod
            .run(|| {
                let mut inside = Socket::open().unwrap();
                inside.batch(vec![link_up(POD_INDEX)]).unwrap();
                // The kernel gives it one in its own time.
                (0..100).any(|_| {
                    thread::sleep(Duration::from_millis(20));
                    inside.addresses(POD_INDEX).unwrap().len() == 1
                })
            })
            .unwrap();
        assert_eq!(sysctl::read("net/ipv6/conf/mni0/addr_gen_mode").unwrap(), "1");
        assert!(has_address, "the other end, left as it is, has none either");
        assert_eq!(socket.addresses(HOST_INDEX).unwrap(), []);
    });
}

#[test]
fn an_alias_longer_than_the_kernel_keeps_is_cut_between_letters() {
    in_fresh_netns(|| {
        let pod = fresh_netns();
        let mut socket = socket_with_pair(&pod);
        socket.batch(vec![alias(HOST_INDEX, &"ä".repeat(200))]).unwrap();
        let link = socket.link_by_index(HOST_INDEX).unwrap().unwrap();
        assert_eq!(link.alias, Some("ä".repeat(127)));
    });
}

#[test]
fn a_name_or_index_that_no_device_can_have_is_no_device() {
    in_fresh_netns(|| {
        let mut socket = Socket::open().unwrap();
        for name in ["", "sixteen-letters-", &"x".repeat(70_000)] {
            assert_eq!(socket.link_by_name(name).unwrap(), None);
        }
        assert_eq!(socket.link_by_index(0).unwrap(), None);
    });
}

#[test]
fn a_vxlan_device_is_read_back_as_it_was_made_and_its_addresses_and_mtu_can_be_changed() {
    in_fresh_netns(|| {
        let mut socket = Socket::open().unwrap();
        let addresses = ["10.9.0.0/32", "fd09::/128"].map(|address| address.parse().unwrap());
        socket.batch(vec![vxlan("tunnel0", Vxlan::routed(4790))]).unwrap();
        let made = socket.link_by_name("tunnel0").unwrap().unwrap();
        assert_eq!((made.kind.as_deref(), made.vxlan), (Some("vxlan"), Some(Vxlan::routed(4790))));
        assert!(!made.ethernet && !made.up && made.mac.is_none());

        let mut batch = vec![set_mtu(made.ifindex, 1444), without_link_local(made.ifindex), link_up(made.ifindex)];
        batch.extend(addresses.map(|prefix| address(made.ifindex, prefix, true)));
        socket.batch(batch).unwrap();
        assert_eq!(socket.addresses(made.ifindex).unwrap(), addresses);
        let up = socket.link_by_index(made.ifindex).unwrap().unwrap();
        assert_eq!((up.mtu, up.up), (1444, true));
        for _ in 0..2 {
            socket.batch(addresses.map(|prefix| delete_address(made.ifindex, prefix)).into()).unwrap();
        }
        assert_eq!(socket.addresses(made.ifindex).unwrap(), []);

        let failures = socket
            .batch_each(vec![vxlan("tunnel0", Vxlan::routed(4791)), vxlan("tunnel1", Vxlan::routed(4791))])
            .unwrap();
        let errnos: Vec<_> = failures.iter().map(|failure| failure.as_ref().and_then(LinkError::errno)).collect();
        assert_eq!(errnos, [Some(Errno::EEXIST as i32), None]);
    });
}
