//! What a container runtime needs of a node beside the network: mounts and processes of its own, and plugins.
//!
//! A host is a mount and a PID namespace. Whatever runs in it, conmon and containerd's shims too, ends with its first
//! process.

pub mod image;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Node, Programs, cgroups, first_process::FirstProcess};

/// The directory of a host, in that of its node.
const DIRECTORY: &str = "host";
/// How long a host may take to start.
const LIMIT: Duration = Duration::from_secs(10);
const SETUP: &str = include_str!("setup.sh");
/// Where Debian has the plugins of the CNI project.
pub const PLUGINS: &str = "/usr/lib/cni";

/// A node on which container runtimes can run. The lab ends it.
#[derive(Debug)]
pub struct Host {
    dir: PathBuf,
    cgroup: String,
    init: FirstProcess,
}

impl Host {
    /// Starts the host's first process, with the plugin under test and those of the CNI project in `/opt/cni/bin`.
    pub fn start(node: &Node, programs: &Programs) -> Result<Self> {
        let state = node.state_dir();
        let of_node = state.parent().context("a node has a directory")?;
        let lab = of_node.parent().context("a lab has a directory")?;
        let dir = of_node.join(DIRECTORY);
        let bin = dir.join("root/opt/cni/bin");
        fs::create_dir_all(&bin).with_context(|| format!("create {}", bin.display()))?;
        fs::copy(&programs.minicni, bin.join("minicni")).context("install the plugin")?;
        for plugin in super::entries(Path::new(PLUGINS))? {
            fs::copy(&plugin, bin.join(plugin.file_name().unwrap_or_default()))
                .context("install a plugin of Debian")?;
        }
        let setup = dir.join("setup.sh");
        fs::write(&setup, SETUP)?;
        let log = File::create(dir.join("setup.log"))?;
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "sh"]);
        unshare.arg(setup).args([&dir, lab]).stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut unshare = node.netns.run(|| unshare.spawn())?.context("start a host")?;
        let start = Instant::now();
        while !dir.join("ready").exists() {
            let ended = unshare.try_wait()?;
            if ended.is_some() || start.elapsed() > LIMIT {
                let log = fs::read_to_string(dir.join("setup.log")).unwrap_or_default();
                bail!("the host of {} is not ready (ended: {ended:?}):\n{log}", node.name);
            }
            sleep(Duration::from_millis(2));
        }
        let init = FirstProcess::of(&dir)?.context("a host that is ready has a first process")?;
        Ok(Self { cgroup: cgroup(of_node), dir, init })
    }

    /// A program's command line inside the host.
    pub fn command(&self, program: &str) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &self.init.pid.to_string(), "--mount", "--net", "--pid", "--root", "--wd", program]);
        nsenter.env_clear().envs([("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/tmp")]);
        nsenter
    }

    /// Runs a program inside the host and gives what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        crate::command::output(self.command(program).args(arguments))
    }

    /// Where a file of the host is for us. Only what is kept on a disk can be seen: `/etc/cni`, `/etc/containers`,
    /// `/opt`, `/tmp`, `/var/lib`, `/var/log`, `/var/tmp`.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.join("root").join(path.trim_start_matches('/'))
    }

    /// Writes a file of the host.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path(path);
        fs::create_dir_all(path.parent().context("a file has a directory")?)?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Makes a list of plugins the host's only network.
    pub fn network(&self, conflist: &Value) -> Result<()> {
        self.write("/etc/cni/net.d/10-pods.conflist", &conflist.to_string())
    }

    /// The cgroup below which runtimes make theirs; removed with the lab.
    pub fn cgroup(&self) -> String {
        format!("/{}", self.cgroup)
    }
}

/// Ends everything that runs on the host of a node, if it has one, and removes its cgroups.
pub(super) fn end(node: &Path) -> Result<()> {
    let Some(init) = FirstProcess::of(&node.join(DIRECTORY))? else { return Ok(()) };
    init.end()?;
    cgroups::remove(&cgroup(node))
}

/// The name of the cgroup of a node, which is that of its network namespace.
fn cgroup(node: &Path) -> String {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("{}-{}", node.parent().map(name).unwrap_or_default(), name(node))
}
