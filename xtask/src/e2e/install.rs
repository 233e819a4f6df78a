//! How minicni gets into the cluster.

use std::{fs, path::Path, thread::sleep, time::Duration};

use anyhow::{Context as _, Result};

use super::{bed::wait, pods::plugin};
use crate::lab::{
    Programs,
    kubernetes::cluster::{Cluster, Machine},
};

const CONFLIST: &str = include_str!("../../../deploy/10-minicni.conflist");

/// Installs the plugin and starts the daemon on every node.
pub(super) fn install(cluster: &Cluster) -> Result<()> {
    install_on(cluster, &cluster.nodes)
}

/// The same on the node that came last.
pub(super) fn install_on_last(cluster: &Cluster) -> Result<()> {
    install_on(cluster, &cluster.nodes[cluster.nodes.len() - 1..])
}

/// Restarts the daemon of every node, one after the other.
pub(super) fn restart(cluster: &Cluster) -> Result<()> {
    let programs = Programs::beside_us()?;
    for node in &cluster.nodes {
        node.kill_daemon("minicnid")?;
        start_daemon(node, &programs, cluster.kubectl.kubeconfig())?;
        sleep(Duration::from_secs(5));
    }
    Ok(())
}

fn install_on(cluster: &Cluster, nodes: &[Machine]) -> Result<()> {
    let programs = Programs::beside_us()?;
    for node in nodes {
        start_daemon(node, &programs, cluster.kubectl.kubeconfig())?;
    }
    for node in nodes {
        wait(&format!("the daemon of {} knows its node", node.name), || {
            let facts = fs::read_to_string(node.path("/run/minicni/node.json")).unwrap_or_default();
            Ok(facts.contains("\"node\"").then_some(()))
        })?;
        let bin = node.path("/opt/cni/bin");
        fs::copy(&programs.minicni, bin.join("minicni")).context("install the plugin")?;
        for name in ["loopback", "portmap"] {
            fs::copy(plugin(name), bin.join(name)).with_context(|| format!("install {name}"))?;
        }
        let conf = node.path("/etc/cni/net.d");
        let mut conflist: serde_json::Value = serde_json::from_str(CONFLIST)?;
        let portmap = serde_json::json!({ "type": "portmap", "capabilities": { "portMappings": true } });
        conflist["plugins"].as_array_mut().context("a conflist has plugins")?.push(portmap);
        fs::write(conf.join(".10-minicni.tmp"), conflist.to_string())?;
        fs::rename(conf.join(".10-minicni.tmp"), conf.join("10-minicni.conflist"))?;
    }
    Ok(())
}

/// Starts the daemon of a node.
pub(super) fn start_daemon(node: &Machine, programs: &Programs, kubeconfig: &Path) -> Result<()> {
    let arguments = ["run", "--kubeconfig", &kubeconfig.display().to_string(), "--node-name", &node.name];
    node.start_daemon("minicnid", &programs.minicnid, &arguments.map(str::to_owned))
}
