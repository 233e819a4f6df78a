use serde_json::{Value, json};

use super::*;

fn object() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": "a",
            "resourceVersion": "7",
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "managedFields": [{ "manager": "kubelet", "fieldsV1": { "f:status": {} } }],
        },
        "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"] },
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": "10.0.0.2" },
                { "type": "Hostname", "address": "a" },
            ],
            "conditions": [
                { "type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-02T03:04:05Z" },
                { "type": "NetworkUnavailable", "status": "False", "reason": "MinicniIsUp" },
            ],
            "images": [{ "names": ["pause"], "sizeBytes": 1 }],
        },
    })
}

fn known(object: Value, me: &str) -> Known {
    Known::new(serde_json::from_value(object).unwrap(), me)
}

/// The object with one field made another.
fn with(pointer: &str, value: Value) -> Value {
    let mut object = object();
    *object.pointer_mut(pointer).unwrap() = value;
    object
}

#[test]
fn a_node_is_known_by_its_pod_cidrs_and_internal_ips() {
    let known = known(object(), "me");
    let node = known.node.unwrap();
    assert_eq!(node.name, "a");
    assert_eq!(node.pod_cidrs, ["10.244.1.0/24".parse().unwrap()]);
    assert_eq!(node.internal_ips, ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(known.created, 1_767_323_045);
}

#[test]
fn a_heartbeat_changes_nothing_that_is_known() {
    for (pointer, value) in [
        ("/metadata/resourceVersion", json!("8")),
        ("/metadata/managedFields", json!([])),
        ("/status/conditions/0/lastHeartbeatTime", json!("2026-01-02T03:09:05Z")),
        ("/status/conditions/0/status", json!("Unknown")),
        ("/status/images", json!([])),
        ("/status/addresses/1/address", json!("b")),
    ] {
        for me in ["me", "a"] {
            assert_eq!(known(with(pointer, value.clone()), me), known(object(), me), "{pointer}");
        }
    }
}

#[test]
fn another_address_or_pod_cidr_is_a_change() {
    for (pointer, value) in [
        ("/status/addresses/0/address", json!("10.0.0.3")),
        ("/status/addresses/0/address", json!("banana")),
        ("/spec", json!({ "podCIDR": "10.244.2.0/24" })),
        ("/spec", json!({})),
    ] {
        assert_ne!(known(with(pointer, value.clone()), "me"), known(object(), "me"), "{value}");
    }
}

#[test]
fn the_condition_is_kept_of_the_own_object_alone() {
    assert_eq!(known(object(), "me").condition, None);
    let condition = known(object(), "a").condition.unwrap();
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "MinicniIsUp"));
    let other = with("/status/conditions/1/status", json!("True"));
    assert_ne!(known(other.clone(), "a"), known(object(), "a"));
    assert_eq!(known(other, "me"), known(object(), "me"));
}

#[test]
fn an_object_without_spec_and_status_is_wrong_but_known() {
    let bare = json!({ "metadata": { "name": "a", "resourceVersion": "7" } });
    let error = known(bare, "me").node.unwrap_err();
    assert!(error.to_string().contains("InternalIP"), "{error}");
}

#[test]
fn a_page_says_whether_there_is_more() {
    let page = |metadata: Value| serde_json::from_value::<Page>(json!({ "metadata": metadata, "items": [object()] }));
    assert_eq!(page(json!({ "resourceVersion": "7" })).unwrap().metadata.more, None);
    let page = page(json!({ "resourceVersion": "7", "continue": "x", "remainingItemCount": 3 })).unwrap();
    assert_eq!(page.metadata.more.as_deref(), Some("x"));
    assert_eq!(page.items.len(), 1);
}
