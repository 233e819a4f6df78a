//! A thousand calls that are killed at any moment, and nothing is left in the end.

use std::{
    io::Write as _,
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, SystemTime},
};

use minicni::link::Netns;
use serde_json::json;
use xtask::lab::{Families, Node, Pod};

use crate::{assert_nothing_left, lab_with};

const WORKERS: u64 = 4;
const ROUNDS: u64 = 250;
/// Longer than any call takes, so that some are not hit.
const LONGEST_LIFE: u64 = 12_000;

/// `xorshift64`: the rounds are the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Executes the plugin, and kills it after so many microseconds.
fn call_and_kill(node: &Node, pod: &Pod, command: &str, life: Duration) {
    let mut plugin = pod.command(command);
    plugin.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = node.netns.run(|| plugin.spawn()).unwrap().unwrap();
    // It may be dead before it read all.
    let _ = child.stdin.take().unwrap().write_all(pod.config.to_string().as_bytes());
    thread::sleep(life);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn churn(node: &Node, worker: u64, seed: u64, killed: &AtomicU64) {
    let mut random = Random(seed.wrapping_add(worker.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
    let mut pods: Vec<Pod> = (0..3).map(|number| node.sandbox(&format!("w{worker}p{number}")).unwrap()).collect();
    for round in 0..ROUNDS {
        let index = usize::try_from(random.below(3)).unwrap();
        let pod = &mut pods[index];
        let command = ["ADD", "ADD", "DEL", "CHECK", "GC"][usize::try_from(random.below(5)).unwrap()];
        // Without a list; with an empty one, GC takes everything from everybody, which is what it is for.
        match random.below(20) {
            0 => pod.config["cni.dev/valid-attachments"] = json!([]),
            _ => _ = pod.config.as_object_mut().unwrap().remove("cni.dev/valid-attachments"),
        }
        if random.below(3) == 0 {
            let call = pod.call(node, command).unwrap();
            if command == "ADD" && call.ok {
                pod.config["prevResult"] = call.answer.clone().unwrap();
            }
            assert!(call.ok || matches!(command, "ADD" | "CHECK"), "{command}: {call:?}");
        } else {
            killed.fetch_add(1, Relaxed);
            call_and_kill(node, pod, command, Duration::from_micros(random.below(LONGEST_LIFE)));
        }
        // Now and then a container dies, and its namespace with it; the DEL comes late.
        if random.below(12) == 0 {
            Netns::delete_named(&pod.path).unwrap();
            let name = format!("w{worker}p{index}r{round}");
            let late = std::mem::replace(pod, node.sandbox(&name).unwrap());
            assert!(late.call_with(node, "DEL", &[("CNI_NETNS", "")]).unwrap().ok);
        }
    }
    for pod in &pods {
        pod.del(node).unwrap();
    }
}

#[test]
fn a_thousand_calls_killed_at_random_moments_leave_nothing() {
    let mut lab = lab_with("churn", Families::Dual);
    lab.start_daemons().unwrap();
    let nodes_file = lab.nodes_file();
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().subsec_nanos();
    eprintln!("seed {seed}");
    let killed = AtomicU64::new(0);
    thread::scope(|scope| {
        let node = &lab.nodes[0];
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let killed = &killed;
                scope.spawn(move || churn(node, worker, u64::from(seed), killed))
            })
            .collect();
        // Daemons come and go meanwhile.
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            node.stop_daemon().unwrap();
            thread::sleep(Duration::from_millis(100));
            node.start_daemon(&nodes_file).unwrap();
            thread::sleep(Duration::from_millis(400));
        }
        for worker in workers {
            worker.join().unwrap();
        }
    });
    let node = &lab.nodes[0];
    eprintln!("{} of {} calls were killed", killed.load(Relaxed), WORKERS * ROUNDS);
    // What the GC of a runtime would ask for at its next start.
    let mut last = node.sandbox("last").unwrap();
    last.config["cni.dev/valid-attachments"] = json!(null);
    assert!(last.call(node, "GC").unwrap().ok);
    assert_nothing_left(node);
    for family in ["-4", "-6"] {
        let neighbours = node.run(std::process::Command::new("ip").args([family, "neigh", "show", "nud", "permanent"]));
        assert_eq!(neighbours.unwrap(), "");
    }
    // Every address can be had again.
    assert!(last.call(node, "STATUS").unwrap().ok);
}
