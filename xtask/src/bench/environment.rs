use std::{fmt, fs, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::command;

/// Where and when it was measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Environment {
    /// UTC, at the end.
    pub(super) date: String,
    pub(super) seconds: u64,
    pub(super) kernel: String,
    pub(super) cpus: usize,
    pub(super) cpu: String,
    /// Processes that ran or waited for a CPU, the average of a minute, before the run and at its end.
    pub(super) load: [f64; 2],
    /// What was measured: the tag or commit of the source tree.
    pub(super) minicni: String,
    /// What it was measured against: Debian's version of containernetworking-plugins.
    pub(super) plugins: String,
}

impl Environment {
    pub(super) fn found(load_before: f64, took: Duration) -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        // Not whether the tree was changed: the redirected output is a change already.
        let git = ["describe", "--always", "--tags"];
        let version = ["--show", "--showformat=${Version}", "containernetworking-plugins"];
        Ok(Self {
            date: command::output(Command::new("date").args(["--utc", "+%Y-%m-%d %H:%M"]))?,
            seconds: took.as_secs(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpus: thread::available_parallelism()?.get(),
            cpu: model.map_or("unknown", |(_, model)| model).to_owned(),
            load: [load_before, load()?],
            // Neither git nor dpkg need be there.
            minicni: command::output(Command::new("git").args(git).current_dir(command::root()))
                .unwrap_or_else(|_| env!("CARGO_PKG_VERSION").to_owned()),
            plugins: command::output(Command::new("dpkg-query").args(version)).unwrap_or_else(|_| "unknown".to_owned()),
        })
    }
}

impl fmt::Display for Environment {
    /// When and where, for the notes below a table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, seconds, kernel, cpus, cpu, load: [before, after], .. } = self;
        write!(
            f,
            "{date} in {seconds} s: Linux {kernel}, {cpus} CPUs ({cpu}), load {before} before and {after} at the end, the \
             benchmark's own included"
        )
    }
}

/// The load of the last minute.
pub(super) fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    text.split(' ').next().and_then(|first| first.parse().ok()).context("/proc/loadavg does not begin with a number")
}
