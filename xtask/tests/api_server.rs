//! A real API server for tests: it comes up, holds nodes, can be taken away, and leaves nothing. Needs root.

use serde_json::json;
use xtask::lab::{
    Families, Lab, Programs,
    kubernetes::{ApiServer, Kubectl},
};

fn lab(name: &str) -> Lab {
    Lab::with_families(&format!("mniapi-{name}"), 2, Programs::beside_us().unwrap(), Families::Dual).unwrap()
}

fn create_node(kubectl: &Kubectl) {
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": "node9" },
        "spec": { "podCIDR": "10.244.9.0/24", "podCIDRs": ["10.244.9.0/24", "fd44:0:0:9::/64"] },
        "status": { "addresses": [{ "type": "InternalIP", "address": "192.168.77.9" }] },
    });
    kubectl.create_with_status("/api/v1/nodes", &node).unwrap();
}

#[test]
fn an_api_server_comes_up_takes_a_node_survives_its_death_and_goes() {
    let lab = lab("one");
    let mut server = ApiServer::on(&lab.nodes[0]).unwrap();
    let kubectl = server.kubectl();
    create_node(&kubectl);
    let first = server.id().unwrap();

    server.kill().unwrap();
    assert!(kubectl.run(&["get", "nodes"]).is_err(), "an API server that was killed answers");
    server.start_again().unwrap();
    assert_ne!(server.id().unwrap(), first);
    let node = kubectl.get(&["node", "node9"]).unwrap();
    assert_eq!(node["spec"]["podCIDRs"], json!(["10.244.9.0/24", "fd44:0:0:9::/64"]));

    let pid = server.id().unwrap();
    drop(server);
    // Whoever started it may not have waited for it yet.
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}

#[test]
fn a_service_account_may_do_what_rbac_says_from_another_node() {
    let lab = lab("rbac");
    let server = ApiServer::on(&lab.nodes[0]).unwrap();
    let kubectl = server.kubectl();
    create_node(&kubectl);
    let kubeconfig = server.service_account("kube-system", "looker").unwrap();
    let looker = kubectl.with_kubeconfig(&kubeconfig).inside(&lab.nodes[1]);
    let refused = looker.run(&["get", "nodes"]).unwrap_err().to_string();
    assert!(refused.contains("Forbidden") && refused.contains("system:serviceaccount:kube-system:looker"), "{refused}");

    kubectl.run(&["create", "clusterrole", "looker", "--verb=get,list,watch", "--resource=nodes"]).unwrap();
    let binding = ["create", "clusterrolebinding", "looker", "--clusterrole=looker"];
    kubectl.run(&[&binding[..], &["--serviceaccount=kube-system:looker"]].concat()).unwrap();
    looker.get(&["node", "node9"]).unwrap();
    let refused = looker.run(&["delete", "node", "node9"]).unwrap_err().to_string();
    assert!(refused.contains("Forbidden"), "{refused}");
}

#[test]
fn what_a_killed_run_left_is_gone_with_its_lab() {
    let lab = lab("left");
    let mut server = ApiServer::on(&lab.nodes[0]).unwrap();
    let pid = server.id().unwrap();
    // As if this process had ended: nobody drops it.
    server.keep();
    drop(server);
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    drop(lab);
    // Whoever started it may not have waited for it yet.
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}
