use std::{fs, net::Ipv4Addr, process::Command};

use xtask::lab::{Lab, Node};

use super::{Runtime, assert_reaches, eventually, lab, names, problems, uninstall};

/// A container as the manifest asks for it: nothing but these directories can be written, /proc/sys neither, and root
/// has no capabilities but those given.
const CONTAINER: &str = r#"
set -eu
node=$1 capabilities=$2; shift 2
mount --rbind /run /run
mount --rbind "$node" "$node"
mount --bind /proc/sys/net "$node/proc-sys/net"
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -o remount,bind,ro /run
mount -o remount,bind,ro /
exec setpriv --no-new-privs --bounding-set="-all,$capabilities" --inh-caps=-all --ambient-caps=-all "$@"
"#;
/// As in `deploy/base/daemonset.yaml`.
const CAPABILITIES: &str = "+net_admin,+bpf,+perfmon,+net_raw";

/// The daemon's command line, in such a container.
fn contained(node: &Node, command: &Command, capabilities: &str) -> Command {
    let proc_sys = node.directory("proc-sys").unwrap();
    fs::create_dir_all(proc_sys.join("net")).unwrap();
    let mut container = Command::new("unshare");
    container.args(["--mount", "--propagation", "private", "sh", "-c", CONTAINER, "sh"]);
    container.arg(proc_sys.parent().unwrap()).arg(capabilities).arg(command.get_program()).args(command.get_args());
    container.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    container.env("MINICNI_PROC_SYS", proc_sys);
    container
}

fn start(lab: &Lab, runtime: &Runtime, capabilities: &str) {
    let node = &lab.nodes[0];
    let mut daemon = node.daemon(&lab.nodes_file());
    daemon.args(runtime.options());
    node.start(contained(node, &daemon, capabilities)).unwrap();
}

fn two(name: &str) -> (Lab, Runtime) {
    let lab = lab(name);
    lab.nodes[1].start_daemon(&lab.nodes_file()).unwrap();
    for setting in ["ipv4/ip_forward", "netfilter/nf_conntrack_tcp_be_liberal"] {
        let path = format!("/proc/sys/net/{setting}");
        lab.nodes[0].netns.run(|| fs::write(path, "0").unwrap()).unwrap();
    }
    let runtime = Runtime::new(&lab.nodes[0]);
    (lab, runtime)
}

#[test]
fn with_the_capabilities_of_the_daemonset_and_a_read_only_root_everything_works() {
    let (lab, runtime) = two("privileges");
    let (here, there) = (&lab.nodes[0], &lab.nodes[1]);
    start(&lab, &runtime, CAPABILITIES);
    let pid = here.daemon_pid().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    // CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_PERFMON 38, CAP_BPF 39.
    let expected = format!("CapEff:\t{:016x}", 1_u64 << 12 | 1 << 13 | 1 << 38 | 1 << 39);
    assert!(status.contains(&expected), "{status}");
    eventually("the configuration is written", || runtime.conflist().exists());
    let (a, b, c) = (here.pod("a").unwrap(), there.pod("b").unwrap(), here.pod("c").unwrap());
    let before = here.counters().redirected;
    for (from, to) in [(&a, &b), (&b, &a), (&a, &c)] {
        assert_reaches(from, to);
    }
    assert!(here.counters().redirected > before, "nothing took the fast path");
    eventually("nothing is wrong", || problems(here) == "[]");
    here.run(Command::new("ip").args(["route", "del", "10.244.2.0/24"])).unwrap();
    eventually("the route is back", || {
        !here.run(Command::new("ip").args(["route", "show", "10.244.2.0/24"])).unwrap().is_empty()
    });
    // The next one replaces the programs of pods and uplinks.
    here.stop_daemon().unwrap();
    start(&lab, &runtime, CAPABILITIES);
    assert_reaches(&a, &b);
    eventually("nothing is wrong", || problems(here) == "[]");
    here.stop_daemon().unwrap();
    for pod in [a, c] {
        pod.del(here).unwrap();
    }
    let mut command = here.minicnid("uninstall");
    command.args(runtime.options());
    let output = here.netns.run(|| contained(here, &command, CAPABILITIES).output().unwrap()).unwrap();
    assert!(output.status.success(), "{}", uninstall::said(&output));
    assert_eq!(names(&runtime.conf), [""; 0]);
}

#[test]
fn without_perfmon_or_bpf_there_is_no_fast_path_and_pods_talk_all_the_same() {
    let (lab, runtime) = two("less");
    start(&lab, &runtime, "+net_admin");
    let (a, b) = (lab.nodes[0].pod("a").unwrap(), lab.nodes[1].pod("b").unwrap());
    assert_reaches(&a, &b);
    eventually("status says so", || problems(&lab.nodes[0]).contains("no eBPF fast path"));
}

#[test]
fn a_node_whose_pod_cidr_changed_keeps_its_old_pods_and_gives_new_ones_addresses_of_the_new() {
    let lab = lab("renumbered");
    let node = &lab.nodes[0];
    node.start_daemon(&lab.nodes_file()).unwrap();
    let pod = |name: &str| {
        let mut pod = node.sandbox(name).unwrap();
        // As in a cluster, where the daemon tells.
        pod.config.as_object_mut().unwrap().remove("subnet");
        pod.add(node).unwrap();
        pod
    };
    let old = pod("old");
    assert_eq!(old.address().unwrap(), Ipv4Addr::new(10, 244, 1, 1));
    let nodes = fs::read_to_string(lab.nodes_file()).unwrap();
    fs::write(lab.nodes_file(), nodes.replace("10.244.1.0/24", "10.244.7.0/24")).unwrap();
    let facts = node.state_dir().join("node.json");
    eventually("node.json has the new CIDR", || {
        fs::read_to_string(&facts).is_ok_and(|text| text.contains("10.244.7.0/24"))
    });
    let new = pod("new");
    assert_eq!(new.address().unwrap(), Ipv4Addr::new(10, 244, 7, 1));
    assert_reaches(&old, &new);
    assert_reaches(&new, &old);
    assert!(old.call(node, "CHECK").unwrap().ok);
    old.del(node).unwrap();
    eventually("all is well", || problems(node) == "[]");
}
