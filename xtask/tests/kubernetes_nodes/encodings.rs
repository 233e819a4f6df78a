//! The API server's answers in protobuf, and in JSON from a server that has nothing else.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use xtask::lab::kubernetes::Process;

use super::*;

const PROXY: u16 = 8001;
const JSON_ONLY: u16 = 8002;

/// The cluster's API server, as one that knows no protobuf: what is asked for is changed on the way there.
struct JsonOnly {
    /// How often somebody asked for protobuf.
    asked: Arc<AtomicUsize>,
    kubeconfig: PathBuf,
    _proxy: Process,
}

impl JsonOnly {
    /// On the node of the daemon to be tested.
    fn new(cluster: &Cluster) -> Self {
        let here = cluster.here();
        let dir = here.directory("json-only").unwrap();
        let arguments = ["proxy", "--port", &PROXY.to_string()];
        let mut proxy = cluster.kubectl.command(&arguments);
        let proxy = Process::start(&dir, "kubectl-proxy", &here.netns, &mut proxy).unwrap();
        let connect = || here.netns.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, PROXY))).unwrap();
        eventually(SOON, "kubectl proxy listens", || connect().is_ok());

        let asked = Arc::<AtomicUsize>::default();
        let listener = here.netns.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, JSON_ONLY))).unwrap().unwrap();
        let (name, counter) = (here.netns_name(), Arc::clone(&asked));
        thread::spawn(move || {
            let netns = minicni::link::Netns::open(Path::new("/run/netns").join(name)).unwrap();
            netns.run(|| serve(&listener, &counter)).unwrap();
        });
        let kubeconfig = dir.join("kubeconfig");
        let text = format!(
            r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [],
            "clusters": [{{"name": "c", "cluster": {{"server": "http://127.0.0.1:{JSON_ONLY}"}}}}],
            "contexts": [{{"name": "c", "context": {{"cluster": "c", "user": ""}}}}]}}"#
        );
        fs::write(&kubeconfig, text).unwrap();
        Self { asked, kubeconfig, _proxy: proxy }
    }
}

/// Serves until the process ends.
fn serve(listener: &TcpListener, asked: &AtomicUsize) {
    thread::scope(|scope| {
        for client in listener.incoming() {
            // What goes wrong with one connection is for the client to see.
            scope.spawn(|| pass_on(&client?, asked));
        }
    });
}

/// Passes one request on, and its answer back.
fn pass_on(client: &TcpStream, asked: &AtomicUsize) -> io::Result<()> {
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, PROXY))?;
    let mut request = BufReader::new(client.try_clone()?);
    loop {
        let mut line = String::new();
        request.read_line(&mut line)?;
        if line.to_lowercase().starts_with("accept:") {
            asked.fetch_add(usize::from(line.contains("protobuf")), Relaxed);
            "Accept: application/json\r\nConnection: close\r\n".clone_into(&mut line);
        }
        server.write_all(line.as_bytes())?;
        if line.trim().is_empty() {
            break;
        }
    }
    let mut back = server.try_clone()?;
    thread::scope(|scope| {
        scope.spawn(|| io::copy(&mut request, &mut server));
        io::copy(&mut back, &mut &*client)?;
        client.shutdown(Shutdown::Both)
    })
}

#[test]
fn a_server_that_answers_in_json_alone_is_followed_as_one_that_answers_in_protobuf() {
    let cluster = Cluster::running("json");
    // Each says something else of what the daemon reads.
    let mut dual = node(3);
    dual["spec"]["podCIDRs"] = json!(["10.244.3.0/24", "fd00:3::/64"]);
    let mut bare = node(4);
    bare["spec"] = json!({});
    let mut overlapping = node(5);
    overlapping["spec"] = json!({ "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"] });
    let mut banana = node(6);
    banana["status"]["addresses"][0]["address"] = json!("banana");
    let nothing = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node7" } });
    for object in [dual, bare, overlapping, banana, nothing] {
        create(&cluster.kubectl, &object);
    }
    let problems = ["node4", "node5", "node6", "node7"];
    let all_told = || problems.iter().all(|name| cluster.problems().contains(&format!("node {name}: ")));
    eventually(SOON, "all that is wrong is told", all_told);
    eventually(LATER, "the condition is told", || cluster.condition("node2")["status"] == "False");
    let (routes, told) = (cluster.routes(), cluster.problems());
    assert_eq!(routes, [TO_NODE1, TO_NODE3]);
    cluster.here().stop_daemon().unwrap();
    let changes = route_changes(&cluster.log());

    let server = JsonOnly::new(&cluster);
    let mut daemon = cluster.here().spawn_daemon(&["--kubeconfig", server.kubeconfig.to_str().unwrap()]).unwrap();
    eventually(SOON, "the nodes are listed", || cluster.log().matches("nodes listed").count() == 2);
    eventually(SOON, "the same is told", || cluster.problems() == told);
    assert_eq!((cluster.routes(), route_changes(&cluster.log())), (routes, changes));
    create(&cluster.kubectl, &node(8));
    let to_node8 = "10.244.8.0/24 via 192.168.77.8";
    eventually(SOON, "the route to node8", || cluster.routes() == [TO_NODE1, TO_NODE3, to_node8]);
    let before = cluster.log();
    cluster.set_status("node8", |status| {
        status["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
    });
    thread::sleep(Duration::from_secs(1));
    assert_eq!(cluster.log(), before, "a heartbeat changes nothing");
    cluster.kubectl.run(&["delete", "node", "node8"]).unwrap();
    eventually(SOON, "no route to node8", || cluster.routes() == [TO_NODE1, TO_NODE3]);
    assert!(server.asked.load(Relaxed) >= 2, "protobuf was asked for, for the list and the watch");
    cluster.here().stop_daemon().unwrap();
    // Whoever waits for it first gets its end: `stop_daemon` may have had it.
    let _ended = daemon.wait();
}
