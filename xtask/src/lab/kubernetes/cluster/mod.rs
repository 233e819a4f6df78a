//! A cluster on one machine: a control plane and nodes with kubelet, containerd and kube-proxy, on a network of their own.
//!
//! Everything bears the name of the cluster (namespaces `/run/netns/<name>-…`, cgroups `<name>-…`, the directory
//! `/var/tmp/<name>`), so that what a run that was killed left is removed by the next one.

mod controllers;
pub mod images;
mod machine;
mod node_agents;
mod underlay;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use minicni::link::Netns;

pub use self::{
    machine::Machine,
    underlay::{OUTSIDE, OUTSIDE6, Place},
};
use self::{node_agents::NodeAgents, underlay::Underlay};
use super::{
    ApiServer, Component, Identity, Kubectl, Process,
    binaries::{self, Binaries},
    end_all,
};
use crate::lab::{entries, need_root};

/// The networks of pods, of both families; each node gets a /24 and a /64 of them.
pub const POD_CIDRS: &str = "10.244.0.0/16,fd44::/48";
/// The address of the cluster's DNS.
pub const DNS_ADDRESS: &str = "10.96.0.10";
/// The directory of the control plane, in that of its cluster.
const CONTROL: &str = "control";

/// A running cluster. It is removed when this is dropped, unless it is kept.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    /// kubectl for everything.
    pub kubectl: Kubectl,
    /// The nodes, `node1` first.
    pub nodes: Vec<Machine>,
    agents: NodeAgents,
    controllers: Vec<Process>,
    api_server: ApiServer,
    underlay: Underlay,
    keep: bool,
}

impl Cluster {
    /// Starts a control plane, and nodes with all that a node has, but no network for pods. What an earlier cluster of this
    /// name left is removed first.
    pub fn start(name: &str, nodes: u8, step: impl FnMut(&str)) -> Result<Self> {
        need_root()?;
        let binaries = binaries::need(&Component::ALL)?;
        clean(name)?;
        Self::build(name, nodes, binaries, step).inspect_err(|_| {
            if let Err(error) = clean(name) {
                eprintln!("cleaning up {name}: {error:#}");
            }
        })
    }

    fn build(name: &str, nodes: u8, binaries: Binaries, mut step: impl FnMut(&str)) -> Result<Self> {
        step("the network between the nodes, and the control plane");
        let dir = directory(name);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let underlay = Underlay::create(name)?;
        underlay.attach(Place::Outside)?;
        let control = underlay.attach(Place::Control)?;
        let control_dir = dir.join(CONTROL);
        let api_server = ApiServer::start(&control_dir, &control, &Place::Control.addresses())?;
        let controllers = controllers::start(&control_dir, &control, &binaries, &api_server)?;
        let mut cluster = Self {
            name: name.to_owned(),
            kubectl: api_server.kubectl(),
            nodes: Vec::new(),
            agents: NodeAgents::new(binaries, &api_server)?,
            controllers,
            api_server,
            underlay,
            keep: false,
        };
        for number in 1..=nodes {
            step(&format!("node{number}: containerd, kubelet, kube-proxy"));
            cluster.add_node(number)?;
        }
        Ok(cluster)
    }

    /// Ends the machine of the last node, with its disk. Its object stays.
    pub fn remove_last_node(&mut self) -> Result<()> {
        let node = self.nodes.pop().context("a cluster has nodes")?;
        let place = Place::Node(u8::try_from(self.nodes.len())? + 1);
        let dir = directory(&self.name).join(&node.name);
        machine::end(&dir)?;
        self.underlay.detach(place)?;
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))
    }

    /// Starts a node of this number, which is to be the next.
    pub fn add_node(&mut self, number: u8) -> Result<()> {
        let place = Place::Node(number);
        let netns = self.underlay.attach(place)?;
        let name = format!("node{number}");
        let machine = Machine::start(&name, &directory(&self.name).join(&name), &netns)?;
        self.api_server.authority.kubeconfig(&name, &Identity::node(&name), &self.api_server.url())?;
        self.agents.start_all(&machine, place)?;
        self.nodes.push(machine);
        Ok(())
    }

    /// Starts the kubelet of a node again, after [`Machine::kill_daemon`].
    pub fn start_kubelet(&self, node: &Machine) -> Result<()> {
        self.agents.start_kubelet(node)
    }

    /// Starts the containerd of a node again, after [`Machine::kill_daemon`].
    pub fn start_containerd(&self, node: &Machine) -> Result<()> {
        NodeAgents::start_containerd(node)
    }

    /// The namespace of a host that is outside of the cluster and knows no pod network.
    pub fn outside(&self) -> Result<Netns> {
        Ok(Netns::open(self.underlay.path(Place::Outside))?)
    }

    /// Leaves everything as it is when this is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
        self.api_server.keep();
        self.controllers.iter_mut().for_each(Process::keep);
    }

    /// What a person may type while the cluster is kept.
    pub fn invitation(&self) -> String {
        let kubectl = crate::command::shown(&self.kubectl.command(&[]));
        let control = self.underlay.path(Place::Control);
        let nodes = self.nodes.iter().map(|node| format!("\n  {} ip route", node.prefix()));
        format!(
            "The cluster stays. Look at it, for example:\n\n  nsenter --net={} {kubectl} get pods -A -o wide{}\n\n\
             Remove it with: cargo xtask e2e --clean\n",
            control.display(),
            nodes.collect::<String>()
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = clean(&self.name)
        {
            eprintln!("cleaning up {}: {error:#}", self.name);
        }
    }
}

/// Where the files of a cluster are: on a disk, as images are large.
pub fn directory(name: &str) -> PathBuf {
    Path::new("/var/tmp").join(name)
}

/// Removes everything that a cluster of this name made, whoever made it and however far it came.
pub fn clean(name: &str) -> Result<()> {
    let dir = directory(name);
    for part in entries(&dir)?.iter().filter(|part| part.is_dir()) {
        machine::end(part)?;
        end_all(part)?;
    }
    underlay::remove(name)?;
    // Those of nodes went with them. To remove what is mounted would be to remove what is not ours.
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    if let Some(mount) = mounts.lines().find(|mount| mount.contains(&format!(" {}/", dir.display()))) {
        bail!("{} is not removed, as something is mounted in it: {mount}", dir.display());
    }
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
