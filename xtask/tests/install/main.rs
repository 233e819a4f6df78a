//! The daemon installs and uninstalls, with as few privileges as it needs. Needs root.

mod conflist;
mod plugin;
mod privileges;
mod uninstall;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;
use xtask::lab::{
    Lab, Node, Pod, Programs,
    runtime::PLUGINS,
    traffic::{Client, Protocol, Server},
};

const PORT: u16 = 7000;
/// Not how long something takes, but when it is sure that it will not come. The daemon's own timer has 30 s.
const LIMIT: Duration = Duration::from_secs(15);
const CONFLIST: &str = "10-minicni.conflist";

/// Two nodes, wired, with nothing running on them.
fn lab(name: &str) -> Lab {
    Lab::new(&format!("mniinstall-{name}"), 2, Programs::beside_us().unwrap()).unwrap()
}

/// A node's directories of the container runtime. There are the plugins that are chained.
struct Runtime {
    bin: PathBuf,
    conf: PathBuf,
}

impl Runtime {
    fn new(node: &Node) -> Self {
        let bin = node.directory("opt-cni-bin").unwrap();
        for plugin in ["portmap", "bandwidth"] {
            symlink(Path::new(PLUGINS).join(plugin), bin.join(plugin)).unwrap();
        }
        Self { bin, conf: node.directory("etc-cni-net.d").unwrap() }
    }

    fn options(&self) -> [&str; 4] {
        ["--cni-bin-dir", self.bin.to_str().unwrap(), "--cni-conf-dir", self.conf.to_str().unwrap()]
    }

    fn start(&self, lab: &Lab, node: &Node) {
        node.start_daemon_with(&lab.nodes_file(), &self.options()).unwrap();
    }

    fn conflist(&self) -> PathBuf {
        self.conf.join(CONFLIST)
    }

    fn plugin(&self) -> PathBuf {
        self.bin.join("minicni")
    }
}

/// Waits until something holds.
#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// What `minicnid status` finds wrong, as text.
fn problems(node: &Node) -> String {
    let mut command = node.minicnid("status");
    let output = node.netns.run(|| command.arg("--json").output().unwrap()).unwrap();
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    status["problems"].to_string()
}

fn to(pod: &Pod) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(pod.address().unwrap()), PORT)
}

#[track_caller]
fn assert_reaches(from: &Pod, to: &Pod) {
    let _server = Server::start(&to.netns, PORT).unwrap();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let mut client = Client::connect(&from.netns, protocol, self::to(to)).unwrap();
        client.measure(20).unwrap();
        client.close().unwrap();
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}
