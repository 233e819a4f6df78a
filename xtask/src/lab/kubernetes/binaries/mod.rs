//! The programs of Kubernetes, from Debian's packages: built or unpacked once, and kept outside of the source tree.
//!
//! Nothing of this is installed: a compiler and an etcd that nobody asked for, which Debian would start, are not for the
//! machine. Every step is done again only if it did not come to its end.

mod source;

use std::{
    fs::{self, File},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context as _, Result};

use self::source::Source;
use super::VERSION;
use crate::debian::{self, Archive};

/// The release that has Kubernetes, and the compiler that builds it.
const RELEASE: &str = "bookworm";

/// One program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Component {
    /// The store behind the API server.
    Etcd,
    /// The command line client.
    Kubectl,
    /// The API server.
    ApiServer,
    /// It gives nodes their pod CIDRs, and makes pods out of Deployments.
    ControllerManager,
    /// It decides which pod runs where.
    Scheduler,
    /// The agent of every node.
    Kubelet,
    /// It translates the addresses of Services.
    Proxy,
}

impl Component {
    /// What an API server alone needs.
    pub const OF_API_SERVER: [Self; 3] = [Self::Etcd, Self::Kubectl, Self::ApiServer];
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Etcd,
        Self::Kubectl,
        Self::Kubelet,
        Self::ApiServer,
        Self::ControllerManager,
        Self::Scheduler,
        Self::Proxy,
    ];

    /// The name of the program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Kubectl => "kubectl",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kubelet => "kubelet",
            Self::Proxy => "kube-proxy",
        }
    }

    /// The Debian package that has it as a binary; that of Kubernetes has one for kubectl alone.
    fn package(self) -> Option<&'static str> {
        match self {
            Self::Etcd => Some("etcd-server"),
            Self::Kubectl => Some("kubernetes-client"),
            _ => None,
        }
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// The path of a program that was asked for.
    pub fn path(&self, component: Component) -> PathBuf {
        self.dir.join(component.program())
    }
}

/// Makes sure that these programs are there, building what is not. The first time takes minutes and says how far it is.
pub fn need(components: &[Component]) -> Result<Binaries> {
    let cache = directory()?;
    let binaries = Binaries { dir: cache.join("bin") };
    let missing = || {
        let components = components.iter().copied();
        components.filter(|component| !binaries.path(*component).is_file()).collect::<Vec<_>>()
    };
    if missing().is_empty() {
        return Ok(binaries);
    }
    fs::create_dir_all(&binaries.dir).with_context(|| format!("create {}", binaries.dir.display()))?;
    // Two builds at the same time would be the same work twice.
    let lock = File::create(cache.join("lock"))?;
    lock.lock().with_context(|| format!("lock {}", cache.display()))?;
    let apt = Archive::new(cache.join("apt"), RELEASE);
    let mut source = None;
    for component in missing() {
        let start = Instant::now();
        let program = component.program();
        let made = binaries.dir.join(format!(".{program}"));
        if let Some(package) = component.package() {
            fs::copy(apt.unpack(package)?.join("usr/bin").join(program), &made)
                .with_context(|| format!("copy {program} out of {package}"))?;
        } else {
            if source.is_none() {
                source = Some(Source::prepare(&cache, &apt)?);
            }
            source.as_ref().context("the source is prepared")?.build(program, &made)?;
        }
        fs::rename(&made, binaries.path(component))?;
        eprintln!("{program} is there after {:.0} s", start.elapsed().as_secs_f64());
    }
    Ok(binaries)
}

/// Where the programs are kept, and what they are built from: `~/.cache/minicni/kubernetes/<version>`.
pub fn directory() -> Result<PathBuf> {
    Ok(debian::cache()?.join("kubernetes").join(VERSION))
}
