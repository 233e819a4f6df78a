//! What the daemon costs, and what it did to the routes.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use minicni::link::{RouteFilter, Socket};

use super::objects::pod_network;
use crate::lab::Node;

/// How long routes may take, before something is wrong and not slow.
const LIMIT: Duration = Duration::from_mins(2);

/// A daemon that follows the nodes of an API server.
pub(super) struct Daemon<'a> {
    node: &'a Node,
    process: Child,
    started: Instant,
}

impl<'a> Daemon<'a> {
    pub(super) fn start(node: &'a Node, kubeconfig: &Path) -> Result<Self> {
        let kubeconfig = kubeconfig.to_str().context("the path of the kubeconfig is no text")?;
        let started = Instant::now();
        Ok(Self { node, process: node.spawn_daemon(&["--kubeconfig", kubeconfig])?, started })
    }

    /// The time from its start until there are so many routes.
    pub(super) fn until_routes(&mut self, count: usize) -> Result<Duration> {
        while routes(self.node)? != count {
            if let Some(status) = self.process.try_wait()? {
                bail!("the daemon ended with {status}: {}", self.log());
            }
            if self.started.elapsed() > LIMIT {
                bail!("{} routes instead of {count}: {}", routes(self.node)?, self.log());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(self.started.elapsed())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.node.log()).unwrap_or_default()
    }

    /// Ends it, and removes what it made: the next start is a cold one.
    pub(super) fn end(mut self) -> Result<()> {
        self.node.stop_daemon()?;
        // It may have been waited for already.
        let _ = self.process.wait();
        self.node.run(Command::new("ip").args(["route", "flush", "proto", &protocol()]))?;
        for dir in [self.node.state_dir(), self.node.bpf_dir()] {
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// A line of its memory in `/proc`, such as `VmRSS`, in MB.
    pub(super) fn memory(&self, line: &str) -> Result<f64> {
        let status = fs::read_to_string(self.proc().join("status"))?;
        let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        let kilobytes = value.and_then(|value| value.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kilobytes.with_context(|| format!("no {line}"))? * 1024.0 / 1e6)
    }

    /// The CPU time that it has used.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let mut nanoseconds = 0;
        for task in fs::read_dir(self.proc().join("task"))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split(' ').next().and_then(|first| first.parse::<u64>().ok());
            nanoseconds += first.context("schedstat does not begin with a number")?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    fn proc(&self) -> PathBuf {
        Path::new("/proc").join(self.process.id().to_string())
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn protocol() -> String {
    minicni::daemon::plan::ROUTE_PROTOCOL.to_string()
}

/// How many routes to nodes there are.
fn routes(node: &Node) -> Result<usize> {
    let filter = RouteFilter { protocol: Some(minicni::daemon::plan::ROUTE_PROTOCOL), ifindex: None };
    node.netns.run(|| Ok(Socket::open()?.routes(filter)?.len()))?
}

/// Runs something, and gives the time from its begin until a node has a route, or has none. That is asked in microseconds:
/// where there is no route, connecting fails.
pub(super) fn until_route(
    node: &Node,
    number: u32,
    there: bool,
    begin: impl FnOnce() -> Result<()> + Send,
) -> Result<Duration> {
    let pod = Ipv4Addr::from_bits(pod_network(number).to_bits() + 1);
    let has_route = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).is_ok_and(|socket| socket.connect((pod, 9)).is_ok());
    std::thread::scope(|scope| {
        let start = Instant::now();
        let beginning = scope.spawn(begin);
        let took = node.netns.run(|| {
            while has_route() != there {
                if start.elapsed() > LIMIT {
                    bail!("node {number}: no change of its route");
                }
                sleep(Duration::from_micros(200));
            }
            Ok(start.elapsed())
        })?;
        beginning.join().unwrap_or_else(|_| bail!("the request panicked"))?;
        took
    })
}

/// Counts changes of routes, by whomever, from its start until it is asked.
pub(super) struct Changes {
    monitor: Child,
    file: PathBuf,
}

impl Changes {
    pub(super) fn watch(node: &Node, file: PathBuf) -> Result<Self> {
        let output = fs::File::create(&file)?;
        let mut monitor = Command::new("ip");
        monitor.args(["monitor", "route"]).stdin(Stdio::null()).stdout(output);
        let monitor = node.netns.run(|| monitor.spawn())?.context("run ip monitor")?;
        // It says nothing when it listens.
        sleep(Duration::from_millis(500));
        Ok(Self { monitor, file })
    }

    pub(super) fn count(&self) -> Result<usize> {
        Ok(fs::read_to_string(&self.file)?.lines().count())
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}
