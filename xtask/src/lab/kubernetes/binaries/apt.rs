//! Debian's archive, read with a configuration of our own: the machine's sources, lists and packages stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::whole;
use crate::{command, debian};

/// The release that has Kubernetes, and the compiler that builds it.
const RELEASE: &str = "bookworm";
/// Where Debian is, unless apt is set up for a mirror.
const ARCHIVE: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Debian's version of Kubernetes.
const KUBERNETES: &str = "1.20.5+really1.20.2-1.1+deb12u1";

pub(super) struct Apt {
    dir: PathBuf,
}

impl Apt {
    pub(super) fn new(cache: &Path) -> Self {
        Self { dir: cache.join("apt") }
    }

    /// Unpacks a package, without installing it, and says where.
    pub(super) fn unpack(&self, package: &str) -> Result<PathBuf> {
        let unpacked = self.dir.join("unpacked").join(package);
        whole(&unpacked, |to| self.unpack_into(package, to))?;
        Ok(unpacked)
    }

    /// Unpacks a package into a directory, beside what is there.
    pub(super) fn unpack_into(&self, package: &str, dir: &Path) -> Result<()> {
        eprintln!("fetching Debian's {package}");
        let download = self.download_dir(package)?;
        command::run(self.get()?.current_dir(&download).args(["download", package]))?;
        let mut archives = fs::read_dir(&download)?.filter_map(|entry| Some(entry.ok()?.path()));
        let archive = archives.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
        let archive = archive.with_context(|| format!("apt-get brought no {package}"))?;
        command::run(Command::new("dpkg").arg("--extract").arg(archive).arg(dir))?;
        Ok(fs::remove_dir_all(download)?)
    }

    /// Unpacks the source of Kubernetes, with Debian's patches, as a directory that is not there yet.
    pub(super) fn kubernetes(&self, dir: &Path) -> Result<()> {
        debian::need(&[debian::Tool {
            program: "dpkg-source",
            package: "dpkg-dev",
            purpose: "the source of Kubernetes is unpacked with it",
        }])?;
        eprintln!("fetching Debian's source of Kubernetes {KUBERNETES}");
        let download = self.download_dir("source")?;
        let package = format!("kubernetes={KUBERNETES}");
        command::run(self.get()?.current_dir(&download).args(["source", "--download-only", &package]))?;
        // apt has checked the hashes, which the signed index has; the maintainer's key need not be here.
        let mut unpack = Command::new("dpkg-source");
        unpack.args(["--no-check", "--extract"]).arg(download.join(format!("kubernetes_{KUBERNETES}.dsc"))).arg(dir);
        command::run(unpack.stdout(Stdio::null()))?;
        Ok(fs::remove_dir_all(download)?)
    }

    fn download_dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join("download").join(name);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(dir)
    }

    /// The command line of apt-get with our lists, fetched if they are not there.
    fn get(&self) -> Result<Command> {
        let lists = self.dir.join("lists");
        if !lists.exists() {
            for tool in ["apt-get", "dpkg"] {
                if command::find(tool).is_none() {
                    bail!(
                        "{tool} is missing: Kubernetes is taken from Debian's packages, on Debian or a relative of it"
                    );
                }
            }
            if !Path::new(KEYRING).is_file() {
                bail!("{KEYRING} is missing: install the package debian-archive-keyring");
            }
            whole(&lists, |lists| {
                fs::write(self.dir.join("debian.sources"), sources(&archive()))?;
                fs::create_dir_all(lists.join("partial"))?;
                command::run(self.command(lists).arg("update"))
            })?;
        }
        Ok(self.command(&lists))
    }

    fn command(&self, lists: &Path) -> Command {
        let mut apt = Command::new("apt-get");
        let options = [
            ("Dir::Etc::sourcelist", self.dir.join("debian.sources")),
            ("Dir::Etc::sourceparts", "-".into()),
            ("Dir::State::lists", lists.into()),
            ("Dir::Cache", self.dir.join("cache")),
            // Who else would fetch as `_apt` cannot enter root's home.
            ("APT::Sandbox::User", "root".into()),
        ];
        for (key, value) in options {
            apt.arg("-o").arg(format!("{key}={}", value.display()));
        }
        apt.arg("-qq").stdout(Stdio::from(std::io::stderr()));
        apt
    }
}

/// The archive from which this machine has its Debian.
fn archive() -> String {
    let mut targets = Command::new("apt-get");
    let targets = command::output(targets.args(["indextargets", "--format", "$(REPO_URI)"])).unwrap_or_default();
    let mirror = targets.lines().find(|uri| uri.trim_end_matches('/').ends_with("/debian"));
    mirror.unwrap_or(ARCHIVE).to_owned()
}

fn sources(archive: &str) -> String {
    format!("Types: deb deb-src\nURIs: {archive}\nSuites: {RELEASE}\nComponents: main\nSigned-By: {KEYRING}\n")
}
