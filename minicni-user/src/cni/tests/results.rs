//! Results in the shape of every version.

use serde_json::{Value, json};

use super::super::{AddResult, Code, Dns, Version};
use super::{data, single_address};

fn golden(name: &str, version: Version) -> Value {
    let text = std::fs::read_to_string(data(&format!("results/{name}-{}.json", version.as_str()))).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_result_has_exactly_the_shape_of_the_requested_version() {
    for version in Version::SUPPORTED {
        assert_eq!(single_address().to_json(version), golden("single", version));
    }
}

#[test]
fn r_add_5_a_chained_result_keeps_what_was_there_and_points_at_its_own_interfaces() {
    for version in Version::SUPPORTED {
        let previous = AddResult::from_prev_result(&golden("prev", version)).unwrap();
        assert_eq!(previous.clone().merge(single_address()).to_json(version), golden("merged", version));
        assert_eq!(previous.clone().merge(AddResult::default()), previous);
    }
}

#[test]
fn an_empty_result_is_still_a_result() {
    assert_eq!(AddResult::default().to_json(Version::V1_1_0), json!({"cniVersion": "1.1.0"}));
    assert_eq!(AddResult::default().to_json(Version::V0_3_1), json!({"cniVersion": "0.3.1", "dns": {}}));
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
    assert_eq!(result.to_json(Version::V1_1_0)["ips"][0].get("interface"), None);
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
    ] {
        let error = AddResult::from_prev_result(&previous).unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (Code::InvalidConfig, msg));
    }
}
