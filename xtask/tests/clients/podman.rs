//! podman with its CNI backend.

use std::{net::Ipv4Addr, process::Command};

use xtask::lab::{
    Node,
    runtime::{Host, image},
};

use super::{HTTP, SERVES, address, assert_nothing_left, httpd, lab, redirected, residue, results, wget};

const LARGE: u64 = 30 << 20;
const HOST_PORT: u16 = 8080;

/// Nothing that needs more than root may, and nothing that several hosts would share.
const CONTAINERS: &str = r#"
[containers]
apparmor_profile = "unconfined"
default_ulimits = []
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
network_config_dir = "/etc/cni/net.d"
"#;

const STORAGE: &str = r#"
[storage]
driver = "vfs"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
"#;

struct Podman<'a> {
    host: &'a Host,
}

impl<'a> Podman<'a> {
    fn new(host: &'a Host) -> Self {
        host.write("/etc/containers/containers.conf", CONTAINERS).unwrap();
        host.write("/etc/containers/storage.conf", STORAGE).unwrap();
        host.write("/etc/containers/policy.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).unwrap();
        let podman = Self { host };
        podman.run(&["load", "--quiet", "--input", "/tmp/image.tar"]);
        podman
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        self.host.run("podman", arguments).unwrap()
    }

    /// Starts a web server in a container.
    #[track_caller]
    fn serve(&self, name: &str, options: &[&str]) -> Ipv4Addr {
        let cgroup = self.host.cgroup();
        let fixed = ["run", "--detach", "--cgroup-parent", &cgroup, "--network", "pods", "--name", name];
        self.run(&[&fixed, options, &[image::NAME, "sh", "-c", &httpd(name)]].concat());
        self.exec(name, SERVES);
        self.address(name)
    }

    fn address(&self, name: &str) -> Ipv4Addr {
        address(&self.run(&["inspect", name, "--format", "{{.NetworkSettings.Networks.pods.IPAddress}}"]))
    }

    /// Runs a shell command in a container.
    #[track_caller]
    fn exec(&self, name: &str, command: &str) -> String {
        self.run(&["exec", name, "sh", "-c", command])
    }
}

/// Runs a shell command of busybox on a node, beside its containers.
#[track_caller]
fn on(node: &Node, command: &str) -> String {
    node.run(Command::new("busybox").args(["sh", "-c", command])).unwrap()
}

#[test]
fn containers_of_podman_talk_to_each_other_on_the_fast_path() {
    let (lab, host) = lab("podman", 1);
    let node = &lab.nodes[0];
    let podman = Podman::new(&host);
    let (a, b) = (podman.serve("a", &[]), podman.serve("b", &[]));
    for (from, to, name) in [("a", b, "b"), ("b", a, "a"), ("a", a, "a")] {
        assert_eq!(podman.exec(from, &wget("name", (to, HTTP))), name);
    }
    let count = redirected(node, || {
        let length = podman.exec("a", &format!("{} | wc -c", wget("large", (b, HTTP))));
        assert_eq!(length, LARGE.to_string());
    });
    eprintln!("podman: {count} packets of 30 MB were redirected");
    assert!(count > 400, "{count} packets were redirected");
    // What the plugins behind us were told to do.
    assert_eq!(podman.exec("a", "cat /proc/sys/net/ipv4/ip_default_ttl /sys/class/net/eth0/mtu"), "61\n1400");
    podman.run(&["rm", "--force", "--time", "0", "a", "b"]);
    assert_nothing_left(node);
}

#[test]
fn a_port_that_podman_publishes_is_reached_from_everywhere() {
    let (lab, host) = lab("podman-port", 2);
    let [node, other] = lab.nodes.as_slice() else { panic!("two nodes") };
    let podman = Podman::new(&host);
    podman.serve("a", &["--publish", "8080:80"]);
    podman.serve("b", &[]);
    let ask = wget("name", (node.address, HOST_PORT));
    let everywhere = |name: &str| {
        assert_eq!(on(other, &ask), name, "from another node");
        assert_eq!(podman.exec("b", &ask), name, "from another pod through the node's address");
        assert_eq!(podman.exec("a", &ask), name, "from the pod itself through the node's address");
        assert_eq!(on(node, &ask), name, "from the node");
        assert_eq!(on(node, &wget("name", (Ipv4Addr::LOCALHOST, HOST_PORT))), name, "through the node's loopback");
    };
    everywhere("a");
    eprintln!("podman: the published port answers another node, another pod, the pod itself, and the node");
    let count = redirected(node, || {
        let length = podman.exec("b", &format!("{} | wc -c", wget("large", (node.address, HOST_PORT))));
        assert_eq!(length, LARGE.to_string());
    });
    assert_eq!(count, 0, "a translated flow was redirected");
    podman.run(&["rm", "--force", "--time", "0", "a"]);
    // The port's next owner.
    podman.serve("c", &["--publish", "8080:80"]);
    assert_eq!(on(other, &ask), "c");
    podman.run(&["rm", "--force", "--time", "0", "b", "c"]);
    assert_nothing_left(node);
}

#[test]
fn ten_starts_and_stops_by_podman_leave_nothing() {
    let (lab, host) = lab("podman-again", 1);
    let node = &lab.nodes[0];
    let podman = Podman::new(&host);
    podman.serve("b", &[]);
    let with_b = residue(node);
    podman.serve("a", &["--publish", "8080:80"]);
    for _ in 0..10 {
        assert_eq!(podman.exec("b", &wget("name", (podman.address("a"), HTTP))), "a");
        podman.run(&["stop", "--time", "0", "a"]);
        assert_eq!((residue(node), results(&host).len()), (with_b.clone(), 1));
        podman.run(&["start", "a"]);
        podman.exec("a", SERVES);
    }
    eprintln!("podman: started and stopped ten times");
    // Nobody is left to clean up when these die.
    for process in ["{{.State.ConmonPid}}", "{{.State.Pid}}"] {
        let pid = podman.run(&["inspect", "a", "--format", process]);
        host.run("kill", &["-9", &pid]).unwrap();
    }
    assert_ne!(residue(node), with_b);
    podman.run(&["rm", "--force", "--time", "0", "a", "b"]);
    assert_nothing_left(node);
    assert_eq!(results(&host), Vec::<String>::new());
    assert_eq!(host.run("ls", &["/run/netns"]).unwrap(), "");
}
