//! Debian's archive, read with a configuration of our own: the machine's sources, lists and packages stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{Tool, need};
use crate::command;

/// Where Debian is, unless apt is set up for a mirror.
const ARCHIVES: &str = "http://deb.debian.org";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A release of Debian, with a directory for what is fetched of it.
#[derive(Clone, Debug)]
pub struct Archive {
    dir: PathBuf,
    release: String,
    /// Whether what has security updates is taken with them.
    updated: bool,
}

impl Archive {
    /// A release by its name, such as `bookworm`. Nothing is fetched yet.
    pub fn new(dir: PathBuf, release: impl Into<String>) -> Self {
        Self { dir, release: release.into(), updated: false }
    }

    /// The same release with its security updates.
    #[must_use]
    pub fn updated(self) -> Self {
        Self { updated: true, ..self }
    }

    /// Unpacks a package, without installing it, and says where.
    pub fn unpack(&self, package: &str) -> Result<PathBuf> {
        let unpacked = self.dir.join("unpacked").join(package);
        whole(&unpacked, |to| self.unpack_into(package, to))?;
        Ok(unpacked)
    }

    /// Unpacks a package into a directory, beside what is there.
    pub fn unpack_into(&self, package: &str, dir: &Path) -> Result<()> {
        eprintln!("fetching Debian's {package}");
        let download = self.download_dir(package)?;
        command::run(self.get()?.current_dir(&download).args(["download", package]))?;
        let mut archives = fs::read_dir(&download)?.filter_map(|entry| Some(entry.ok()?.path()));
        let archive = archives.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
        let archive = archive.with_context(|| format!("apt-get brought no {package}"))?;
        command::run(Command::new("dpkg").arg("--extract").arg(archive).arg(dir))?;
        Ok(fs::remove_dir_all(download)?)
    }

    /// Unpacks packages into a directory, and what else apt would install on this machine for them, which has to be of the
    /// same release. Nothing is installed, and the directory is to be laid over the machine's: what is installed is not in it.
    pub fn unpack_missing(&self, packages: &[&str], dir: &Path) -> Result<()> {
        eprintln!("fetching Debian's {}", packages.join(", "));
        let download = self.download_dir("missing")?;
        fs::create_dir_all(download.join("partial"))?;
        let mut get = self.get()?;
        // Only what is installed is read of the machine, so its lock is not needed.
        get.args(["-o", "Debug::NoLocking=true", "-o"]).arg(format!("Dir::Cache::archives={}", download.display()));
        get.args(["install", "--download-only", "--yes", "--no-install-recommends"]).args(packages);
        command::run(&mut get)?;
        for entry in fs::read_dir(&download)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                command::run(Command::new("dpkg").arg("--extract").arg(path).arg(dir))?;
            }
        }
        // Some packages still name their files as they were called before /lib was a link.
        for name in ["bin", "lib", "sbin"] {
            let (from, to) = (dir.join(name), dir.join("usr").join(name));
            if from.is_dir() {
                fs::create_dir_all(&to)?;
                command::run(Command::new("cp").arg("--archive").arg(from.join(".")).arg(to))?;
                fs::remove_dir_all(from)?;
            }
        }
        Ok(fs::remove_dir_all(download)?)
    }

    /// Unpacks the source of a package, with Debian's patches, as a directory that is not there yet.
    pub fn unpack_source(&self, package: &str, version: &str, dir: &Path) -> Result<()> {
        need(&[Tool {
            program: "dpkg-source",
            package: "dpkg-dev",
            purpose: "sources of Debian are unpacked with it",
        }])?;
        eprintln!("fetching Debian's source of {package} {version}");
        let download = self.download_dir("source")?;
        let source = format!("{package}={version}");
        command::run(self.get()?.current_dir(&download).args(["source", "--download-only", &source]))?;
        // apt has checked the hashes, which the signed index has; the maintainer's key need not be here.
        let mut unpack = Command::new("dpkg-source");
        unpack.args(["--no-check", "--extract"]).arg(download.join(format!("{package}_{version}.dsc"))).arg(dir);
        command::run(unpack.stdout(Stdio::null()))?;
        Ok(fs::remove_dir_all(download)?)
    }

    /// The packages that a package depends on, and those that these depend on, with itself.
    pub fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        self.get()?;
        let mut cache = Command::new("apt-cache");
        let kinds = ["pre-depends", "recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"];
        cache.args(self.options(&self.lists())).args(["depends", "--recurse"]);
        cache.args(kinds.map(|kind| format!("--no-{kind}"))).arg(package);
        let answer = command::output(&mut cache)?;
        // A package's name begins its line, what it depends on is indented.
        let names = answer.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_alphanumeric()));
        Ok(names.map(str::to_owned).collect())
    }

    fn download_dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join("download").join(name);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(dir)
    }

    /// The command line of apt-get with our lists, fetched if they are not there.
    fn get(&self) -> Result<Command> {
        let lists = self.lists();
        if !lists.exists() {
            for tool in ["apt-get", "dpkg"] {
                if command::find(tool).is_none() {
                    bail!(
                        "{tool} is missing: what is needed is taken from Debian's packages, on Debian or a relative of it"
                    );
                }
            }
            if !Path::new(KEYRING).is_file() {
                bail!("{KEYRING} is missing: install the package debian-archive-keyring");
            }
            whole(&lists, |lists| {
                fs::write(self.dir.join("debian.sources"), self.sources())?;
                fs::create_dir_all(lists.join("partial"))?;
                command::run(self.command(lists).arg("update"))
            })?;
        }
        Ok(self.command(&lists))
    }

    fn sources(&self) -> String {
        let source = |archive: &str, suite: &str| {
            format!("Types: deb deb-src\nURIs: {archive}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n")
        };
        let mut sources = source(&archive("debian"), &self.release);
        if self.updated {
            sources.push('\n');
            sources.push_str(&source(&archive("debian-security"), &format!("{}-security", self.release)));
        }
        sources
    }

    fn lists(&self) -> PathBuf {
        self.dir.join("lists")
    }

    fn command(&self, lists: &Path) -> Command {
        let mut apt = Command::new("apt-get");
        apt.args(self.options(lists)).arg("-qq").stdout(Stdio::from(std::io::stderr()));
        apt
    }

    /// What keeps apt to our directory.
    fn options(&self, lists: &Path) -> Vec<String> {
        let options = [
            ("Dir::Etc::sourcelist", self.dir.join("debian.sources")),
            ("Dir::Etc::sourceparts", "-".into()),
            ("Dir::State::lists", lists.into()),
            ("Dir::Cache", self.dir.join("cache")),
            // Who else would fetch as `_apt` cannot enter root's home.
            ("APT::Sandbox::User", "root".into()),
        ];
        let words = options.map(|(key, value)| ["-o".to_owned(), format!("{key}={}", value.display())]);
        words.into_iter().flatten().collect()
    }
}

/// The archive of this name from which this machine has its Debian.
fn archive(name: &str) -> String {
    let mut targets = Command::new("apt-get");
    let targets = command::output(targets.args(["indextargets", "--format", "$(REPO_URI)"])).unwrap_or_default();
    let is_it = |uri: &&str| uri.trim_end_matches('/').rsplit('/').next() == Some(name);
    targets.lines().find(is_it).map_or_else(|| format!("{ARCHIVES}/{name}"), str::to_owned)
}

/// Makes a directory by what fills it, so that it is there in full or not at all.
pub fn whole(dir: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if dir.exists() {
        return Ok(());
    }
    let part = dir.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part).with_context(|| format!("remove {}", part.display()))?;
    }
    fs::create_dir_all(&part).with_context(|| format!("create {}", part.display()))?;
    fill(&part)?;
    fs::rename(&part, dir).with_context(|| format!("rename to {}", dir.display()))
}

/// Where what was fetched or built is kept between runs: `~/.cache/minicni`, or below `$XDG_CACHE_HOME`.
pub fn cache() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let cache = cache.context("neither XDG_CACHE_HOME nor HOME says where to keep what is fetched and built")?;
    Ok(cache.join("minicni"))
}
