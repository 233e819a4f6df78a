use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use minicni::{datapath::Pins, link::Netns};
use minicni_common::Counters;
use nix::mount::{MsFlags, mount};

use super::{Families, Pod, Programs, directory, families, netns_path, running, stop_daemon, without_dad};

/// How long a daemon may take until it is ready: in an emulated guest on a busy machine half a minute.
const START_LIMIT: Duration = Duration::from_secs(90);

/// A node: a network namespace with a state directory and a bpf file system of its own.
#[derive(Debug)]
pub struct Node {
    /// `node1`, `node2`.
    pub name: String,
    /// 1, 2.
    pub number: u8,
    /// Its namespace.
    pub netns: Netns,
    /// The address families it has.
    pub families: Families,
    /// The IPv4 address of its uplink, where it has that family.
    pub address: Ipv4Addr,
    /// The IPv6 address of its uplink, where it has that family.
    pub address6: Ipv6Addr,
    lab: String,
    dir: PathBuf,
    programs: Programs,
}

impl Node {
    pub(super) fn new(lab: &str, number: u8, programs: &Programs, families: Families) -> Result<Self> {
        let name = format!("node{number}");
        let dir = directory(lab).join(&name);
        let bpf = dir.join("bpf");
        fs::create_dir_all(&bpf).with_context(|| format!("create {}", bpf.display()))?;
        mount(Some("bpf"), &bpf, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount a bpf file system on {}", bpf.display()))?;
        let netns = Netns::create_named(netns_path(&format!("{lab}-{name}")))?;
        without_dad(&netns)?;
        let (lab, programs) = (lab.to_owned(), programs.clone());
        let (address, address6) = (families::node_address(number), families::node_address6(number));
        Ok(Self { name, number, netns, families, address, address6, lab, dir, programs })
    }

    /// The IPv4 prefix of the node's pods.
    pub fn pod_cidr(&self) -> IpNet {
        families::pod_cidr(self.number)
    }

    /// The IPv6 prefix of the node's pods.
    pub fn pod_cidr6(&self) -> IpNet {
        families::pod_cidr6(self.number)
    }

    /// The prefixes of the node's pods, of the families it has.
    pub fn pod_cidrs(&self) -> Vec<IpNet> {
        self.families.select(self.pod_cidr(), self.pod_cidr6())
    }

    /// The name of its namespace, for `ip netns`.
    pub fn netns_name(&self) -> String {
        format!("{}-{}", self.lab, self.name)
    }

    /// Where its leases and `node.json` are.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Where its programs and maps are pinned.
    pub fn bpf_dir(&self) -> PathBuf {
        self.dir.join("bpf/minicni")
    }

    /// The pins below [`Node::bpf_dir`].
    pub fn pins(&self) -> Pins {
        Pins::new(&self.bpf_dir())
    }

    /// The daemon's log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    /// The lock of iptables-legacy on this node; the host's own is not for the lab.
    pub fn xtables_lock(&self) -> PathBuf {
        self.dir.join("xtables.lock")
    }

    /// The Node object, as Kubernetes has it.
    pub(super) fn yaml(&self) -> String {
        let cidrs: Vec<_> = self.pod_cidrs().iter().map(ToString::to_string).collect();
        let addresses = self.families.select(IpAddr::V4(self.address), IpAddr::V6(self.address6));
        let addresses: Vec<_> =
            addresses.iter().map(|address| format!("  - type: InternalIP\n    address: {address}\n")).collect();
        format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: {}\nspec:\n  podCIDR: {}\n  podCIDRs: [{}]\n\
             status:\n  addresses:\n{}",
            self.name,
            cidrs[0],
            cidrs.join(", "),
            addresses.concat(),
        )
    }

    /// Runs a command inside the node and gives what it printed.
    pub fn run(&self, command: &mut Command) -> Result<String> {
        self.netns.run(|| crate::command::output(command))?
    }

    /// The command line of the daemon or of its `status`, for this node.
    pub fn minicnid(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.programs.minicnid);
        command.arg(subcommand).arg("--state-dir").arg(self.state_dir()).arg("--bpf-dir").arg(self.bpf_dir());
        command
    }

    /// Starts the daemon and waits until ADD can be served.
    pub fn start_daemon(&self, nodes: &Path) -> Result<()> {
        self.start_daemon_with(nodes, &[])
    }

    /// As [`Node::start_daemon`], with further arguments.
    pub fn start_daemon_with(&self, nodes: &Path, arguments: &[&str]) -> Result<()> {
        let mut daemon = self.daemon(nodes);
        daemon.args(arguments);
        self.start(daemon)
    }

    /// As [`Node::start_daemon`], with the nodes of the Kubernetes API that a kubeconfig leads to.
    pub fn start_daemon_of_cluster(&self, kubeconfig: &Path) -> Result<()> {
        let mut daemon = self.daemon_of_nowhere();
        daemon.arg("--kubeconfig").arg(kubeconfig);
        self.start(daemon)
    }

    /// The command line of the daemon.
    pub fn daemon(&self, nodes: &Path) -> Command {
        let mut daemon = self.daemon_of_nowhere();
        daemon.arg("--nodes").arg(nodes);
        daemon
    }

    /// The command line of the daemon, which does not say where the nodes are.
    fn daemon_of_nowhere(&self) -> Command {
        let mut daemon = self.minicnid("run");
        daemon.args(["--node-name", &self.name]).env("XTABLES_LOCKFILE", self.xtables_lock());
        daemon
    }

    /// Starts a daemon by its command line, which may begin with programs that execute the next, and waits until ADD can be
    /// served.
    pub fn start(&self, daemon: Command) -> Result<()> {
        let ready = self.state_dir().join("node.json");
        let written = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        let before = written(&ready);
        let mut daemon = self.spawn(daemon)?;
        let start = Instant::now();
        // Before it knows the node, a daemon tells no more than the datapath.
        let knows_node = || fs::read_to_string(&ready).is_ok_and(|facts| facts.contains("\"node\""));
        while written(&ready) == before || !knows_node() {
            let ended = daemon.try_wait()?;
            if ended.is_some() || start.elapsed() > START_LIMIT {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                bail!("the daemon on {} is not ready (ended: {ended:?}):\n{log}", self.name);
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Starts the daemon with further arguments, and does not wait for anything.
    pub fn spawn_daemon(&self, arguments: &[&str]) -> Result<Child> {
        let mut daemon = self.daemon_of_nowhere();
        daemon.args(arguments);
        self.spawn(daemon)
    }

    /// As [`Node::start`], and does not wait for anything.
    pub fn spawn(&self, mut daemon: Command) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.log())?;
        daemon.stdout(log.try_clone()?).stderr(log);
        let daemon = self.netns.run(|| daemon.spawn())?.with_context(|| format!("start minicnid on {}", self.name))?;
        fs::write(self.pid_file(), running::record(daemon.id().cast_signed()))?;
        Ok(daemon)
    }

    /// Ends the daemon as the system would.
    pub fn stop_daemon(&self) -> Result<()> {
        stop_daemon(&self.pid_file())
    }

    /// A directory of the node's files, made if there is none.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    /// The process id of the daemon that was started last.
    pub fn daemon_pid(&self) -> Result<i32> {
        let record = fs::read_to_string(self.pid_file()).context("no daemon was started")?;
        running::pid(&record).with_context(|| format!("read {}", self.pid_file().display()))
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join("daemon.pid")
    }

    /// A new sandbox on the node, with nothing in it.
    pub fn sandbox(&self, name: &str) -> Result<Pod> {
        let path = netns_path(&format!("{}-{name}", self.netns_name()));
        let mut config = serde_json::json!({
            "cniVersion": "1.1.0",
            "name": "pods",
            "type": "minicni",
            "stateDir": self.state_dir(),
            "bpfDir": self.bpf_dir(),
        });
        // Where there is no daemon to say it.
        if self.families == Families::V4 {
            config["subnet"] = serde_json::json!(self.pod_cidr());
        } else {
            let ranges = self.pod_cidrs().into_iter().map(|cidr| serde_json::json!([{ "subnet": cidr }]));
            config["ranges"] = ranges.collect();
        }
        Ok(Pod::new(name, Netns::create_named(&path)?, path, config, self.programs.minicni.clone()))
    }

    /// A new pod on the node, attached by the plugin.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let mut pod = self.sandbox(name)?;
        pod.add(self)?;
        Ok(pod)
    }

    /// The datapath's counters, zero where nothing is loaded.
    pub fn counters(&self) -> Counters {
        minicni::datapath::counters(&self.pins()).unwrap_or_default()
    }
}
