//! How minicni gets into the cluster: as users bring it there, by the image and the manifest.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::pods::plugin;
use crate::{
    command,
    lab::kubernetes::{
        Kubectl,
        cluster::{Cluster, Machine},
    },
};

/// What users apply.
const MANIFEST: &str = "deploy/minicni.yaml";
pub(super) const NAMESPACE: &str = "kube-system";
const DAEMON_SET: &str = "daemonset/minicni";

/// Builds the image of minicni, and says where its archive is.
pub(crate) fn image() -> Result<PathBuf> {
    let archive = command::root().join("target/minicni-image.tar");
    fs::create_dir_all(command::root().join("target"))?;
    let mut image = Command::new(std::env::current_exe()?);
    // Nothing but the table is to be on stdout.
    image.arg("image").arg("--output").arg(&archive).stdout(Stdio::from(std::io::stderr()));
    command::run(image.current_dir(command::root()))?;
    Ok(archive)
}

/// Puts the plugins of the CNI project on a node, as its distribution would.
pub(super) fn prepare(node: &Machine) -> Result<()> {
    for name in ["loopback", "portmap", "bandwidth"] {
        fs::copy(plugin(name), node.path("/opt/cni/bin").join(name)).with_context(|| format!("install {name}"))?;
    }
    Ok(())
}

/// Has the API server look at the manifest, and applies it.
pub(super) fn apply(cluster: &Cluster) -> Result<()> {
    let manifest = command::root().join(MANIFEST);
    let manifest = manifest.to_str().context("the path of the manifest is no text")?;
    cluster.kubectl.run(&["apply", "--validate=true", "--dry-run=server", "-f", manifest])?;
    cluster.kubectl.run(&["apply", "-f", manifest])?;
    wait(&cluster.kubectl)
}

/// Restarts the daemons as an upgrade does it.
pub(super) fn restart(cluster: &Cluster) -> Result<()> {
    cluster.kubectl.run(&["-n", NAMESPACE, "rollout", "restart", DAEMON_SET])?;
    wait(&cluster.kubectl)
}

/// Waits until every node has a daemon that is ready.
pub(super) fn wait(kubectl: &Kubectl) -> Result<()> {
    let ready = kubectl.run(&["-n", NAMESPACE, "rollout", "status", DAEMON_SET, "--timeout=180s"]);
    ready.map(drop).map_err(|error| {
        let log = kubectl.run(&["-n", NAMESPACE, "logs", DAEMON_SET, "--tail=20"]);
        error.context(log.unwrap_or_else(|error| error.to_string()))
    })
}
