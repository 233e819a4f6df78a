//! The cluster that is measured in: given, of kind, or of `cargo xtask e2e`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{Arguments, MINICNI, images};
use crate::{
    command,
    e2e::{self, Lent},
    lab::kubernetes::Kubectl,
};

/// The name of the cluster in kind.
const KIND: &str = "minicni-bench";

/// A kubeconfig and how to reach it, and whether the pods' image is there already. What was made for the run is removed
/// when this is dropped.
pub(super) struct Cluster {
    pub(super) kubectl: Kubectl,
    /// What it is, in words.
    pub(super) what: String,
    made: Made,
}

/// What ends with the run.
enum Made {
    Nothing,
    Kind(PathBuf),
    Here(#[expect(dead_code, reason = "it is dropped")] Box<Lent>),
}

impl Cluster {
    /// The cluster that the arguments ask for, with its network and the pods' image.
    pub(super) fn reach(arguments: &Arguments) -> Result<Self> {
        if let Some(kubeconfig) = &arguments.kubeconfig {
            let what = "a cluster that was there".to_owned();
            return Ok(Self { kubectl: Kubectl::of(kubeconfig)?, what, made: Made::Nothing });
        }
        let pods = command::root().join("target/minicni-bench-image.tar");
        let (manifests, mut archives) = images::of_network(arguments)?;
        if let Err(reason) = kind_works() {
            eprintln!("{reason:#}; the pods run in the cluster of cargo xtask e2e instead");
            if arguments.cni != MINICNI && manifests.is_empty() {
                bail!("without kind, the network {} has to come from --manifest", arguments.cni);
            }
            images::need(&manifests, &archives)?;
            images::write(&pods)?;
            archives.push(pods);
            for archive in &mut archives {
                // Nodes have another working directory.
                *archive = fs::canonicalize(&archive).with_context(|| format!("find {}", archive.display()))?;
            }
            let lent = Lent::start(archives, &manifests, |text| eprintln!("{text}"))?;
            let what = "2 nodes of cargo xtask e2e on one machine".to_owned();
            return Ok(Self { kubectl: lent.kubectl().clone(), what, made: Made::Here(Box::new(lent)) });
        }
        images::write(&pods)?;
        archives.push(pods);
        let kubeconfig = std::env::temp_dir().join(format!("{KIND}-{}", std::process::id()));
        let cluster = Self {
            kubectl: Kubectl::of(&kubeconfig)?,
            what: "kind, 1 control plane and 3 workers on one machine".to_owned(),
            made: Made::Kind(kubeconfig.clone()),
        };
        cluster.create(arguments.cni == MINICNI, &kubeconfig, &manifests, archives)?;
        Ok(cluster)
    }

    /// As deploy/kind/README.md says it.
    fn create(
        &self,
        minicni: bool,
        kubeconfig: &Path,
        manifests: &[PathBuf],
        mut archives: Vec<PathBuf>,
    ) -> Result<()> {
        let own = !minicni && manifests.is_empty();
        let config = fs::read_to_string(command::root().join("deploy/kind/config.yaml"))?;
        let config = if own { config.replace("disableDefaultCNI: true", "disableDefaultCNI: false") } else { config };
        let file = kubeconfig.with_extension("yaml");
        fs::write(&file, config)?;
        let created = kind(&["create", "cluster", "--config"], &[&file, Path::new("--kubeconfig"), kubeconfig]);
        fs::remove_file(&file)?;
        created?;
        if minicni {
            archives.push(e2e::image()?);
            let nodes = command::output(Command::new("kind").args(["get", "nodes", "--name", KIND]))?;
            for node in nodes.lines() {
                // Without it there is no fast path.
                let mount = ["exec", node, "mount", "-t", "bpf", "bpf", "/sys/fs/bpf"];
                command::run(Command::new("docker").args(mount))?;
            }
        }
        for archive in &archives {
            kind(&["load", "image-archive"], &[archive])?;
        }
        if minicni {
            let overlay = command::root().join("deploy/overlays/kind");
            self.kubectl.run(&["apply", "-k", text(&overlay)?])?;
        }
        for manifest in manifests {
            self.kubectl.run(&["apply", "-f", text(manifest)?])?;
        }
        self.kubectl.run(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=300s"]).map(drop)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Made::Kind(kubeconfig) = &self.made else { return };
        if let Err(error) = kind(&["delete", "cluster", "--kubeconfig"], &[kubeconfig]) {
            eprintln!("removing the cluster {KIND}: {error:#}");
        }
        let _ = fs::remove_file(kubeconfig);
    }
}

/// Fails, saying why, where kind cannot make a cluster.
fn kind_works() -> Result<()> {
    if command::find("kind").is_none() {
        bail!("kind is not installed");
    }
    let mut docker = Command::new("docker");
    let answers =
        docker.arg("info").stdout(Stdio::null()).stderr(Stdio::null()).status().context("docker is missing")?;
    if !answers.success() {
        bail!("no Docker answers, which kind needs");
    }
    Ok(())
}

/// Runs kind for our cluster.
fn kind(words: &[&str], paths: &[&Path]) -> Result<()> {
    let mut kind = Command::new("kind");
    kind.args(words).args(paths).args(["--name", KIND]).stdout(Stdio::from(std::io::stderr()));
    command::run(&mut kind)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("the path {} is no text", path.display()))
}
