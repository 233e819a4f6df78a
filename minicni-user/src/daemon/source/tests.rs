use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    path::Path,
    thread,
};

use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::time::timeout;

use super::*;
use crate::{
    daemon::{health::Health, metrics::Metrics},
    datapath::Pins,
    node::StateDir,
};

/// How soon nodes are known once the credentials are right.
const SOON: Duration = Duration::from_secs(20);

/// Begins to answer as an API server with one node that accepts one token, until the process ends.
fn api_server(token: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map(Result::unwrap) {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
            let known = head.iter().any(|line| line.eq_ignore_ascii_case(&format!("authorization: Bearer {token}")));
            let node = json!({
                "metadata": {"name": "me", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"podCIDR": "10.244.0.0/24"},
                "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
            });
            let (status, body) = if known {
                let metadata = json!({"resourceVersion": "7"});
                ("200 OK", json!({"kind": "NodeList", "apiVersion": "v1", "metadata": metadata, "items": [node]}))
            } else {
                ("401 Unauthorized", json!({"kind": "Status", "apiVersion": "v1", "code": 401, "message": "who?"}))
            };
            let body = body.to_string();
            let length = body.len();
            // Whoever went away need not be answered.
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
        }
    });
    address
}

fn write_kubeconfig(path: &Path, server: SocketAddr, token: &str) {
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{server}")}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    fs::write(path, kubeconfig.to_string()).unwrap();
}

async fn open(kubeconfig: &Path) -> Source {
    let (state, pins) = (StateDir::new(kubeconfig.parent().unwrap()), Pins::new(kubeconfig.parent().unwrap()));
    let metrics = Metrics::new(&mut Registry::default(), Health::new(), state, pins);
    let options = ApiOptions { kubeconfig: Some(kubeconfig.to_owned()), server: None };
    Source::open(&SourceOptions::Api(options), "me", metrics.nodes).await.unwrap()
}

fn problems(source: &Source) -> String {
    let mut problems = Problems::default();
    source.problems(&mut problems);
    problems.all().iter().map(ToString::to_string).collect()
}

async fn until_nodes_are_known(source: &mut Source) {
    while source.nodes().is_none() {
        let changed = timeout(SOON, source.changed()).await;
        assert!(changed.is_ok(), "{}", problems(source));
    }
}

#[tokio::test]
async fn credentials_that_are_replaced_in_the_kubeconfig_are_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let server = api_server("new");
    write_kubeconfig(&kubeconfig, server, "old");
    let mut source = open(&kubeconfig).await;
    source.changed().await;
    assert!(source.nodes().is_none() && problems(&source).contains("does not accept the credentials"));
    // While somebody writes it, it is not whole.
    fs::write(&kubeconfig, "{").unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    write_kubeconfig(&kubeconfig, server, "new");
    until_nodes_are_known(&mut source).await;
}

#[tokio::test]
async fn an_api_server_that_moved_is_found_by_the_kubeconfig_and_named_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    // Nobody listens there any more.
    let gone = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    write_kubeconfig(&kubeconfig, gone, "new");
    let mut source = open(&kubeconfig).await;
    source.changed().await;
    assert!(problems(&source).contains(&gone.to_string()), "{}", problems(&source));
    let server = api_server("new");
    write_kubeconfig(&kubeconfig, server, "new");
    until_nodes_are_known(&mut source).await;
    assert_eq!(source.to_string(), format!("http://{server}"));
}
