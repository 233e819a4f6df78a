//! Nodes and pods, made of network namespaces: what the demo shows and the tests use.
//!
//! A lab has a name. Everything it makes bears it (namespaces `/run/netns/<lab>-…`, files below `/run/<lab>/`), so that
//! a run that was killed is cleaned up by the next one.

mod cgroups;
mod families;
mod first_process;
pub mod kubernetes;
mod node;
mod pod;
mod router;
pub mod rules;
mod running;
pub mod runtime;
pub mod traffic;

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use minicni::link::{MacAddress, Netns, Socket, VethEnd, address, link_up, sysctl, veth};
use nix::{
    mount::{MntFlags, umount2},
    net::if_::if_nametoindex,
    unistd::geteuid,
};
use rustix::process::Signal;

use self::running::Running;
pub use self::{
    families::Families,
    node::Node,
    pod::{Call, Pod},
};

/// The two programs under test.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The CNI plugin.
    pub minicni: PathBuf,
    /// The daemon.
    pub minicnid: PathBuf,
}

impl Programs {
    /// Those that cargo built into the same profile as the running test or task.
    pub fn beside_us() -> Result<Self> {
        let us = std::env::current_exe()?;
        let dir = us.ancestors().skip(1).find(|dir| dir.join("minicni").is_file());
        let dir = dir.context("the programs are not built; run `cargo build --workspace`, or `cargo xtask test`")?;
        Ok(Self::in_dir(dir))
    }

    /// Those in a directory.
    pub fn in_dir(dir: &Path) -> Self {
        Self { minicni: dir.join("minicni"), minicnid: dir.join("minicnid") }
    }
}

/// Two nodes with a wire between them, or one alone.
#[derive(Debug)]
pub struct Lab {
    name: String,
    programs: Programs,
    /// The nodes, `node1` first.
    pub nodes: Vec<Node>,
    /// What stands between the nodes, where they are not wired to each other.
    pub router: Option<Netns>,
    keep: bool,
}

impl Lab {
    /// Makes nodes that are wired to each other, with nothing running on them and IPv4 alone. What an earlier lab of this
    /// name left is removed first.
    pub fn new(name: &str, nodes: u8, programs: Programs) -> Result<Self> {
        Self::with_families(name, nodes, programs, Families::V4)
    }

    /// As [`Lab::new`], with these address families.
    pub fn with_families(name: &str, nodes: u8, programs: Programs, families: Families) -> Result<Self> {
        let lab = Self::unwired(name, nodes, programs, families)?;
        if let [one, other] = lab.nodes.as_slice() {
            wire(one, other)?;
        }
        Ok(lab)
    }

    /// Two nodes, each on a wire of its own to a router, as in clouds that give a node an address and nothing around it.
    pub fn routed(name: &str, programs: Programs, families: Families) -> Result<Self> {
        let mut lab = Self::unwired(name, 2, programs, families)?;
        lab.router = Some(router::between(name, &lab.nodes)?);
        Ok(lab)
    }

    fn unwired(name: &str, nodes: u8, programs: Programs, families: Families) -> Result<Self> {
        need_root()?;
        clean(name)?;
        let mut lab = Self { name: name.to_owned(), programs, nodes: Vec::new(), router: None, keep: false };
        fs::create_dir_all(directory(name)).context("create the directory of the lab")?;
        fs::create_dir_all(NETNS_DIR).context("create the directory of named namespaces")?;
        for number in 1..=nodes {
            lab.nodes.push(Node::new(name, number, &lab.programs, families)?);
        }
        fs::write(lab.nodes_file(), lab.nodes.iter().map(Node::yaml).collect::<Vec<_>>().join("---\n"))?;
        Ok(lab)
    }

    /// The file of Node objects that the daemons read.
    pub fn nodes_file(&self) -> PathBuf {
        directory(&self.name).join("nodes.yaml")
    }

    /// Starts a daemon on every node and waits until it has written `node.json`.
    pub fn start_daemons(&mut self) -> Result<()> {
        self.start_daemons_with(&[])
    }

    /// As [`Lab::start_daemons`], with further arguments.
    pub fn start_daemons_with(&mut self, arguments: &[&str]) -> Result<()> {
        let nodes_file = self.nodes_file();
        self.nodes.iter_mut().try_for_each(|node| node.start_daemon_with(&nodes_file, arguments))
    }

    /// Leaves everything as it is when the lab is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = clean(&self.name)
        {
            eprintln!("cleaning up {}: {error:#}", self.name);
        }
    }
}

/// Fails where we are not root, saying why that is needed.
pub fn need_root() -> Result<()> {
    if !geteuid().is_root() {
        bail!("nodes and pods are network namespaces, which only root can make; run it with `sudo -E`");
    }
    Ok(())
}

pub(crate) const NETNS_DIR: &str = "/run/netns";

/// Where the files of a lab are.
pub fn directory(lab: &str) -> PathBuf {
    Path::new("/run").join(lab)
}

pub(crate) fn netns_path(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// Removes everything that a lab of this name made, whoever made it and however far it came. What cannot be ended keeps
/// nothing else from it, but the lab's directory, which says to the next run what there is.
pub fn clean(name: &str) -> Result<()> {
    let dir = directory(name);
    let mut errors = Vec::new();
    for node in entries(&dir)? {
        let kubernetes = node.join(kubernetes::DIRECTORY);
        let ended = [stop_daemon(&node.join("daemon.pid")), runtime::end(&node), kubernetes::end_all(&kubernetes)];
        errors.extend(ended.into_iter().filter_map(Result::err));
        let bpf = node.join("bpf");
        // A mount of bpffs takes its pins along. Twice mounted, twice unmounted.
        while umount2(&bpf, MntFlags::MNT_DETACH).is_ok() {}
    }
    for netns in entries(Path::new(NETNS_DIR))? {
        if netns.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&format!("{name}-"))) {
            errors.extend(Netns::delete_named(&netns).err().map(anyhow::Error::from));
        }
    }
    if !errors.is_empty() {
        bail!("{}", errors.iter().map(|error| format!("{error:#}")).collect::<Vec<_>>().join("; "));
    }
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Lets the IPv6 addresses of a namespace's devices be used at once, also the link-local ones, without which the kernel does
/// not even ask for a neighbour. Else what is sent in the first second or two may wait for so long, or be lost.
pub fn without_dad(netns: &Netns) -> Result<()> {
    for scope in ["all", "default"] {
        netns.run(|| sysctl::write(&sysctl::device_key("ipv6", scope, "accept_dad")?, "0"))??;
    }
    Ok(())
}

/// What is in a directory; nothing if it is not there.
pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        // Beside the nodes' directories there are files.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("list {}", dir.display())),
        Ok(entries) => Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect()),
    }
}

/// Ends the daemon that a file [records](running::record), and waits until it is gone.
fn stop_daemon(file: &Path) -> Result<()> {
    let Ok(record) = fs::read_to_string(file) else { return Ok(()) };
    let Some(daemon) = Running::recorded(&record)? else { return Ok(()) };
    daemon.signal(Signal::TERM)?;
    if !daemon.ends_within(Duration::from_secs(2))? {
        daemon.signal(Signal::KILL)?;
        ensure!(daemon.ends_within(Duration::from_secs(20))?, "the daemon of {} does not end", file.display());
    }
    Ok(())
}

/// The uplink's name on every node.
pub const UPLINK: &str = "eth0";

/// Puts a veth pair between two nodes.
fn wire(one: &Node, other: &Node) -> Result<()> {
    let end =
        |node: &Node| VethEnd { name: UPLINK, ifindex: None, mac: MacAddress([2, 0, 0, 0, 1, node.number]), mtu: 1500 };
    let peer = std::os::fd::AsFd::as_fd(&other.netns);
    one.netns.run(|| -> Result<()> {
        Socket::open()?.batch(vec![veth(&end(one), &end(other), peer)?])?;
        Ok(())
    })??;
    [one, other].into_iter().try_for_each(|node| {
        node.netns.run(|| -> Result<()> {
            let ifindex = if_nametoindex(UPLINK)?;
            if node.families != Families::V4 {
                // Until its link-local address is proven unique, a node asks for no neighbour on behalf of others.
                sysctl::write(&sysctl::device_key("ipv6", UPLINK, "accept_dad")?, "0")?;
            }
            let addresses = families::uplink_addresses(node.families, node.number);
            let addresses = addresses.into_iter().map(|prefix| address(ifindex, prefix, true));
            Socket::open()?.batch(addresses.chain([link_up(ifindex)]).collect())?;
            Ok(())
        })?
    })
}
