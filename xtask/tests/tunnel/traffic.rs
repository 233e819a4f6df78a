//! What passes the tunnel, and that it arrives right.

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    process::Command,
    time::Duration,
};

use xtask::lab::{
    Families, Lab, Pod, rules,
    traffic::{Client, Protocol, Server},
};

use crate::{DEVICE, PORT, apart, counter, drop_pod_addresses, ip, our_routes, pair, redirected, start, to, wired};

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

#[test]
fn pods_of_nodes_behind_a_router_that_drops_their_addresses_reach_each_other() {
    let lab = apart("apart", Families::Dual);
    drop_pod_addresses(&lab);
    start(&lab, &[]);
    let (a, b, _server) = pair(&lab);
    for address in b.addresses() {
        for protocol in PROTOCOLS {
            let counts = redirected(&lab, || {
                let mut client = Client::connect(&a.netns, protocol, to(address)).unwrap();
                client.measure(500).unwrap();
                client.close().unwrap();
            });
            assert_eq!(counts, [0, 0], "what goes through the tunnel stays in the stack: {address} over {protocol:?}");
        }
    }
    let open = |pod: &Pod, address: IpAddr| pod.netns.run(|| UdpSocket::bind((address, 9_999)).unwrap()).unwrap();
    for (from, address) in a.addresses().into_iter().zip(b.addresses()) {
        let (client, server) = (open(&a, from), open(&b, address));
        server.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        client.send_to(b"x", server.local_addr().unwrap()).unwrap();
        let (_, seen) = server.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(seen, client.local_addr().unwrap(), "a pod is seen with its own address");
    }
}

#[test]
fn nodes_with_ipv6_alone_use_a_tunnel_too() {
    let lab = apart("six", Families::V6);
    drop_pod_addresses(&lab);
    start(&lab, &[]);
    let (a, b, _server) = pair(&lab);
    for protocol in PROTOCOLS {
        let mut client = Client::connect(&a.netns, protocol, to(b.address6().unwrap())).unwrap();
        client.measure(200).unwrap();
        client.close().unwrap();
    }
}

#[test]
fn a_node_itself_reaches_the_pods_behind_the_tunnel_and_is_answered_through_it() {
    let lab = apart("host", Families::Dual);
    drop_pod_addresses(&lab);
    // As many distributions have it.
    for node in &lab.nodes {
        node.netns.run(|| minicni::link::sysctl::write("net/ipv4/conf/all/rp_filter", "1").unwrap()).unwrap();
    }
    start(&lab, &[]);
    let (_a, b, _server) = pair(&lab);
    for address in b.addresses() {
        for protocol in PROTOCOLS {
            let mut client = Client::connect(&lab.nodes[0].netns, protocol, to(address)).unwrap();
            client.measure(100).unwrap();
            client.close().unwrap();
        }
    }
}

#[test]
fn the_flow_cache_goes_on_for_what_does_not_go_through_the_tunnel() {
    let lab = apart("local", Families::V4);
    start(&lab, &[]);
    let (a, b, _server) = pair(&lab);
    let neighbour = lab.nodes[0].pod("c").unwrap();
    let _local = Server::start(&neighbour.netns, PORT).unwrap();
    let mut far = Client::connect(&a.netns, Protocol::Udp, to(b.address().unwrap())).unwrap();
    let mut near = Client::connect(&a.netns, Protocol::Udp, to(neighbour.address().unwrap())).unwrap();
    let [count, there] = redirected(&lab, || {
        for _ in 0..500 {
            far.measure(1).unwrap();
            near.measure(1).unwrap();
        }
    });
    assert!(count > 900 && there == 0, "{count}, {there}");
    for node in &lab.nodes {
        let counters = node.counters();
        assert_eq!((counters.spoofed_source, counters.spoofed_mac), (0, 0));
    }
}

/// Makes the uplinks compute checksums, or segment, in software, and verify what comes.
fn offload(lab: &Lab, features: &[&str]) {
    for node in &lab.nodes {
        let mut command = Command::new("ethtool");
        command.args(["-K", "eth0"]).args(features).stdout(std::process::Stdio::null());
        node.netns.run(|| xtask::command::run(&mut command)).unwrap().unwrap();
    }
}

#[test]
fn checksums_are_right_whatever_the_uplink_offloads_and_whether_translated_or_not() {
    let lab = apart("sums", Families::Dual);
    drop_pod_addresses(&lab);
    start(&lab, &[]);
    let (a, b, _server) = pair(&lab);
    let node = &lab.nodes[0];
    // As kube-proxy translates and masquerades what a node sends to a Service. The mark stays on the outer packet, too.
    let service = format!(
        "table ip services {{\n\
           chain output {{\n type nat hook output priority -100\n\
             ip daddr {VIRTUAL} meta mark set 0x4000 dnat to {0}\n }}\n\
           chain prerouting {{\n type nat hook prerouting priority dstnat\n\
             ip daddr {VIRTUAL} meta mark set 0x4000 dnat to {0}\n }}\n\
           chain postrouting {{\n type nat hook postrouting priority srcnat\n\
             meta mark 0x4000 masquerade fully-random\n }}\n\
         }}\n",
        b.address().unwrap()
    );
    rules::nft(node, &service).unwrap();
    let pattern: Vec<u8> = (0..60_000_u32).map(|index| index.to_le_bytes()[0] ^ index.to_le_bytes()[1]).collect();
    for features in [
        &["tx", "on", "rx", "on"][..],
        &["tx-udp_tnl-segmentation", "off", "tx-udp_tnl-csum-segmentation", "off"],
        &["tx", "off", "rx", "off"],
        &["tso", "off", "gso", "off", "gro", "off"],
    ] {
        offload(&lab, features);
        for from in [&a.netns, &node.netns] {
            for address in b.addresses().into_iter().chain([VIRTUAL.into()]) {
                for protocol in PROTOCOLS {
                    let mut client = Client::connect(from, protocol, to(address)).unwrap();
                    let size = if protocol == Protocol::Tcp { pattern.len() } else { 1_300 };
                    for _ in 0..20 {
                        let done = client.exchange(&pattern[..size]);
                        done.unwrap_or_else(|error| panic!("{features:?}: {address} over {protocol:?}: {error}"));
                    }
                    client.close().unwrap();
                }
            }
        }
    }
    for netns in [&a.netns, &b.netns, &lab.nodes[0].netns, &lab.nodes[1].netns] {
        for name in ["TcpInCsumErrors", "UdpInCsumErrors", "Udp6InCsumErrors", "IpReasmFails"] {
            assert_eq!(counter(netns, name), 0, "{name}");
        }
    }
}

#[test]
fn routes_and_device_are_named_as_people_look_for_them() {
    let lab = apart("shown", Families::Dual);
    start(&lab, &["--vxlan-port", "4999", "--vxlan-vni", "77"]);
    let node = &lab.nodes[0];
    let routes = our_routes(node);
    assert!(routes.contains("10.244.2.0/24  encap ip id 77 ") && routes.contains("dst 192.168.77.2 "), "{routes}");
    assert!(routes.contains("fd44:0:0:2::/64  encap ip6 id 77 ") && routes.contains("dst fd77:77::2 "), "{routes}");
    assert!(ip(node, &format!("-d link show {DEVICE}")).contains("dstport 4999"));
    let (a, b, _server) = pair(&lab);
    for address in b.addresses() {
        Client::connect(&a.netns, Protocol::Tcp, to(address)).unwrap().measure(10).unwrap();
    }
    let status = node.run(&mut node.minicnid("status")).unwrap();
    let shown = status.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert!(shown.into_iter().any(|line| line == ["10.244.2.0/24", "192.168.77.2", DEVICE]), "{status}");
}

#[test]
fn a_node_answers_its_own_pods_with_the_address_that_they_asked() {
    let lab = wired("own", Families::Dual);
    start(&lab, &[]);
    let node = &lab.nodes[0];
    let pod = node.pod("a").unwrap();
    let _server = Server::start(&node.netns, PORT).unwrap();
    // A UDP socket that listens on all addresses leaves it to the kernel which one it answers with.
    for address in [IpAddr::from(node.address), node.address6.into()] {
        for protocol in PROTOCOLS {
            let measured = Client::connect(&pod.netns, protocol, to(address)).unwrap().measure(10);
            measured.unwrap_or_else(|error| panic!("{address} over {protocol:?}: {error}"));
        }
    }
}
