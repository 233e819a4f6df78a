//! What the runtime asks for, in every spelling and from every source.

use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Code, Dns, IpRange, Request, Requested};
use super::{Answering, any_json, call, variables};

/// The request of an ADD with these keys and these `CNI_ARGS`.
fn request(keys: &Value, args: &str) -> Request {
    let mut config = json!({"name": "n", "cniVersion": "1.1.0"});
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let mut variables = variables("ADD");
    variables.push(("CNI_ARGS".to_owned(), args.to_owned()));
    let plugin = Answering::attaching();
    let outcome = call(&plugin, &variables, config.to_string());
    assert_eq!(outcome.status, 0, "{outcome:?}");
    plugin.requests.into_inner().pop().unwrap()
}

fn requested(keys: &Value, args: &str) -> Requested {
    request(keys, args).requested().unwrap_or_else(|error| panic!("{keys} {args}: {error}"))
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

fn range(subnet: &str, start: Option<&str>, end: Option<&str>, gateway: Option<&str>) -> IpRange {
    let address = |text: Option<&str>| text.map(|text| text.parse().unwrap());
    IpRange {
        subnet: subnet.parse().unwrap(),
        range_start: address(start),
        range_end: address(end),
        gateway: address(gateway),
    }
}

#[test]
fn addresses_come_from_the_strongest_source_that_names_any() {
    let table: &[(Value, &str, &[&str])] = &[
        (json!({}), "", &[]),
        (json!({}), "IP=10.0.0.5", &["10.0.0.5"]),
        (json!({}), "K8S_POD_NAME=a;IP=10.0.0.5/24, fd00::5,;IgnoreUnknown=1", &["10.0.0.5", "fd00::5"]),
        (json!({}), "IP=;ip=10.0.0.5", &[]),
        (json!({"args": null}), "IP=10.0.0.5", &["10.0.0.5"]),
        (json!({"args": {"cni": null, "other": 1}}), "IP=10.0.0.5", &["10.0.0.5"]),
        (json!({"args": {"cni": {"ips": []}}}), "IP=10.0.0.5", &["10.0.0.5"]),
        (json!({"args": {"cni": {"ips": ["10.0.0.6"]}}}), "IP=10.0.0.5", &["10.0.0.6"]),
        (json!({"args": {"cni": {"ips": "10.0.0.6/16"}}}), "IP=nonsense", &["10.0.0.6"]),
        (json!({"Args": {"CNI": {"IPs": "10.0.0.6"}}}), "", &["10.0.0.6"]),
        (json!({"args": {"cni": {"ips": ""}}}), "IP=10.0.0.5", &["10.0.0.5"]),
        (
            json!({"args": {"cni": {"ips": 1}}, "runtimeConfig": {"ips": ["10.0.0.7", "fd00::7/64"]}}),
            "IP=10.0.0.5",
            &["10.0.0.7", "fd00::7"],
        ),
        (json!({"runtimeConfig": {"IPs": ["fd00::7", "10.0.0.7"]}}), "", &["fd00::7", "10.0.0.7"]),
        (json!({"runtimeConfig": {"ips": null}, "args": {"cni": {"ips": ["10.0.0.6"]}}}), "", &["10.0.0.6"]),
        (json!({"runtimeConfig": {"ips": [null, "", "10.0.0.7"]}}), "", &["10.0.0.7"]),
        (json!({"runtimeConfig": {"ips": ["10.0.0.7", "10.0.0.7/8", "::ffff:10.0.0.7"]}}), "", &["10.0.0.7"]),
    ];
    for (keys, args, expected) in table {
        assert_eq!(requested(keys, args).ips, ips(expected), "{keys} {args}");
    }
}

#[test]
fn a_hardware_address_comes_from_the_strongest_source_that_names_one() {
    let table: &[(Value, &str, Option<[u8; 6]>)] = &[
        (json!({}), "", None),
        (json!({}), "MAC=c2:11:22:33:44:55", Some([0xc2, 0x11, 0x22, 0x33, 0x44, 0x55])),
        (json!({}), "MAC=", None),
        (json!({"args": {"cni": {"mac": "C2-11-22-33-44-66"}}}), "MAC=x", Some([0xc2, 0x11, 0x22, 0x33, 0x44, 0x66])),
        (json!({"args": {"cni": {"mac": ""}}}), "MAC=02:00:00:00:00:01", Some([2, 0, 0, 0, 0, 1])),
        (
            json!({"args": {"cni": {"mac": "x"}}, "runtimeConfig": {"MAC": "02:00:00:00:00:02"}}),
            "MAC=02:00:00:00:00:01",
            Some([2, 0, 0, 0, 0, 2]),
        ),
        (json!({"runtimeConfig": {"mac": null}}), "MAC=02:00:00:00:00:01", Some([2, 0, 0, 0, 0, 1])),
    ];
    for (keys, args, expected) in table {
        assert_eq!(requested(keys, args).mac, *expected, "{keys} {args}");
    }
}

#[test]
fn name_resolution_is_read_in_containerds_spelling_and_in_the_conventions() {
    let list = |items: &[&str]| items.iter().map(|&item| item.to_owned()).collect::<Vec<_>>();
    let expected = Dns {
        nameservers: list(&["10.96.0.10"]),
        domain: String::new(),
        search: list(&["svc.cluster.local", "cluster.local"]),
        options: list(&["ndots:5"]),
    };
    for dns in [
        json!({"Servers": ["10.96.0.10"], "Searches": ["svc.cluster.local", "cluster.local"], "Options": ["ndots:5"]}),
        json!({"servers": ["10.96.0.10"], "searches": ["svc.cluster.local", "cluster.local"], "options": ["ndots:5"]}),
        json!({"nameservers": ["10.96.0.10"], "search": ["svc.cluster.local", "cluster.local"], "options": ["ndots:5"],
            "domain": ""}),
        json!({"nameservers": [null, "10.96.0.10"], "servers": null, "search": ["", "svc.cluster.local", "cluster.local"],
            "options": "ndots:5"}),
    ] {
        assert_eq!(requested(&json!({"runtimeConfig": {"dns": dns}}), "").dns, expected, "{dns}");
    }
    let domain = Dns { domain: "example.org".into(), ..Dns::default() };
    assert_eq!(requested(&json!({"runtimeConfig": {"DNS": {"Domain": "example.org"}}}), "").dns, domain);
    for nothing in [json!(null), json!({}), json!(""), json!({"Servers": null, "Searches": [], "Options": null})] {
        assert!(requested(&json!({"runtimeConfig": {"dns": nothing}}), "").dns.is_empty(), "{nothing}");
    }
}

#[test]
fn bandwidth_is_limited_where_a_rate_is_above_zero() {
    for (bandwidth, limited) in [
        (json!(null), false),
        (json!({}), false),
        (json!({"IngressRate": 1_000_000, "IngressBurst": 4_294_967_295_u64, "EgressRate": 0, "EgressBurst": 0}), true),
        (json!({"ingressRate": 0, "egressRate": 1, "egressBurst": 34_359_738_359_u64}), true),
        (json!({"ingressRate": u64::MAX, "egressRate": 0}), true),
        (json!({"ingressRate": 1e9}), true),
        (json!({"ingressRate": 0, "egressRate": -1}), false),
        (json!({"ingressRate": null, "egressRate": ""}), false),
        (json!({"ingressBurst": 5}), false),
    ] {
        let keys = json!({"runtimeConfig": {"Bandwidth": bandwidth}});
        assert_eq!(requested(&keys, "").bandwidth_limited, limited, "{bandwidth}");
    }
}

#[test]
fn ranges_are_read_flat_as_from_containerd_and_nested_as_from_cri_o() {
    let v4 = range("10.1.0.0/24", Some("10.1.0.5"), Some("10.1.0.9"), Some("10.1.0.1"));
    let more_v4 = range("10.2.0.0/24", None, None, None);
    let v6 = range("fd00::/64", None, None, None);
    let lower =
        json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.5", "rangeEnd": "10.1.0.9", "gateway": "10.1.0.1"});
    let upper =
        json!({"Subnet": "10.1.0.0/24", "RangeStart": "10.1.0.5", "RangeEnd": "10.1.0.9", "Gateway": "10.1.0.1"});
    let upper_v6 = json!({"Subnet": "fd00::/64", "RangeStart": "", "RangeEnd": "", "Gateway": ""});
    let upper_more = json!({"Subnet": "10.2.0.0/24", "RangeStart": "", "RangeEnd": "", "Gateway": null});
    let table: Vec<(Value, Vec<Vec<IpRange>>)> = vec![
        (json!(null), vec![]),
        (json!([]), vec![]),
        (json!([null]), vec![]),
        (json!([[], null]), vec![]),
        (json!([upper]), vec![vec![v4.clone()]]),
        (json!([upper_v6, upper, upper_more]), vec![vec![v6.clone()], vec![v4.clone(), more_v4.clone()]]),
        (json!([upper, upper_v6, upper_more]), vec![vec![v4.clone(), more_v4.clone()], vec![v6.clone()]]),
        (json!([[lower]]), vec![vec![v4.clone()]]),
        (json!([[lower, upper_more], [null, upper_v6], []]), vec![vec![v4.clone(), more_v4], vec![v6]]),
        (json!([[lower], [lower]]), vec![vec![v4.clone()], vec![v4]]),
    ];
    for (ranges, expected) in table {
        for key in ["ipRanges", "IPRanges"] {
            assert_eq!(requested(&json!({"runtimeConfig": {key: ranges}}), "").ip_ranges, expected, "{ranges}");
        }
    }
}

#[test]
fn a_malformed_wish_is_named_with_its_whole_key_and_value() {
    let table = [
        (json!({"ips": ["10.0.0.5", "x"]}), "invalid runtimeConfig.ips[1]: \"x\""),
        (json!({"ips": "10.0.0.5,10.0.0.6"}), "invalid runtimeConfig.ips: \"10.0.0.5,10.0.0.6\""),
        (json!({"ips": ["10.0.0.5/33"]}), "invalid runtimeConfig.ips[0]: \"10.0.0.5/33\""),
        (json!({"IPs": [5]}), "invalid runtimeConfig.ips[0]: 5"),
        (json!({"ips": {}}), "invalid runtimeConfig.ips: {}"),
        (json!({"mac": 5}), "invalid runtimeConfig.mac: 5"),
        (json!({"mac": "02:00:00:00:00"}), "invalid runtimeConfig.mac: \"02:00:00:00:00\""),
        (json!({"mac": "02:00:00:00:00:01:02"}), "invalid runtimeConfig.mac: \"02:00:00:00:00:01:02\""),
        (json!({"mac": "02:00-00:00:00:01"}), "invalid runtimeConfig.mac: \"02:00-00:00:00:01\""),
        (json!({"mac": "2:0:0:0:0:1"}), "invalid runtimeConfig.mac: \"2:0:0:0:0:1\""),
        (json!({"mac": "+2:00:00:00:00:01"}), "invalid runtimeConfig.mac: \"+2:00:00:00:00:01\""),
        (json!({"mac": "00:00:00:00:00:00"}), "invalid runtimeConfig.mac: \"00:00:00:00:00:00\""),
        (json!({"mac": "01:00:5e:00:00:01"}), "invalid runtimeConfig.mac: \"01:00:5e:00:00:01\""),
        (json!({"mac": "ff-ff-ff-ff-ff-ff"}), "invalid runtimeConfig.mac: \"ff-ff-ff-ff-ff-ff\""),
        (json!({"dns": []}), "invalid runtimeConfig.dns: []"),
        (json!({"dns": {"Servers": [1]}}), "invalid runtimeConfig.dns.servers[0]: 1"),
        (json!({"dns": {"domain": 1}}), "invalid runtimeConfig.dns.domain: 1"),
        (json!({"bandwidth": 1}), "invalid runtimeConfig.bandwidth: 1"),
        (json!({"bandwidth": {"IngressRate": "1M"}}), "invalid runtimeConfig.bandwidth.ingressRate: \"1M\""),
        (json!({"bandwidth": {"egressBurst": []}}), "invalid runtimeConfig.bandwidth.egressBurst: []"),
        (json!({"ipRanges": 5}), "invalid runtimeConfig.ipRanges: 5"),
        (json!({"ipRanges": [{}]}), "runtimeConfig.ipRanges[0].subnet is missing"),
        (json!({"ipRanges": [[{"subnet": "10.0.0.0"}]]}), "invalid runtimeConfig.ipRanges[0][0].subnet: \"10.0.0.0\""),
        (json!({"ipRanges": [[], 5]}), "invalid runtimeConfig.ipRanges[1]: 5"),
        (
            json!({"ipRanges": [{"Subnet": "10.0.0.0/24", "Gateway": "x"}]}),
            "invalid runtimeConfig.ipRanges[0].gateway: \"x\"",
        ),
    ];
    for (runtime_config, msg) in table {
        let error = request(&json!({"runtimeConfig": runtime_config}), "").requested().unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (Code::InvalidConfig, msg));
    }
    for (args, msg) in [
        (json!(1), "invalid args: 1"),
        (json!({"cni": []}), "invalid args.cni: []"),
        (json!({"cni": {"ips": ["x"]}}), "invalid args.cni.ips[0]: \"x\""),
        (json!({"cni": {"mac": "x"}}), "invalid args.cni.mac: \"x\""),
    ] {
        let error = request(&json!({"args": args}), "").requested().unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (Code::InvalidConfig, msg));
    }
    for (args, msg) in [
        ("IP=10.0.0.5,x", "invalid IP in CNI_ARGS: \"x\""),
        ("MAC=00:00:00:00:00:00", "invalid MAC in CNI_ARGS: \"00:00:00:00:00:00\""),
    ] {
        let error = request(&json!({}), args).requested().unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (Code::InvalidEnvironment, msg));
    }
}

/// The keys of what a runtime may ask for.
const KEYS: [&str; 20] = [
    "ips",
    "IPs",
    "mac",
    "dns",
    "bandwidth",
    "ipRanges",
    "IPRanges",
    "cni",
    "servers",
    "Searches",
    "options",
    "domain",
    "ingressRate",
    "EgressRate",
    "ingressBurst",
    "subnet",
    "RangeStart",
    "rangeEnd",
    "Gateway",
    "nameservers",
];

proptest! {
    #[test]
    fn any_wish_is_read_or_refused_and_never_keeps_del_from_its_work(
        wishes in proptest::collection::vec((proptest::sample::select(&KEYS[..]), any_json(&KEYS)), 0..3),
        args in any_json(&KEYS),
        under_cni: bool,
        environment in "(IP=|MAC=|;|,|=|[0-9a-f:./]){0,12}",
    ) {
        let runtime_config: Value = wishes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let args = if under_cni { json!({"cni": args}) } else { args };
        let config = json!({"name": "n", "cniVersion": "1.1.0", "runtimeConfig": runtime_config, "args": args});
        let config = config.to_string();
        let mut del = variables("DEL");
        del.push(("CNI_ARGS".to_owned(), environment));
        let plugin = Answering::default();
        let outcome = call(&plugin, &del, config.clone());
        prop_assert_eq!((outcome.status, outcome.stdout.as_str()), (0, ""), "{}", config);

        let request = plugin.requests.into_inner().pop().unwrap();
        if let Err(error) = request.requested() {
            prop_assert!(matches!(error.code, Code::InvalidConfig | Code::InvalidEnvironment), "{}", error);
        }
    }
}
