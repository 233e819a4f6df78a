//! The cluster for other tasks than the rows.

use std::{
    fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{CLUSTER, TOOLS, alone, bed::Bed, install};
use crate::{
    debian,
    lab::{self, kubernetes::Kubectl, runtime},
};

/// How many nodes it has.
const NODES: u8 = 2;

/// A cluster with a network. It is removed when this is dropped.
pub(crate) struct Lent {
    bed: Bed,
    _alone: UnixListener,
}

impl Lent {
    /// Starts the cluster with these archives of images on its nodes, and minicni as its network, or what other manifests
    /// install.
    pub(crate) fn start(images: Vec<PathBuf>, others: &[PathBuf], step: impl Fn(&str)) -> Result<Self> {
        lab::need_root()?;
        debian::need(&TOOLS)?;
        let alone = alone()?;
        let mut images = images;
        if others.is_empty() {
            step("the image of minicni");
            images.push(install::image()?);
        }
        let bed = Bed::without_network(CLUSTER, NODES, false, images, &step)?;
        step("the network");
        if others.is_empty() {
            install::apply(&bed.cluster)?;
        } else {
            bed.cluster.nodes.iter().try_for_each(|node| all_plugins(&node.path("/opt/cni/bin")))?;
            for manifest in others {
                let manifest = manifest.to_str().context("the path of a manifest is no text")?;
                bed.kubectl().run(&["apply", "-f", manifest])?;
            }
        }
        bed.wait_for_ready()?;
        Ok(Self { bed, _alone: alone })
    }

    /// kubectl for everything.
    pub(crate) fn kubectl(&self) -> &Kubectl {
        self.bed.kubectl()
    }
}

/// All plugins of the CNI project, as other networks expect them on a node.
fn all_plugins(to: &Path) -> Result<()> {
    for plugin in lab::entries(Path::new(runtime::PLUGINS))? {
        let name = plugin.file_name().context("a plugin has a name")?;
        fs::copy(&plugin, to.join(name)).with_context(|| format!("install {}", plugin.display()))?;
    }
    Ok(())
}
