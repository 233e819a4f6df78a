//! Plugins of the CNI project behind minicni, executed as libcni does it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use xtask::lab::{
    Lab, Node, Pod, Programs,
    traffic::{Client, Protocol, Server},
};

use super::{assert_nothing_left, chain::Chain, conflist, firewall, minicni, redirected, residue};

const PORT: u16 = 8080;
const HOST_PORT: u16 = 80;

fn lab(name: &str, nodes: u8) -> Lab {
    let mut lab = Lab::new(&format!("mnichain-{name}"), nodes, Programs::beside_us().unwrap()).unwrap();
    lab.start_daemons().unwrap();
    lab
}

fn list(plugins: &[Value]) -> Value {
    json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": plugins })
}

/// A sandbox, attached to what a list of plugins makes. Its pod knows the result.
fn attach<'a>(node: &'a Node, name: &str, conflist: Value, runtime: Value) -> (Pod, Chain<'a>) {
    let mut pod = node.sandbox(name).unwrap();
    let (container_id, netns) = (pod.container_id(), pod.path.clone());
    let mut chain = Chain { node, conflist, runtime, container_id, netns, result: None };
    chain.add().unwrap();
    pod.result.clone_from(&chain.result);
    (pod, chain)
}

fn to(pod: &Pod) -> SocketAddr {
    (pod.address().unwrap(), PORT).into()
}

fn echo(from: &Pod, to: SocketAddr) -> anyhow::Result<()> {
    Client::connect(&from.netns, Protocol::Tcp, to)?.exchange(b"x")
}

#[test]
fn the_usual_chain_passes_check_and_is_deleted_in_reverse_order_twice() {
    let lab = lab("usual", 2);
    let [node, other] = lab.nodes.as_slice() else { panic!("two nodes") };
    let ports = json!({ "portMappings": [{ "hostPort": HOST_PORT, "containerPort": PORT, "protocol": "tcp" }] });
    let (a, mut chain_a) = attach(node, "a", conflist(node), ports);
    let (b, mut chain_b) = attach(node, "b", conflist(node), json!({}));
    let _server = Server::start(&a.netns, PORT).unwrap();
    for chain in [&chain_a, &chain_b] {
        chain.check().unwrap();
    }
    let count = redirected(node, || {
        Client::connect(&b.netns, Protocol::Tcp, to(&a)).unwrap().measure(1_000).unwrap();
    });
    assert!(count > 1_900, "{count} of about 2,000 packets were redirected");
    let port = (node.address, HOST_PORT).into();
    echo(&b, port).unwrap();
    echo(&a, port).unwrap();
    Client::connect(&other.netns, Protocol::Tcp, port).unwrap().measure(10).unwrap();
    for chain in [&chain_a, &chain_b] {
        chain.check().unwrap();
    }
    chain_a.del().unwrap();
    let of_b = residue(node);
    assert!(Client::connect(&other.netns, Protocol::Tcp, port).is_err());
    chain_a.late_del().unwrap();
    assert_eq!(residue(node), of_b);
    chain_b.check().unwrap();
    chain_b.del().unwrap();
    chain_b.late_del().unwrap();
    assert_nothing_left(node);
}

#[test]
fn check_through_the_chain_names_what_another_broke() {
    let lab = lab("check", 1);
    let node = &lab.nodes[0];
    let (pod, chain) = attach(node, "a", conflist(node), json!({}));
    let route = format!("{}/32", pod.address().unwrap());
    node.run(Command::new("ip").args(["route", "del", &route])).unwrap();
    let error = chain.check().unwrap_err().to_string();
    assert!(error.contains(&route) && error.contains("104"), "{error}");
    chain.del().unwrap();
    assert_nothing_left(node);
}

#[test]
fn a_node_that_forwards_nothing_forwards_for_the_pods_of_the_firewall_plugin() {
    let lab = lab("firewall", 1);
    let node = &lab.nodes[0];
    // The daemon would accept what pods send and get.
    node.stop_daemon().unwrap();
    node.run(Command::new("iptables").args(["-P", "FORWARD", "DROP"])).unwrap();
    let chained = || list(&[minicni(node), firewall()]);
    let (a, chain_a) = attach(node, "a", chained(), json!({}));
    let (b, chain_b) = attach(node, "b", chained(), json!({}));
    let (alone, chain_alone) = attach(node, "alone", list(&[minicni(node)]), json!({}));
    let _server = Server::start(&b.netns, PORT).unwrap();
    let count = redirected(node, || {
        Client::connect(&a.netns, Protocol::Tcp, to(&b)).unwrap().measure(1_000).unwrap();
    });
    assert!(count > 1_900, "{count} of about 2,000 packets were redirected");
    assert!(echo(&alone, to(&b)).is_err());
    for chain in [chain_a, chain_b, chain_alone] {
        chain.del().unwrap();
    }
    assert_nothing_left(node);
}

/// 8 Mbit/s.
const RATE: u32 = 8_000_000;

/// minicni hears of the limits as well: it has to leave the device's queueing disciplines to the bandwidth plugin.
fn shaped(node: &Node) -> Value {
    let capabilities = json!({ "bandwidth": true });
    let mut minicni = minicni(node);
    minicni["capabilities"] = capabilities.clone();
    list(&[minicni, json!({ "type": "bandwidth", "capabilities": capabilities })])
}

/// The same limit in both directions. Rates are in bits per second, bursts in bits.
fn limits() -> Value {
    let burst = 400_000;
    json!({ "bandwidth": {
        "ingressRate": RATE, "ingressBurst": burst,
        "egressRate": RATE, "egressBurst": burst,
    } })
}

/// Bits per second that one pod got through to another over TCP.
fn measure(from: &Pod, to: &Pod, bytes: u32) -> f64 {
    let listener = to.netns.run(|| TcpListener::bind(("0.0.0.0", 0)).unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = SocketAddr::from((to.address().unwrap(), port));
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut buffer = vec![0; 1 << 20];
            let (mut sum, start) = (0, Instant::now());
            while sum < bytes as usize {
                let length = stream.read(&mut buffer).unwrap();
                assert!(length > 0, "closed after {sum} bytes");
                sum += length;
            }
            f64::from(bytes) * 8.0 / start.elapsed().as_secs_f64()
        });
        let mut stream = from.netns.run(|| TcpStream::connect(address).unwrap()).unwrap();
        stream.write_all(&vec![0; bytes as usize]).unwrap();
        receiver.join().unwrap()
    })
}

#[test]
fn the_bandwidth_plugins_limits_hold_and_pods_without_limits_stay_fast() {
    let lab = lab("bandwidth", 1);
    let node = &lab.nodes[0];
    let (slow, mut chain_slow) = attach(node, "slow", shaped(node), limits());
    let (a, mut chain_a) = attach(node, "a", shaped(node), json!({}));
    let (b, mut chain_b) = attach(node, "b", shaped(node), json!({}));
    let rate = f64::from(RATE);
    for (from, to, direction) in [(&a, &slow, "to"), (&slow, &a, "from")] {
        let count = redirected(node, || {
            let measured = measure(from, to, 3_000_000);
            eprintln!("bandwidth: {:.1} Mbit/s {direction} a pod with a limit of 8", measured / 1e6);
            assert!((rate * 0.6..rate * 1.3).contains(&measured), "{measured} bit/s {direction} the limited pod");
        });
        assert_eq!(count, 0, "packets {direction} the limited pod were redirected");
    }
    let count = redirected(node, || {
        let measured = measure(&a, &b, 30_000_000);
        eprintln!("bandwidth: {:.0} Mbit/s between pods without a limit", measured / 1e6);
        assert!(measured > 10.0 * rate, "{measured} bit/s between pods without a limit");
    });
    assert!(count > 400, "{count} packets were redirected");
    // Version 1.1.1 of the bandwidth plugin panics in the CHECK of a pod without limits.
    chain_slow.check().unwrap();
    for chain in [&mut chain_slow, &mut chain_a, &mut chain_b] {
        chain.del().unwrap();
        chain.late_del().unwrap();
    }
    assert_nothing_left(node);
}
