//! What the daemon tells over HTTP. Needs root.

#![expect(clippy::float_cmp, reason = "all that is compared for equality are whole numbers")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use xtask::lab::{
    Lab, Node, Pod, Programs,
    traffic::{Client, Protocol, Server},
};

const PORT: u16 = 7000;
const LOOPBACK: &str = "127.0.0.1:10109";
const SECOND: Duration = Duration::from_secs(1);

fn unstarted(name: &str) -> Lab {
    Lab::new(&format!("mnimetrics-{name}"), 1, Programs::beside_us().unwrap()).unwrap()
}

fn started(name: &str) -> Lab {
    let mut lab = unstarted(name);
    lab.start_daemons().unwrap();
    // The main loop says that it is ready right after node.json is written.
    eventually("the daemon is ready", || get(&lab.nodes[0], "/readyz").0 == 200);
    lab
}

#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < 10 * SECOND, "not within 10 s: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a request and reads the whole answer; nothing where nobody listens.
fn ask(stream: std::io::Result<TcpStream>, request: &str) -> String {
    let mut answer = Vec::new();
    if let Ok(mut stream) = stream {
        stream.set_read_timeout(Some(5 * SECOND)).unwrap();
        // Whoever refuses may close before he read all of it.
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_end(&mut answer);
    }
    String::from_utf8(answer).unwrap()
}

/// The status and the body of an answer of the daemon on a node; 0 where there is none.
fn request(node: &Node, request: &str) -> (u16, String) {
    let answer = node.netns.run(|| ask(TcpStream::connect(LOOPBACK), request)).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap()), body.to_owned())
}

fn get(node: &Node, path: &str) -> (u16, String) {
    request(node, &format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n"))
}

/// The samples of `/metrics`, by name and labels as they are written.
fn samples(node: &Node) -> BTreeMap<String, f64> {
    let (status, text) = get(node, "/metrics");
    assert_eq!(status, 200);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.into(), value.parse().unwrap()))
        .collect()
}

/// The metrics with their types, as `/metrics` declares them, by the names of their samples.
fn declared(node: &Node) -> BTreeSet<(String, String)> {
    let (_, text) = get(node, "/metrics");
    assert!(text.ends_with("# EOF\n"), "{text}");
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let suffix = |kind: &str| match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    };
    types.map(|(name, kind)| (format!("{name}{}", suffix(kind)), kind.to_owned())).collect()
}

/// The same, as the document has them: rows that begin with a metric and its type.
fn documented() -> BTreeSet<(String, String)> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = fs::read_to_string(document).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        Some((cells.next()?.strip_suffix('`')?.to_owned(), cells.next()?.to_owned()))
    });
    let rows = rows.filter(|(name, _)| !name.starts_with('/'));
    rows.collect()
}

/// A daemon that is not waited for.
struct Daemon(Child);

impl Daemon {
    fn start(node: &Node, nodes: &Path) -> Self {
        let mut command = node.minicnid("run");
        command
            .arg("--nodes")
            .arg(nodes)
            .args(["--node-name", &node.name])
            .env("XTABLES_LOCKFILE", node.xtables_lock());
        command.stderr(Stdio::null());
        Self(node.netns.run(|| command.spawn().unwrap()).unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn to(pod: &Pod) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(pod.address().unwrap()), PORT)
}

#[test]
fn every_metric_is_in_the_document_and_the_document_has_no_other() {
    let lab = started("document");
    let node = &lab.nodes[0];
    let _pod = node.pod("a").unwrap();
    // What is wrong is told from the first time that something is.
    fs::write(lab.nodes_file(), "").unwrap();
    eventually("there is a problem", || {
        samples(node).get("minicni_problems{reason=\"NodesUnreadable\"}") == Some(&1.0)
    });
    assert_eq!(declared(node), documented());
    assert!(samples(node)["minicni_node_source_errors_total"] >= 1.0);
}

#[test]
fn the_counters_follow_packets_calls_and_leases() {
    let lab = started("counters");
    let node = &lab.nodes[0];
    let calls = |command: &str, result: &str| {
        samples(node)[&format!("minicni_cni_duration_seconds_count{{command=\"{command}\",result=\"{result}\"}}")]
    };
    let addresses = |state: &str| {
        samples(node)[&format!("minicni_addresses{{network=\"pods\",family=\"ipv4\",state=\"{state}\"}}")]
    };
    assert_eq!(calls("ADD", "ok"), 0.0);
    assert_eq!(samples(node)["minicni_packets_total{verdict=\"fast\",reason=\"redirected\"}"], 0.0);

    let (a, b) = (node.pod("a").unwrap(), node.pod("b").unwrap());
    assert_eq!(calls("ADD", "ok"), 2.0);
    assert!(!a.call(node, "ADD").unwrap().ok, "it is attached already");
    let now = samples(node);
    assert_eq!(now["minicni_cni_duration_seconds_count{command=\"ADD\",result=\"error\"}"], 1.0);
    assert_eq!(now["minicni_cni_errors_total{command=\"ADD\",code=\"100\"}"], 1.0);
    let took = now["minicni_cni_duration_seconds_sum{command=\"ADD\",result=\"ok\"}"];
    assert!((0.0002..10.0).contains(&took), "two ADDs took {took} s");
    assert_eq!(now["minicni_cni_duration_seconds_bucket{le=\"+Inf\",command=\"ADD\",result=\"ok\"}"], 2.0);
    assert_eq!(now["minicni_endpoints{datapath=\"ebpf\"}"], 2.0);
    assert_eq!(now["minicni_pool_addresses{network=\"pods\",family=\"ipv4\"}"], 254.0);
    assert_eq!((addresses("leased"), addresses("cooling"), addresses("free")), (2.0, 0.0, 252.0));

    let _server = Server::start(&b.netns, PORT).unwrap();
    let mut client = Client::connect(&a.netns, Protocol::Udp, to(&b)).unwrap();
    client.measure(200).unwrap();
    let now = samples(node);
    assert!(now["minicni_packets_total{verdict=\"fast\",reason=\"redirected\"}"] > 100.0, "{now:#?}");
    assert!(now["minicni_flow_events_total{event=\"promoted\"}"] >= 1.0);
    assert!(now["minicni_flows{state=\"promoted\"}"] >= 1.0);

    let changes = now["minicni_rule_changes_total"];
    b.del(node).unwrap();
    assert_eq!(
        (calls("DEL", "ok"), addresses("leased"), addresses("cooling"), addresses("free")),
        (1.0, 1.0, 1.0, 252.0)
    );
    node.run(Command::new("ip").args(["rule", "add", "pref", "77", "from", "10.9.9.9", "lookup", "main"])).unwrap();
    eventually("the rule is heard of", || samples(node)["minicni_rule_changes_total"] > changes);
}

#[test]
fn routes_and_nodes_are_counted_and_every_change_of_a_route() {
    let mut lab = Lab::new("mnimetrics-routes", 2, Programs::beside_us().unwrap()).unwrap();
    lab.start_daemons().unwrap();
    let node = &lab.nodes[0];
    let now = samples(node);
    assert_eq!((now["minicni_nodes"], now["minicni_routes_desired"], now["minicni_routes"]), (2.0, 1.0, 1.0));
    assert_eq!(now["minicni_route_changes_total{operation=\"add\"}"], 1.0);
    assert_eq!(now["minicni_datapath_info{mode=\"ebpf\",tcp_fast_path=\"yes\"}"], 1.0);
    eventually("the uplink is attached", || {
        samples(node).iter().any(|(name, count)| {
            name.starts_with("minicni_uplinks") && !name.contains("none") && (*count - 1.0).abs() < f64::EPSILON
        })
    });
    let contact = now["minicni_node_source_last_contact_timestamp_seconds"];
    let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((0.0..60.0).contains(&(unix - contact)), "{contact}");
    node.run(Command::new("ip").args(["route", "del", "10.244.2.0/24"])).unwrap();
    eventually("the route is back", || samples(node)["minicni_route_changes_total{operation=\"add\"}"] >= 2.0);
}

#[test]
fn it_is_ready_once_node_json_is_written_and_alive_before() {
    let lab = unstarted("ready");
    let node = &lab.nodes[0];
    let good = fs::read_to_string(lab.nodes_file()).unwrap();
    fs::write(lab.nodes_file(), good.replace("node1", "another")).unwrap();
    let _daemon = Daemon::start(node, &lab.nodes_file());
    eventually("it lives", || get(node, "/healthz") == (200, "ok\n".to_owned()));
    eventually("the first pass is done", || {
        samples(node).get("minicni_problems{reason=\"NodeMissing\"}").is_some_and(|count| *count >= 1.0)
    });
    let (status, why) = get(node, "/readyz");
    assert!(status == 503 && why.contains("node.json"), "{status} {why}");
    assert_eq!(samples(node)["minicni_ready"], 0.0);

    fs::write(lab.nodes_file(), &good).unwrap();
    eventually("it is ready", || get(node, "/readyz") == (200, "ok\n".to_owned()));
    let now = samples(node);
    assert_eq!((now["minicni_ready"], now["minicni_problems{reason=\"NodeMissing\"}"]), (1.0, 0.0));
}

#[test]
fn who_dawdles_keeps_nobody_waiting_and_nonsense_is_answered_as_such() {
    let lab = started("slow");
    let node = &lab.nodes[0];
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut stream = node.netns.run(|| TcpStream::connect(LOOPBACK)).unwrap().unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").unwrap();
        slow.push(stream);
    }
    let start = Instant::now();
    assert_eq!(get(node, "/healthz").0, 200);
    assert_eq!(get(node, "/metrics").0, 200);
    assert!(start.elapsed() < 2 * SECOND, "it took {:?}", start.elapsed());
    // In the end all of them are given up.
    for mut stream in slow {
        stream.set_read_timeout(Some(15 * SECOND)).unwrap();
        match stream.read(&mut [0; 64]) {
            Ok(count) => assert_eq!(count, 0),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }

    assert_eq!(get(node, "/").0, 404);
    assert_eq!(request(node, "POST /metrics HTTP/1.1\r\nHost: node\r\nContent-Length: 0\r\n\r\n").0, 405);
    assert_eq!(request(node, "nonsense\r\n\r\n").0, 400);
    let long = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(100_000));
    assert_ne!(request(node, &long).0, 200);
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
    assert_ne!(request(node, &many).0, 200);
    assert_eq!(request(node, "HEAD /metrics HTTP/1.1\r\nHost: node\r\n\r\n"), (200, String::new()));
    assert_eq!(get(node, "/healthz").0, 200);
}

#[test]
fn no_pod_reaches_it_not_even_by_a_forged_route_to_the_hosts_loopback() {
    let lab = started("pods");
    let node = &lab.nodes[0];
    let pod = node.pod("a").unwrap();
    // An address of the host, other than that of its loopback.
    node.run(Command::new("ip").args(["address", "add", "192.168.77.1/24", "dev", "lo"])).unwrap();
    let connect = |to: SocketAddr| {
        let from_pod = || TcpStream::connect_timeout(&to, 2 * SECOND);
        pod.netns.run(from_pod).unwrap()
    };
    let refused = connect("192.168.77.1:10109".parse().unwrap()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);

    // As kube-proxy has it for node ports, but without the rule that keeps pods out.
    node.run(Command::new("sysctl").args(["-qw", "net.ipv4.conf.all.route_localnet=1"])).unwrap();
    let in_pod = |line: &str| {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        pod.netns.run(|| assert!(command.args(words).status().unwrap().success(), "{line}")).unwrap();
    };
    in_pod("sysctl -qw net.ipv4.conf.all.route_localnet=1");
    in_pod("ip address del 127.0.0.1/8 dev lo");
    in_pod("ip route add 127.0.0.0/8 via 169.254.1.1 dev eth0 onlink");
    let loopback = LOOPBACK.parse().unwrap();
    let stream = connect(loopback);
    assert!(stream.is_ok(), "the forged route leads nowhere, so this proves nothing: {stream:?}");
    assert_eq!(ask(stream, "GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n"), "");
    assert_eq!(get(node, "/healthz").0, 200);
}

#[test]
fn a_wrong_address_is_refused_with_the_name_of_the_option_and_the_value() {
    let lab = unstarted("wrong");
    let node = &lab.nodes[0];
    for wrong in ["10109", "localhost:10109", "127.0.0.1", "127.0.0.1:70000", "none"] {
        let mut by_option = node.minicnid("run");
        by_option.args(["--nodes", "/nowhere", "--metrics-address", wrong]);
        let mut by_variable = node.minicnid("run");
        by_variable.args(["--nodes", "/nowhere"]).env("MINICNI_METRICS_ADDRESS", wrong);
        for mut command in [by_option, by_variable] {
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains("--metrics-address") && said.contains(wrong), "{said}");
        }
    }
}

#[test]
fn an_address_that_is_taken_is_a_problem_and_not_the_end_and_is_had_once_it_is_free() {
    let mut lab = unstarted("taken");
    let other = lab.nodes[0].netns.run(|| TcpListener::bind(LOOPBACK)).unwrap().unwrap();
    lab.start_daemons().unwrap();
    let node = &lab.nodes[0];
    let reported = || fs::read_to_string(node.state_dir().join("daemon.json")).unwrap_or_default();
    eventually("status says so", || reported().contains("no metrics at 127.0.0.1:10109"));
    assert!(node.pod("a").unwrap().call(node, "CHECK").unwrap().ok);
    drop(other);
    eventually("it answers", || get(node, "/readyz").0 == 200);
    // Whatever changes makes the main loop come round.
    let nodes = fs::read_to_string(lab.nodes_file()).unwrap();
    fs::write(lab.nodes_file(), nodes).unwrap();
    eventually("status has nothing to say", || !reported().contains("no metrics"));
}

#[test]
fn who_wants_no_metrics_has_none_and_a_log_of_objects_has_one_on_each_line() {
    let lab = unstarted("off");
    let node = &lab.nodes[0];
    let arguments = ["--metrics-address", "off", "--log-format", "json"];
    node.start_daemon_with(&lab.nodes_file(), &arguments).unwrap();
    assert_eq!(get(node, "/healthz").0, 0);
    let log = fs::read_to_string(node.log()).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["message"] == "started" && line["node"] == "node1"), "{log}");
}
