//! A node that a kubelet can run on: namespaces and cgroups of its own, under a first process that takes all along.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use minicni::link::Netns;

use super::DNS_ADDRESS;
use crate::lab::{cgroups, first_process::FirstProcess};

/// How long a node may take to start.
const LIMIT: Duration = Duration::from_secs(20);
const SETUP: &str = include_str!("machine.sh");
const ENTER: &str = include_str!("enter.sh");

/// A running node.
#[derive(Debug)]
pub struct Machine {
    /// `node1`, `node2`.
    pub name: String,
    /// Where its disk, its logs and what is known of it are.
    dir: PathBuf,
    netns: PathBuf,
    pid: i32,
}

impl Machine {
    /// Starts the first process of a node, whose network namespace is made and wired. The disk of an earlier node of this
    /// directory is kept.
    pub(super) fn start(name: &str, dir: &Path, netns: &Path) -> Result<Self> {
        fs::create_dir_all(dir.join("log")).with_context(|| format!("create {}", dir.display()))?;
        for left in ["ready", "pid"] {
            let _ = fs::remove_file(dir.join(left));
        }
        let cgroup = netns.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let hierarchies = cgroups::hierarchies()?;
        for hierarchy in &hierarchies {
            cgroups::make(hierarchy, &cgroup)?;
        }
        let hierarchies: Vec<_> = hierarchies.iter().map(|path| path.display().to_string()).collect();
        fs::write(dir.join("cgroups"), hierarchies.join("\n") + "\n")?;
        fs::write(dir.join("cgroup"), &cgroup)?;
        fs::write(dir.join("machine.sh"), SETUP)?;
        fs::write(dir.join("enter.sh"), ENTER)?;
        let log = File::create(dir.join("log/machine.log"))?;
        let mut unshare = Command::new("sh");
        // A cgroup namespace begins where its first process is.
        unshare.args(["-euc", "while read -r c; do echo $$ >$c/$0/cgroup.procs; done <$1/cgroups; shift; exec \"$@\""]);
        unshare.arg(&cgroup).arg(dir);
        unshare.args(["unshare", "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--fork", "--kill-child"]);
        unshare.args(["--propagation", "private", "sh"]).arg(dir.join("machine.sh")).arg(dir);
        unshare.args([name, DNS_ADDRESS]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        unshare.process_group(0);
        let mut unshare = Netns::open(netns)?.run(|| unshare.spawn())?.with_context(|| format!("start {name}"))?;
        let start = Instant::now();
        while !dir.join("ready").exists() {
            let ended = unshare.try_wait()?;
            if ended.is_some() || start.elapsed() > LIMIT {
                let log = fs::read_to_string(dir.join("log/machine.log")).unwrap_or_default();
                bail!("{name} is not ready (ended: {ended:?}):\n{log}");
            }
            sleep(Duration::from_millis(5));
        }
        let pid = FirstProcess::of(dir)?.context("a node that is ready has a first process")?.pid;
        Ok(Self { name: name.to_owned(), dir: dir.to_owned(), netns: netns.to_owned(), pid })
    }

    /// The network namespace.
    pub fn netns(&self) -> Result<Netns> {
        Ok(Netns::open(&self.netns)?)
    }

    /// A program's command line inside the node.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut enter = Command::new("sh");
        enter.arg(self.dir.join("enter.sh")).arg(&self.dir).arg(program);
        // What containerd has, plugins get.
        enter.env_clear().envs([
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("LANG", "C.UTF-8"),
        ]);
        enter
    }

    /// Runs a program inside the node and gives what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self.command(program).args(arguments).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("{program} {} on {}: {}", arguments.join(" "), self.name, stderr.trim_end());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Starts a program inside the node, which ends with it at the latest. Its log is `log/<name>.log` of its directory.
    pub fn start_daemon(&self, name: &str, program: &Path, arguments: &[String]) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log(name))?;
        let mut daemon = self.command("setsid");
        daemon.args(["sh", "-c", "echo $$ >\"$0\"; exec \"$@\""]).arg(self.pid_file(name)).arg(program).args(arguments);
        // kubelet waits for a cloud that is not there.
        daemon.env("AWS_EC2_METADATA_DISABLED", "true");
        daemon.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        daemon.process_group(0);
        let _ = fs::remove_file(self.pid_file(name));
        daemon.spawn().with_context(|| format!("start {name} on {}", self.name))?;
        let start = Instant::now();
        while !fs::read_to_string(self.pid_file(name)).is_ok_and(|pid| pid.ends_with('\n')) {
            if start.elapsed() > LIMIT {
                bail!("{name} does not start on {}", self.name);
            }
            sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Kills a program of [`Machine::start_daemon`] with SIGKILL and waits until it is gone.
    pub fn kill_daemon(&self, name: &str) -> Result<()> {
        let pid = fs::read_to_string(self.pid_file(name)).with_context(|| format!("{name} was not started"))?;
        let script = "kill -9 $0; while kill -0 $0 2>/dev/null; do sleep 0.05; done";
        self.run("sh", &["-c", script, pid.trim()]).map(drop)
    }

    /// Loads the archive of an image.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let archive = archive.to_str().context("the path of an image is no text")?;
        self.run("ctr", &["--namespace", "k8s.io", "images", "import", archive]).map(drop)
    }

    /// Where the log of a program is.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join("log").join(format!("{name}.log"))
    }

    fn pid_file(&self, name: &str) -> PathBuf {
        self.dir.join("log").join(format!("{name}.pid"))
    }

    /// Where a file of the node is for us, as long as the node runs.
    pub fn path(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join("root").join(path.trim_start_matches('/'))
    }

    /// What a person types before a command to run it inside the node.
    pub fn prefix(&self) -> String {
        format!("sh {} {}", self.dir.join("enter.sh").display(), self.dir.display())
    }
}

/// Ends everything that runs on the node of a directory, and removes its cgroups.
pub(super) fn end(dir: &Path) -> Result<()> {
    if let Some(init) = FirstProcess::of(dir)? {
        init.end()?;
    }
    let Ok(cgroup) = fs::read_to_string(dir.join("cgroup")) else { return Ok(()) };
    cgroups::remove(&cgroup)
}
