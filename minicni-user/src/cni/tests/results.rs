//! Results in the shape of every version.

use serde_json::{Value, json};

use super::super::{AddResult, Code, Dns, Ip, Route, Version};
use super::{data, single_address};

const NO_ADDRESS: &str = "cannot convert: no valid IP addresses";

fn golden(name: &str, version: Version) -> Value {
    let text = std::fs::read_to_string(data(&format!("results/{name}-{}.json", version.as_str()))).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_result_has_exactly_the_shape_of_the_requested_version() {
    for version in Version::SUPPORTED {
        assert_eq!(single_address().to_json(version).unwrap(), golden("single", version));
    }
}

#[test]
fn r_add_5_a_chained_result_keeps_what_was_there_and_points_at_its_own_interfaces() {
    for version in Version::SUPPORTED {
        let previous = AddResult::from_prev_result(&golden("prev", version)).unwrap();
        assert_eq!(previous.clone().merge(single_address()).to_json(version).unwrap(), golden("merged", version));
        assert_eq!(previous.clone().merge(AddResult::default()), previous);
    }
}

/// A pod with an address of each family.
fn dual_stack() -> AddResult {
    let mut result = single_address();
    let v6 = "fe80::1".parse().unwrap();
    result.ips.push(Ip { address: "fd44::2/128".parse().unwrap(), gateway: Some(v6), ..result.ips[0].clone() });
    for route in [
        json!({"dst": "10.0.0.0/8", "gw": "169.254.1.1", "mtu": 1400, "advmss": 1360, "priority": 100, "table": 0,
            "scope": 0}),
        json!({"dst": "::/0", "gw": "fe80::1"}),
        json!({"dst": "fd00::/8"}),
    ] {
        result.routes.push(Route::read(&route, "routes").unwrap());
    }
    let (nameservers, search) = (vec!["10.96.0.10".to_owned()], vec!["svc.cluster.local".to_owned()]);
    result.dns = Dns { nameservers, search, ..Dns::default() };
    result
}

#[test]
fn a_dual_stack_result_has_exactly_the_shape_of_the_requested_version() {
    for version in Version::SUPPORTED {
        assert_eq!(dual_stack().to_json(version).unwrap(), golden("dual", version));
    }
}

#[test]
fn the_addresses_keep_their_order_where_the_version_has_one() {
    for version in Version::SUPPORTED {
        let mut result = dual_stack();
        result.ips.reverse();
        let mut expected = golden("dual", version);
        if let Some(ips) = expected.get_mut("ips") {
            ips.as_array_mut().unwrap().reverse();
        }
        assert_eq!(result.to_json(version).unwrap(), expected);
    }
}

#[test]
fn before_0_3_0_the_first_address_of_each_family_is_told_and_no_route_of_a_family_without_one() {
    let mut result = dual_stack();
    let second = |ip: &Ip, address: &str| Ip { address: address.parse().unwrap(), gateway: None, ..ip.clone() };
    result.ips.extend([second(&result.ips[0], "10.9.9.9/24"), second(&result.ips[0], "fd99::9/64")]);
    for version in [Version::V0_1_0, Version::V0_2_0] {
        assert_eq!(result.to_json(version).unwrap(), golden("dual", version));
        let v6_alone = AddResult { ips: vec![dual_stack().ips.remove(1)], ..dual_stack() };
        let mut expected = golden("dual", version);
        expected.as_object_mut().unwrap().remove("ip4");
        assert_eq!(v6_alone.to_json(version).unwrap(), expected);
    }
}

#[test]
fn a_result_without_addresses_is_still_a_result_since_0_3_0() {
    for version in Version::SUPPORTED {
        let told = AddResult::default().to_json(version);
        let version = version.as_str();
        match version {
            "0.1.0" | "0.2.0" => {
                let error = told.unwrap_err();
                assert_eq!((error.code, error.msg), (Code::IncompatibleVersion, NO_ADDRESS.to_owned()));
            }
            "1.0.0" | "1.1.0" => assert_eq!(told.unwrap(), json!({"cniVersion": version})),
            _ => assert_eq!(told.unwrap(), json!({"cniVersion": version, "dns": {}})),
        }
    }
}

#[test]
fn what_only_1_x_tells_of_interfaces_is_left_out_before() {
    for version in Version::SUPPORTED {
        let previous = AddResult::from_prev_result(&golden("prev", Version::V1_1_0)).unwrap();
        let interface = &previous.to_json(version).unwrap()["interfaces"][0];
        for key in ["mtu", "socketPath", "pciID"] {
            assert_eq!(interface.get(key).is_some(), version >= Version::V1_0_0, "{} {key}", version.as_str());
        }
    }
}

#[test]
fn r_add_6_our_dns_replaces_the_previous_one_only_if_any_field_is_set() {
    let dns = |domain: &str| Dns { domain: domain.into(), ..Dns::default() };
    let with = |domain| AddResult { dns: dns(domain), ..AddResult::default() };
    assert_eq!(with("theirs").merge(with("ours")).dns, dns("ours"));
    assert_eq!(with("theirs").merge(with("")).dns, dns("theirs"));
}

#[test]
fn an_index_that_names_no_interface_is_never_passed_on() {
    for index in [json!(1), json!(-1), json!(null), json!(1_u64 << 40)] {
        let previous = json!({"interfaces": [{"name": "a"}], "ips": [{"address": "10.0.0.1/24", "interface": index}]});
        assert_eq!(AddResult::from_prev_result(&previous).unwrap().ips[0].interface, None, "{index}");
    }
    let mut result = single_address();
    result.ips[0].interface = Some(2);
    assert_eq!(result.to_json(Version::V1_1_0).unwrap()["ips"][0].get("interface"), None);
}

#[test]
fn a_previous_result_may_leave_out_or_null_whatever_is_optional() {
    for previous in [
        json!({}),
        json!({"cniVersion": "1.1.0", "interfaces": null, "ips": null, "routes": null, "dns": null}),
        json!({"dns": {"nameservers": null, "domain": ""}}),
    ] {
        assert_eq!(AddResult::from_prev_result(&previous).unwrap(), AddResult::default(), "{previous}");
    }
    let previous = json!({"interfaces": [{"name": "a", "mac": "", "sandbox": ""}],
        "ips": [{"address": "10.1.2.3/24", "gateway": ""}], "routes": [{"dst": "fd00::/8", "gw": null}]});
    let result = AddResult::from_prev_result(&previous).unwrap();
    assert_eq!(result.interfaces[0].sandbox, None);
    assert_eq!(result.ips[0].address.to_string(), "10.1.2.3/24", "host bits stay");
    assert_eq!((result.ips[0].gateway, result.routes[0].gw), (None, None));
}

#[test]
fn a_previous_result_of_0_1_0_and_0_2_0_becomes_addresses_and_routes() {
    let family = json!({"ip": "10.1.2.3/24", "gateway": null, "routes": null});
    let result = AddResult::from_prev_result(&json!({"cniVersion": "0.2.0", "ip4": family, "ip6": null})).unwrap();
    let told: Vec<_> = result.ips.iter().map(|ip| (ip.address.to_string(), ip.gateway, ip.interface)).collect();
    assert_eq!((told, result.routes), (vec![("10.1.2.3/24".to_owned(), None, None)], vec![]));

    let family = json!({"routes": [{"dst": "fd00::/8", "gw": "fd01::1"}]});
    let result = AddResult::from_prev_result(&json!({"ip6": family, "dns": {}})).unwrap();
    assert_eq!((result.ips.len(), result.interfaces.len()), (0, 0));
    assert_eq!(result.routes, [Route::read(&family["routes"][0], "").unwrap()]);
}

#[test]
fn a_configured_route_keeps_its_extras() {
    let table = [
        (json!({"dst": "0.0.0.0/0"}), None, json!({})),
        (json!({"dst": "::/0", "gw": "", "mtu": null}), None, json!({})),
        (json!({"dst": "10.0.0.0/8", "gw": "10.0.0.1", "table": 0}), Some("10.0.0.1"), json!({"table": 0})),
        (json!({"dst": "fd00::/8", "gw": null, "other": "x", "scope": 253}), None, json!({"other": "x", "scope": 253})),
    ];
    for (config, gw, other) in table {
        let route = Route::read(&config, "routes[0]").unwrap();
        assert_eq!(json!(route.dst.to_string()), config["dst"]);
        assert_eq!(route.gw, gw.map(|gw| gw.parse().unwrap()));
        assert_eq!(json!(route.other), other);
    }
}

#[test]
fn a_malformed_configured_route_is_named_to_the_field() {
    for (config, msg) in [
        (json!("0.0.0.0/0"), "invalid routes[1]: \"0.0.0.0/0\""),
        (json!({}), "routes[1].dst is missing"),
        (json!({"dst": ""}), "routes[1].dst is missing"),
        (json!({"dst": "default"}), "invalid routes[1].dst: \"default\""),
        (json!({"dst": "10.0.0.1/8"}), "invalid routes[1].dst: \"10.0.0.1/8\""),
        (json!({"dst": "::/0", "gw": "fe80::1%eth0"}), "invalid routes[1].gw: \"fe80::1%eth0\""),
        (json!({"dst": "::/0", "mtu": "1400"}), "invalid routes[1].mtu: \"1400\""),
        (json!({"dst": "::/0", "advmss": -1}), "invalid routes[1].advmss: -1"),
        (json!({"dst": "::/0", "priority": 1_u64 << 32}), "invalid routes[1].priority: 4294967296"),
        (json!({"dst": "::/0", "table": "main"}), "invalid routes[1].table: \"main\""),
        (json!({"dst": "::/0", "scope": 0.5}), "invalid routes[1].scope: 0.5"),
    ] {
        let error = Route::read(&config, "routes[1]").unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (Code::InvalidConfig, msg));
    }
}

#[test]
fn a_malformed_previous_result_is_named_to_the_field() {
    for (previous, msg) in [
        (json!([]), "invalid prevResult: []"),
        (json!({"interfaces": {}}), "invalid prevResult.interfaces: {}"),
        (json!({"interfaces": [null]}), "invalid prevResult.interfaces[0]: null"),
        (json!({"interfaces": [{"mac": "x"}]}), "prevResult.interfaces[0].name is missing"),
        (json!({"interfaces": [{"name": "a", "mtu": -1}]}), "invalid prevResult.interfaces[0].mtu: -1"),
        (json!({"ips": [{}]}), "prevResult.ips[0].address is missing"),
        (json!({"ips": [{"address": "10.0.0.1"}]}), "invalid prevResult.ips[0].address: \"10.0.0.1\""),
        (json!({"ips": [{"address": "10.0.0.1/33"}]}), "invalid prevResult.ips[0].address: \"10.0.0.1/33\""),
        (json!({"ips": [{"address": "10.0.0.1/8", "interface": "0"}]}), "invalid prevResult.ips[0].interface: \"0\""),
        (json!({"routes": [{"dst": "::/0", "gw": "x"}]}), "invalid prevResult.routes[0].gw: \"x\""),
        (json!({"dns": []}), "invalid prevResult.dns: []"),
        (json!({"ip4": "10.0.0.1/8"}), "invalid prevResult.ip4: \"10.0.0.1/8\""),
        (json!({"ip6": {"ip": "fd00::1"}}), "invalid prevResult.ip6.ip: \"fd00::1\""),
        (json!({"ip4": {"routes": [{}]}}), "prevResult.ip4.routes[0].dst is missing"),
    ] {
        let error = AddResult::from_prev_result(&previous).unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (Code::InvalidConfig, msg));
    }
}
