//! The daemon follows the nodes of a real API server. Needs root.

#![expect(clippy::zombie_processes, reason = "the lab ends a daemon by its pid, whoever started it")]

mod encodings;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use xtask::lab::{
    Lab, Node, Programs,
    kubernetes::{ApiServer, Kubectl},
};

/// How soon a change of a node is in the kernel; the machine may be busy.
const SOON: Duration = Duration::from_secs(5);
/// How soon an Event is written, and how soon the nodes are followed again.
const LATER: Duration = Duration::from_mins(1);

/// Two nodes with the daemon to be tested on the second, which reaches the API server on the first.
struct Cluster {
    server: ApiServer,
    kubectl: Kubectl,
    /// Of the daemon's service account.
    kubeconfig: PathBuf,
    lab: Lab,
}

impl Cluster {
    fn new(name: &str) -> Self {
        let lab = Lab::new(&format!("mnik8s-{name}"), 2, Programs::beside_us().unwrap()).unwrap();
        let server = ApiServer::on(&lab.nodes[0]).unwrap();
        let kubectl = server.kubectl();
        let kubeconfig = server.service_account("kube-system", "minicni").unwrap();
        for number in [1, 2] {
            create(&kubectl, &node(number));
        }
        Self { server, kubectl, kubeconfig, lab }
    }

    /// With exactly the rights that are documented.
    fn with_rights(name: &str) -> Self {
        let cluster = Self::new(name);
        cluster.kubectl.apply(documented_role()).unwrap();
        cluster
    }

    /// As [`Cluster::with_rights`], with the daemon running.
    fn running(name: &str) -> Self {
        let cluster = Self::with_rights(name);
        cluster.here().start_daemon_of_cluster(&cluster.kubeconfig).unwrap();
        cluster
    }

    fn here(&self) -> &Node {
        &self.lab.nodes[1]
    }

    fn routes(&self) -> Vec<String> {
        routes(self.here())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.here().log()).unwrap()
    }

    fn condition(&self, node: &str) -> Value {
        let node = self.kubectl.get(&["node", node]).unwrap();
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|condition| condition["type"] == "NetworkUnavailable").unwrap_or_default()
    }

    /// The messages of the Events of a reason about this node.
    fn events(&self, reason: &str) -> Vec<String> {
        let selector = format!("reason={reason},involvedObject.kind=Node,involvedObject.name=node2");
        let events = self.kubectl.get(&["events", "-n", "default", "--field-selector", &selector]).unwrap();
        let items = events["items"].as_array().unwrap().iter();
        items.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
    }

    fn problems(&self) -> String {
        let mut command = self.here().minicnid("status");
        let output = self.here().netns.run(|| command.arg("--json").output().unwrap()).unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["problems"].to_string()
    }

    /// Changes the status of a node.
    fn set_status(&self, node: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.kubectl.get(&["node", node]).unwrap();
        change(&mut object["status"]);
        // Whoever else changes the object meanwhile must not make this fail.
        object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        let path = format!("/api/v1/nodes/{node}/status");
        self.kubectl.feed(&["replace", "--raw", &path, "-f", "-"], &object.to_string()).unwrap();
    }

    /// Keeps the daemon from the API server, or no longer.
    fn block(&self, blocked: bool) {
        let nft = |line: &str| self.here().run(Command::new("nft").arg(line));
        if blocked {
            let rule = "add table ip away; add chain ip away out { type filter hook output priority 0; }; \
                        add rule ip away out tcp dport 6443 reject with tcp reset";
            nft(rule).unwrap();
        } else {
            nft("delete table ip away").unwrap();
        }
    }
}

/// What `docs/operations.md` says the daemon asks for.
fn documented_role() -> &'static str {
    let (_, rest) = include_str!("../../../docs/operations.md").split_once("```yaml\n").unwrap();
    rest.split_once("```").unwrap().0
}

fn node(number: u8) -> Value {
    let cidr = format!("10.244.{number}.0/24");
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": format!("node{number}") },
        "spec": { "podCIDR": cidr, "podCIDRs": [cidr] },
        "status": { "addresses": [{ "type": "InternalIP", "address": format!("192.168.77.{number}") }] },
    })
}

fn create(kubectl: &Kubectl, node: &Value) {
    kubectl.create_with_status("/api/v1/nodes", node).unwrap();
}

/// The daemon's routes on a node, each `DESTINATION via GATEWAY`.
fn routes(node: &Node) -> Vec<String> {
    let shown = node.run(Command::new("ip").args(["-N", "route", "show", "proto", "109"])).unwrap();
    shown.lines().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")).collect()
}

const TO_NODE1: &str = "10.244.1.0/24 via 192.168.77.1";
const TO_NODE3: &str = "10.244.3.0/24 via 192.168.77.3";

#[track_caller]
fn eventually(limit: Duration, what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// How often the log tells of a changed route.
fn route_changes(log: &str) -> usize {
    log.lines()
        .filter(|line| ["route added", "route replaced", "route deleted"].iter().any(|w| line.contains(w)))
        .count()
}

#[test]
fn nodes_that_come_move_and_go_take_their_routes_along() {
    let cluster = Cluster::running("routes");
    eventually(SOON, "the route to node1", || cluster.routes() == [TO_NODE1]);
    assert!(cluster.log().contains("nodes=https://192.168.77.1:6443"), "{}", cluster.log());

    create(&cluster.kubectl, &node(3));
    eventually(SOON, "the route to node3", || cluster.routes() == [TO_NODE1, TO_NODE3]);
    cluster.set_status("node3", |status| status["addresses"][0]["address"] = json!("192.168.77.33"));
    let moved = "10.244.3.0/24 via 192.168.77.33";
    eventually(SOON, "the route to node3, which moved", || cluster.routes() == [TO_NODE1, moved]);
    cluster.kubectl.run(&["delete", "node", "node3"]).unwrap();
    eventually(SOON, "no route to node3", || cluster.routes() == [TO_NODE1]);
    assert_eq!(cluster.problems(), "[]");
    assert_eq!(route_changes(&cluster.log()), 4);
}

#[test]
fn the_condition_of_the_node_tells_whether_pods_can_be_started() {
    let cluster = Cluster::with_rights("condition");
    let mut bare = node(2);
    bare["spec"] = json!({});
    cluster.kubectl.run(&["delete", "node", "node2"]).unwrap();
    create(&cluster.kubectl, &bare);
    let kubeconfig = cluster.kubeconfig.to_str().unwrap();
    let _daemon = cluster.here().spawn_daemon(&["--kubeconfig", kubeconfig]).unwrap();
    let is = |status: &str, reason: &str| {
        let condition = cluster.condition("node2");
        condition["status"] == status && condition["reason"] == reason
    };
    eventually(LATER, "the missing pod CIDR is told", || is("True", "PodCidrMissing"));
    let patch = json!({ "spec": { "podCIDR": "10.244.2.0/24", "podCIDRs": ["10.244.2.0/24"] } }).to_string();
    cluster.kubectl.run(&["patch", "node", "node2", "-p", &patch]).unwrap();
    eventually(LATER, "pods can be started", || is("False", "MinicniIsUp"));
    cluster.here().pod("a").unwrap();
    assert_eq!(cluster.condition("node1"), Value::Null, "another node's condition is not ours to set");

    let since = cluster.condition("node2")["lastTransitionTime"].clone();
    cluster.set_status("node2", |status| {
        for condition in status["conditions"].as_array_mut().unwrap() {
            condition["reason"] = json!("SomebodyElse");
        }
    });
    eventually(LATER, "what somebody else said is put right", || is("False", "MinicniIsUp"));
    assert_eq!(cluster.condition("node2")["lastTransitionTime"], since, "the status did not change");
}

#[test]
fn heartbeats_cause_no_work() {
    let cluster = Cluster::running("heartbeats");
    eventually(LATER, "the condition is told", || cluster.condition("node2")["status"] == "False");
    thread::sleep(Duration::from_secs(2));
    let before = cluster.log();
    for second in 10..40 {
        for node in ["node1", "node2"] {
            cluster.set_status(node, |status| {
                let ready = json!({ "type": "Ready", "status": "True", "lastHeartbeatTime": format!("2026-01-02T03:04:{second}Z") });
                let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
                let others = conditions.into_iter().filter(|condition| condition["type"] != "Ready");
                status["conditions"] = others.chain([ready]).collect();
            });
        }
    }
    thread::sleep(Duration::from_secs(1));
    assert_eq!(cluster.log(), before);
    // It listens all the same.
    create(&cluster.kubectl, &node(3));
    eventually(SOON, "the route to node3", || cluster.routes() == [TO_NODE1, TO_NODE3]);
}

#[test]
fn an_api_server_that_is_killed_and_comes_back_changes_no_route_and_a_deletion_meanwhile_is_noticed() {
    let mut cluster = Cluster::running("away");
    create(&cluster.kubectl, &node(3));
    eventually(SOON, "the routes", || cluster.routes() == [TO_NODE1, TO_NODE3]);
    let changes = route_changes(&cluster.log());
    cluster.server.kill().unwrap();
    eventually(SOON, "the failure is told", || cluster.problems().contains("the nodes known so far stay"));
    assert_eq!(cluster.routes(), [TO_NODE1, TO_NODE3]);
    // The plugin needs no API server.
    cluster.here().pod("a").unwrap();
    cluster.server.start_again().unwrap();
    eventually(LATER, "all is well again", || cluster.problems() == "[]");
    assert_eq!(route_changes(&cluster.log()), changes);

    // The server is restarted and a node deleted while the daemon cannot see it.
    cluster.block(true);
    cluster.server.kill().unwrap();
    cluster.server.start_again().unwrap();
    eventually(LATER, "the failure is told", || cluster.problems().contains("the nodes known so far stay"));
    cluster.kubectl.run(&["delete", "node", "node3"]).unwrap();
    thread::sleep(Duration::from_secs(1));
    assert_eq!(cluster.routes(), [TO_NODE1, TO_NODE3]);
    cluster.block(false);
    eventually(LATER, "the route to node3 is gone", || cluster.routes() == [TO_NODE1]);
    assert_eq!(route_changes(&cluster.log()), changes + 1);
    // 410 Gone: a server that was restarted remembers nothing from before.
    assert!(cluster.log().contains("does not remember what came after this version"), "{}", cluster.log());
    assert_eq!(cluster.events("NodesUnreadable"), [""; 0], "the API server need not be told that it was away");
}

#[test]
fn a_node_that_is_registered_anew_keeps_its_routes_meanwhile() {
    let cluster = Cluster::running("anew");
    eventually(SOON, "the route to node1", || cluster.routes() == [TO_NODE1]);
    cluster.kubectl.run(&["delete", "node", "node2"]).unwrap();
    eventually(SOON, "its object is missed", || cluster.problems().contains("no Node has it"));
    let mut bare = node(2);
    bare["spec"] = json!({});
    create(&cluster.kubectl, &bare);
    create(&cluster.kubectl, &node(3));
    eventually(SOON, "its pod CIDR is missed", || cluster.problems().contains("spec.podCIDR is missing"));
    assert_eq!(cluster.routes(), [TO_NODE1]);
    let patch = json!({ "spec": { "podCIDR": "10.244.2.0/24", "podCIDRs": ["10.244.2.0/24"] } }).to_string();
    cluster.kubectl.run(&["patch", "node", "node2", "-p", &patch]).unwrap();
    eventually(SOON, "the route to node3", || cluster.routes() == [TO_NODE1, TO_NODE3]);
    eventually(SOON, "all is well", || cluster.problems() == "[]");
    assert_eq!(route_changes(&cluster.log()), 2);
}

#[test]
fn a_daemon_that_starts_while_the_api_server_is_away_keeps_routes_and_pods_working() {
    let cluster = Cluster::running("restart");
    eventually(SOON, "the route to node1", || cluster.routes() == [TO_NODE1]);
    cluster.here().stop_daemon().unwrap();
    let changes = route_changes(&cluster.log());
    cluster.block(true);
    let kubeconfig = cluster.kubeconfig.to_str().unwrap();
    let _daemon = cluster.here().spawn_daemon(&["--kubeconfig", kubeconfig]).unwrap();
    eventually(LATER, "the failure is told", || cluster.problems().contains("no nodes are known yet"));
    assert_eq!(cluster.routes(), [TO_NODE1]);
    cluster.here().pod("a").unwrap();
    cluster.block(false);
    eventually(LATER, "all is well", || cluster.problems() == "[]");
    assert_eq!((cluster.routes(), route_changes(&cluster.log())), (vec![TO_NODE1.to_owned()], changes));
}

#[test]
fn a_node_that_is_wrong_is_left_out_alone_and_told_in_one_event() {
    let cluster = Cluster::running("wrong");
    let mut ours = node(7);
    ours["spec"] = json!({ "podCIDR": "10.244.2.0/24", "podCIDRs": ["10.244.2.0/24"] });
    create(&cluster.kubectl, &ours);
    let mut server = node(8);
    server["spec"] = json!({ "podCIDR": "192.168.0.0/16", "podCIDRs": ["192.168.0.0/16"] });
    create(&cluster.kubectl, &server);
    let mut banana = node(9);
    banana["status"]["addresses"][0]["address"] = json!("banana");
    create(&cluster.kubectl, &banana);
    create(&cluster.kubectl, &node(3));
    eventually(SOON, "the route to node3", || cluster.routes() == [TO_NODE1, TO_NODE3]);

    let problems = cluster.problems();
    assert!(problems.contains("node node7: pod CIDR 10.244.2.0/24 overlaps 10.244.2.0/24 of node node2"), "{problems}");
    assert!(problems.contains("node node8: pod CIDR 192.168.0.0/16 covers"), "{problems}");
    assert!(problems.contains("InternalIP] \\\"banana\\\": is not an IP address"), "{problems}");
    eventually(LATER, "the Events", || {
        ["PodCidrConflict", "NodeMalformed"].iter().all(|r| !cluster.events(r).is_empty())
    });
    // Another node of that kind has to wait.
    let mut again = node(10);
    again["status"]["addresses"][0]["address"] = json!("apple");
    create(&cluster.kubectl, &again);
    thread::sleep(Duration::from_secs(20));
    let [event] = <[String; 1]>::try_from(cluster.events("NodeMalformed")).unwrap();
    assert!(event.starts_with("node node9: ") && event.contains("banana"), "{event}");
    let [event] = <[String; 1]>::try_from(cluster.events("PodCidrConflict")).unwrap();
    assert!(event.contains("(and 1 more of this kind"), "{event}");
    assert_eq!(cluster.condition("node2")["reason"], "MinicniIsUp");

    for name in ["node7", "node8", "node9", "node10"] {
        cluster.kubectl.run(&["delete", "node", name]).unwrap();
    }
    eventually(SOON, "all is well", || cluster.problems() == "[]");
}

#[test]
fn credentials_that_do_not_serve_are_told_with_what_to_do() {
    let cluster = Cluster::new("rights");
    let run = |kubeconfig: &Path| cluster.here().spawn_daemon(&["--kubeconfig", kubeconfig.to_str().unwrap()]).unwrap();
    let _daemon = run(&cluster.kubeconfig);
    eventually(LATER, "the missing role is told", || {
        let problems = cluster.problems();
        problems.contains("cannot list resource") && problems.contains("apply the ClusterRole")
    });
    cluster.kubectl.apply(documented_role()).unwrap();
    eventually(LATER, "the role is used", || cluster.problems() == "[]");
    cluster.here().stop_daemon().unwrap();

    let text = fs::read_to_string(&cluster.kubeconfig).unwrap();
    let token = cluster.kubectl.token("kube-system", "minicni").unwrap();
    let signature = token.rsplit('.').next().unwrap();
    let old = text.split(['"', ' ', '\n']).find(|word| word.len() > 200 && word.matches('.').count() == 2).unwrap();
    let stale = cluster.kubeconfig.with_file_name("stale.kubeconfig");
    fs::write(&stale, text.replace(old, &token.replace(signature, "c3RhbGU"))).unwrap();
    let _daemon = run(&stale);
    eventually(LATER, "the wrong token is told", || cluster.problems().contains("does not accept the credentials"));
    assert_eq!(cluster.routes(), [TO_NODE1], "what the kernel has stays");
    cluster.here().stop_daemon().unwrap();

    let mut daemon = cluster.here().minicnid("run");
    daemon.env_remove("KUBERNETES_SERVICE_HOST");
    let output = cluster.here().netns.run(|| daemon.output().unwrap()).unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && log.contains("--kubeconfig") && log.contains("--nodes"), "{log}");
}
