//! Many calls at once.

use std::{
    collections::HashSet,
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use serde_json::json;
use xtask::lab::traffic::{Client, Protocol, Server};

use crate::{assert_nothing_left, lab, leased, residue, under_strace};

#[test]
fn fifty_parallel_adds_and_dels_give_no_address_twice_and_leave_nothing() {
    let lab = lab("parallel");
    let node = &lab.nodes[0];
    let sandboxes: Vec<_> = (0..50).map(|number| node.sandbox(&format!("p{number}")).unwrap()).collect();
    let pods: Vec<_> = thread::scope(|scope| {
        let adds: Vec<_> = sandboxes
            .into_iter()
            .map(|mut pod| {
                scope.spawn(move || {
                    pod.add(node).unwrap();
                    pod
                })
            })
            .collect();
        adds.into_iter().map(|add| add.join().unwrap()).collect()
    });
    let addresses: HashSet<Ipv4Addr> = pods.iter().map(|pod| pod.address().unwrap()).collect();
    assert_eq!((addresses.len(), residue(node).0.len(), leased(node).len()), (50, 50, 50));
    thread::scope(|scope| {
        for pod in &pods {
            // Runtimes send two DELs of one pod at the same time.
            scope.spawn(|| pod.del(node).unwrap());
            scope.spawn(|| pod.del(node).unwrap());
        }
    });
    assert_nothing_left(node);
}

#[test]
fn the_first_packet_after_add_arrives_in_either_mode_however_busy_the_kernel_is() {
    let lab = lab("first");
    let node = &lab.nodes[0];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // Pods that come and go keep the kernel's network lock busy.
        scope.spawn(|| {
            for number in 0.. {
                if done.load(Relaxed) {
                    return;
                }
                node.pod(&format!("noise{number}")).unwrap().del(node).unwrap();
            }
        });
        let lost = ["ebpf", "route"].map(|mode| {
            let pod = |name: String| {
                let mut pod = node.sandbox(&name).unwrap();
                pod.config["datapath"] = json!(mode);
                pod.add(node).unwrap();
                pod
            };
            let client = pod(format!("{mode}-client"));
            (0..60)
                .filter(|number| {
                    let pod = pod(format!("{mode}{number}"));
                    let _server = Server::start(&pod.netns, 7000).unwrap();
                    let to = (pod.address().unwrap(), 7000).into();
                    let lost = Client::connect(&client.netns, Protocol::Udp, to).unwrap().exchange(b"x").is_err();
                    pod.del(node).unwrap();
                    lost
                })
                .collect::<Vec<_>>()
        });
        done.store(true, Relaxed);
        assert!(lost.iter().all(Vec::is_empty), "{lost:?}: the first packet to these pods was lost");
    });
}

#[test]
fn a_del_that_overtakes_an_add_leaves_nothing_of_it() {
    let lab = lab("overtake");
    let node = &lab.nodes[0];
    node.pod("first").unwrap().del(node).unwrap();
    let pod = node.sandbox("a").unwrap();
    // Between the lease and the first netlink message.
    let mut add = under_strace(node, &pod, "ADD", "socket:delay_enter=1000000:when=1");
    thread::sleep(Duration::from_millis(500));
    pod.del(node).unwrap();
    assert!(add.wait().unwrap().success());
    assert_nothing_left(node);
}
