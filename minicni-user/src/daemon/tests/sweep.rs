//! Leases of pods whose namespace is gone.

use std::{
    io::Cursor,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    thread::{self, sleep},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use super::{in_namespace, ip};
use crate::{
    cni,
    daemon::sweep::{Limits, Sweeper},
    datapath::Pins,
    ipam::{LeaseState, Owner, Range, RangeSet, Store},
    link::Netns,
    node::{StateDir, boot_id},
    plugin::{
        Minicni,
        reclaim::{Dead, UNFINISHED_ADD, has_device, reclaim},
    },
};

const NETWORK: &str = "pods";
const SUBNET: &str = "10.1.0.0/24";
const GRACE: Duration = Duration::from_mins(1);
/// A lease counts from its first second.
const AT_ONCE: Limits = Limits { age: Duration::ZERO, grace: GRACE };

fn owner(name: &str) -> Owner {
    Owner::new(name, "eth0").unwrap()
}

fn store(dir: &Path) -> Store {
    Store::open(&StateDir::new(dir).ipam(NETWORK), &boot_id().unwrap(), Duration::from_mins(2)).unwrap()
}

fn sweeper(dir: &Path, limits: Limits) -> Sweeper {
    Sweeper::new(StateDir::new(dir), Pins::new(&dir.join("bpf")), limits)
}

/// Who holds an address, and since when.
fn leased(dir: &Path) -> Vec<(String, u64)> {
    let leases = store(dir).list().unwrap().into_iter().filter_map(|lease| match lease.state {
        LeaseState::Leased { owner, since, .. } => Some((owner.container_id().to_owned(), since)),
        _ => None,
    });
    leases.collect()
}

fn holders(dir: &Path) -> Vec<String> {
    leased(dir).into_iter().map(|(name, _)| name).collect()
}

/// A pod that the plugin attached; its namespace ends with the value.
fn pod(dir: &Path, name: &str) -> Netns {
    let netns = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        Netns::open("/proc/thread-self/ns/net").unwrap()
    });
    let netns = netns.join().unwrap();
    let path = format!("/proc/self/fd/{}", netns.as_fd().as_raw_fd());
    let config = json!({
        "cniVersion": "1.1.0", "name": NETWORK, "type": "minicni", "subnet": SUBNET, "datapath": "route",
        "stateDir": dir, "bpfDir": dir.join("bpf"),
    });
    let lookup = |variable: &str| {
        let value = match variable {
            "CNI_COMMAND" => "ADD",
            "CNI_CONTAINERID" => name,
            "CNI_NETNS" => &path,
            "CNI_IFNAME" => "eth0",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let status = cni::run(
        &Minicni { started: Instant::now() },
        lookup,
        Cursor::new(config.to_string()),
        &mut stdout,
        &mut stderr,
    );
    assert_eq!(status, 0, "{}", String::from_utf8_lossy(&stdout));
    netns
}

fn dies(name: &str, netns: Netns) {
    drop(netns);
    // The kernel takes namespaces down in its own time.
    let start = Instant::now();
    while has_device(NETWORK, &owner(name)).unwrap() {
        assert!(start.elapsed() < Duration::from_secs(30), "the namespace of {name} does not end");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_pod_that_died_without_a_del_gives_its_address_back_after_the_grace_and_a_living_one_keeps_it() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (living, dying) = (pod(dir, "living"), pod(dir, "dying"));
        let mut sweeper = sweeper(dir, AT_ONCE);
        let start = Instant::now();
        sweeper.look(start);
        sweeper.look(start + GRACE);
        assert_eq!(holders(dir), ["living", "dying"]);

        dies("dying", dying);
        sweeper.look(start + 2 * GRACE);
        sweeper.look(start + 2 * GRACE + GRACE / 2);
        assert_eq!(holders(dir), ["living", "dying"], "within the grace");
        sweeper.look(start + 3 * GRACE);
        assert_eq!(holders(dir), ["living"]);
        assert_eq!(sweeper.problems(), [] as [&str; 0]);
        let cooling = store(dir).list().unwrap().remove(1);
        assert!(matches!(cooling.state, LeaseState::Cooling { .. }), "{cooling:?}");

        sweeper.look(start + 9 * GRACE);
        assert_eq!(holders(dir), ["living"]);
        drop(living);
    });
}

#[test]
fn a_lease_whose_add_may_be_at_work_stays() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let set = RangeSet::new(vec![Range::new(SUBNET.parse::<IpNet>().unwrap(), None, None, None).unwrap()]).unwrap();
        let store = store(dir);
        store.allocate(&owner("adding"), None, &[set], &[]).unwrap();
        let start = Instant::now();
        let look_twice = |limits| {
            let mut sweeper = sweeper(dir, limits);
            sweeper.look(start);
            sweeper.look(start + 2 * GRACE);
        };
        look_twice(Limits { age: UNFINISHED_ADD, ..AT_ONCE });
        assert_eq!(holders(dir), ["adding"], "too young");
        let held = store.hold(&owner("adding")).unwrap();
        look_twice(AT_ONCE);
        assert_eq!(holders(dir), ["adding"], "an ADD holds it");
        drop(held);
        look_twice(AT_ONCE);
        assert_eq!(holders(dir), [] as [&str; 0]);
    });
}

#[test]
fn what_seemed_dead_is_looked_at_again_before_it_is_released() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let netns = pod(dir, "a");
        let since = leased(dir)[0].1;
        let attempt = |since| {
            let dead = Dead { network: NETWORK.to_owned(), owner: owner("a"), since };
            reclaim(&StateDir::new(dir), &Pins::new(&dir.join("bpf")), &dead).unwrap()
        };
        assert_eq!(attempt(since), [] as [IpAddr; 0], "its device is there");
        dies("a", netns);
        ip("route add 10.1.0.1/32 dev up0 proto 110");
        assert_eq!(attempt(since), [] as [IpAddr; 0], "a route leads to it, perhaps by another name");
        ip("route del 10.1.0.1/32");
        assert_eq!(attempt(since + 1), [] as [IpAddr; 0], "another lease of the same owner");
        assert_eq!(holders(dir), ["a"]);
        assert_eq!(attempt(since), ["10.1.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(attempt(since), [] as [IpAddr; 0]);
    });
}

#[test]
fn a_network_that_cannot_be_read_is_a_problem_and_the_others_are_swept() {
    in_namespace(|| async {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let netns = pod(dir, "a");
        let broken = StateDir::new(dir).ipam("broken");
        Store::open(&broken, &boot_id().unwrap(), Duration::ZERO).unwrap();
        std::fs::remove_dir_all(broken.join("leases")).unwrap();
        std::fs::write(broken.join("leases"), "").unwrap();
        dies("a", netns);
        let mut sweeper = sweeper(dir, AT_ONCE);
        sweeper.look(Instant::now());
        sweeper.look(Instant::now() + GRACE);
        assert_eq!(holders(dir), [] as [&str; 0]);
        assert!(sweeper.problems()[0].contains("network broken: cannot"), "{:?}", sweeper.problems());
    });
}
