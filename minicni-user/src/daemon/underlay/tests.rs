use super::*;

fn prefix(ifname: &str, address: &str, mtu: u32) -> LocalPrefix {
    let net: IpNet = address.parse().unwrap();
    LocalPrefix { ifindex: 2, ifname: ifname.into(), address: net.addr(), on_link: net.trunc(), mtu }
}

fn me(ips: &[&str]) -> Node {
    let internal_ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    Node { name: "me".into(), pod_cidrs: vec!["10.244.0.0/24".parse().unwrap()], internal_ips }
}

fn with_uplink(text: &str) -> Settings {
    Settings { uplink: Some(text.parse().unwrap()), ..Settings::default() }
}

#[test]
fn an_uplink_is_a_name_or_a_prefix() {
    for (text, uplink) in [
        ("eth0", Uplink::Name("eth0".into())),
        ("10.0.0.1", Uplink::Network("10.0.0.1/32".parse().unwrap())),
        ("10.0.0.1/24", Uplink::Network("10.0.0.0/24".parse().unwrap())),
        ("fd00:1234:5678::/64", Uplink::Network("fd00:1234:5678::/64".parse().unwrap())),
        ("fd00:1234:5678:9abc::1", Uplink::Network("fd00:1234:5678:9abc::1/128".parse().unwrap())),
    ] {
        assert_eq!(text.parse::<Uplink>().unwrap(), uplink);
    }
    for text in ["", "10.0.0.0/33", "eth0/24", "a-name-that-is-too-long"] {
        assert!(text.parse::<Uplink>().unwrap_err().contains(text));
    }
}

#[test]
fn the_uplink_is_what_holds_the_internal_ip_unless_somebody_names_another() {
    let local = vec![prefix("eth0", "10.0.2.15/24", 1500), prefix("eth1", "10.0.0.1/24", 9000)];
    let own = me(&["10.0.0.1"]);
    for (settings, ifname, mtu, networks) in [
        (Settings::default(), "eth1", 9000, 2),
        (with_uplink("eth0"), "eth0", 1500, 1),
        (with_uplink("10.0.2.0/24"), "eth0", 1500, 1),
    ] {
        let underlay = Underlay::new(&settings, &own, local.clone()).unwrap();
        assert_eq!(underlay.own[0].ifname, ifname);
        assert_eq!((underlay.mtu(), underlay.tunnel_mtu()), (Some(mtu), Some(mtu - 36)));
        assert_eq!(underlay.networks().len(), networks);
    }
}

#[test]
fn an_uplink_that_is_not_there_is_a_problem_that_names_it_and_what_there_is() {
    let local = vec![prefix("eth0", "10.0.2.15/24", 1500)];
    for (uplink, parts) in [
        ("eth7", ["eth7 is no interface", "10.0.2.15 on eth0"]),
        ("192.168.7.0/24", ["192.168.7.0/24 holds no address", "10.0.2.15 on eth0"]),
    ] {
        let problem = Underlay::new(&with_uplink(uplink), &me(&["10.0.2.15"]), local.clone()).unwrap_err();
        assert!(parts.iter().all(|part| problem.to_string().contains(part)), "{problem}");
    }
}

#[test]
fn the_tunnel_has_room_for_the_larger_header_where_a_node_has_both_families() {
    let local = vec![prefix("eth0", "10.0.0.1/24", 1500), prefix("eth0", "fd00::1/64", 1500)];
    let tunnel = |ips| Underlay::new(&Settings::default(), &me(ips), local.clone()).unwrap().tunnel_mtu();
    assert_eq!(tunnel(&["10.0.0.1"]), Some(1464));
    assert_eq!(tunnel(&["10.0.0.1", "fd00::1"]), Some(1444));
    assert_eq!(tunnel(&["10.0.0.9"]), None);
}

#[test]
fn neither_the_loopback_device_nor_the_tunnel_tells_an_mtu() {
    let local = vec![
        prefix("lo", "10.0.0.1/32", 65_536),
        prefix("eth0", "10.0.0.2/24", 1500),
        prefix(tunnel::DEVICE, "10.244.0.0/32", 1444),
    ];
    let underlay = Underlay::new(&Settings::default(), &me(&["10.0.0.1"]), local.clone()).unwrap();
    assert_eq!((underlay.own.len(), underlay.mtu(), underlay.networks().len()), (1, None, 2));
    let underlay = Underlay::new(&Settings::default(), &me(&["10.0.0.1", "10.0.0.2"]), local).unwrap();
    assert_eq!(underlay.mtu(), Some(1500));
}

#[test]
fn encapsulations_are_read_as_they_are_written() {
    for encapsulation in [Encapsulation::Never, Encapsulation::CrossSubnet, Encapsulation::Always] {
        assert_eq!(encapsulation.to_string().parse(), Ok(encapsulation));
    }
    assert!("sometimes".parse::<Encapsulation>().unwrap_err().contains("cross-subnet"));
}
