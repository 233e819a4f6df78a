//! What the daemons of the `DaemonSet` cost while the rows are looked at.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle, sleep},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;

/// How often they are looked at. What a daemon costs after the last look before its end is missed.
const TURN: Duration = Duration::from_secs(1);
/// Where the hierarchies of cgroups are mounted: that of memory in version 1, and the only one in version 2.
const MEMORY: [&str; 2] = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"];

/// What the daemons of one node cost.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Cost {
    pub(super) node: String,
    /// How many there were, one after another.
    pub(super) daemons: usize,
    /// What the first took at the first look, in bytes.
    pub(super) first: Memory,
    /// What the last took at the last look.
    pub(super) last: Memory,
    /// The most of each that was seen.
    pub(super) most: Memory,
    /// CPU time of all, in seconds, with that of the programs that they executed.
    pub(super) cpu_seconds: f64,
    /// How long they ran, in seconds, together.
    pub(super) seconds: f64,
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub(super) struct Memory {
    /// The resident set of the process.
    pub(super) resident: u64,
    /// What the container uses, less the cached files that the kernel would drop first: what `kubectl top` shows, and kubelet
    /// evicts by. The kernel counts the eBPF maps there, too.
    pub(super) working_set: u64,
}

/// A daemon at one look.
#[derive(Clone, Debug)]
struct Seen {
    node: String,
    memory: Memory,
    cpu_seconds: f64,
    seconds: f64,
}

/// A process: its id, and when it began.
type Process = (i32, u64);

/// Looks at the daemons until it is told to stop.
pub(super) struct Daemons {
    end: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Cost>>,
}

impl Daemons {
    /// Begins to look at the daemons on the nodes of a cluster.
    pub(super) fn watch(cluster: &'static str) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let end = Arc::clone(&end);
            move || {
                let mut watched = Watched::default();
                while !end.load(Relaxed) {
                    watched.look(cluster);
                    sleep(TURN);
                }
                watched.costs.into_values().collect()
            }
        });
        Self { end, thread }
    }

    /// What they cost, by node.
    pub(super) fn finish(self) -> Result<Vec<Cost>> {
        self.end.store(true, Relaxed);
        let Ok(costs) = self.thread.join() else { bail!("the watch over the daemons panicked") };
        Ok(costs)
    }
}

#[derive(Default)]
struct Watched {
    costs: BTreeMap<String, Cost>,
    /// The CPU time and age of each daemon as it was last seen.
    seen: BTreeMap<Process, (f64, f64)>,
}

impl Watched {
    fn look(&mut self, cluster: &str) {
        for process in crate::lab::entries(Path::new("/proc")).unwrap_or_default() {
            // One that ends meanwhile is no error.
            if let Ok(Some((process, seen))) = daemon(&process, cluster) {
                self.note(process, &seen);
            }
        }
    }

    fn note(&mut self, process: Process, seen: &Seen) {
        let cost = self.costs.entry(seen.node.clone()).or_default();
        let before = self.seen.insert(process, (seen.cpu_seconds, seen.seconds));
        if cost.daemons == 0 {
            cost.node.clone_from(&seen.node);
            cost.first = seen.memory;
        }
        cost.daemons += usize::from(before.is_none());
        let (cpu_seconds, seconds) = before.unwrap_or_default();
        cost.cpu_seconds += seen.cpu_seconds - cpu_seconds;
        cost.seconds += seen.seconds - seconds;
        cost.last = seen.memory;
        cost.most.resident = cost.most.resident.max(seen.memory.resident);
        cost.most.working_set = cost.most.working_set.max(seen.memory.working_set);
    }
}

/// What a directory of `/proc` says, if it is that of a daemon on a node of the cluster.
fn daemon(process: &Path, cluster: &str) -> Result<Option<(Process, Seen)>> {
    let Some(pid) = process.file_name().and_then(|name| name.to_str()?.parse().ok()) else { return Ok(None) };
    let command_line = fs::read(process.join("cmdline"))?;
    if !command_line.starts_with(b"/usr/local/bin/minicnid\0run\0") {
        return Ok(None);
    }
    let cgroup = cgroup(&fs::read_to_string(process.join("cgroup"))?).context("no cgroup")?;
    let Some(node) = cgroup.strip_prefix(&format!("/{cluster}-")).and_then(|path| path.split('/').next()) else {
        return Ok(None);
    };
    let stat = fs::read_to_string(process.join("stat"))?;
    let (cpu_ticks, began) = times(&stat).context("/proc/PID/stat has too few words")?;
    let uptime = fs::read_to_string("/proc/uptime")?;
    let uptime: f64 = uptime.split(' ').next().context("/proc/uptime is empty")?.parse()?;
    let status = fs::read_to_string(process.join("status"))?;
    let memory = Memory {
        resident: number(&status, "VmRSS:").context("no VmRSS")? * 1024,
        working_set: working_set(cgroup.trim_start_matches('/'))?,
    };
    let seen =
        Seen { node: node.to_owned(), memory, cpu_seconds: seconds(cpu_ticks)?, seconds: uptime - seconds(began)? };
    Ok(Some(((pid, began), seen)))
}

/// The cgroup by which memory is counted, of the lines of `/proc/PID/cgroup`.
fn cgroup(lines: &str) -> Option<String> {
    let of = |controller: &str| {
        lines.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(controller)?.strip_prefix(':'))
    };
    of("memory").or_else(|| of("")).map(str::to_owned)
}

/// Of `/proc/PID/stat`: ticks of the CPU, with those of children that were waited for; and the tick at which it began.
/// <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
fn times(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let words: Vec<_> = rest.split_whitespace().collect();
    let cpu = words.get(11..15)?.iter().map(|ticks| ticks.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some((cpu, words.get(19)?.parse().ok()?))
}

#[expect(clippy::cast_precision_loss, reason = "seconds for people")]
fn seconds(ticks: u64) -> Result<f64> {
    let in_a_second = sysconf(SysconfVar::CLK_TCK)?.context("the kernel has no clock tick")?;
    Ok(ticks as f64 / in_a_second as f64)
}

fn working_set(cgroup: &str) -> Result<u64> {
    let dir: PathBuf =
        MEMORY.iter().map(|mount| Path::new(mount).join(cgroup)).find(|dir| dir.is_dir()).context("gone")?;
    let read = |file: &str| fs::read_to_string(dir.join(file));
    let used: u64 = read("memory.usage_in_bytes").or_else(|_| read("memory.current"))?.trim().parse()?;
    let stat = read("memory.stat")?;
    let idle = number(&stat, "total_inactive_file ").or_else(|| number(&stat, "inactive_file ")).unwrap_or_default();
    Ok(used.saturating_sub(idle))
}

/// The number behind the word with which a line begins.
fn number(text: &str, word: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(word))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_looked_for_in_the_hierarchy_that_counts_it() {
        let first = "4:memory:/minicni-e2e-node1/kubepods/x\n1:cpu:/other\n0::/unified\n";
        assert_eq!(cgroup(first).unwrap(), "/minicni-e2e-node1/kubepods/x");
        assert_eq!(cgroup("0::/minicni-e2e-node1/y\n").unwrap(), "/minicni-e2e-node1/y");
    }

    #[test]
    fn the_cpu_time_of_what_a_daemon_executed_counts_and_its_name_may_have_spaces() {
        let stat = "7 (mini ) cnid) S 1 7 7 0 -1 4194560 1 2 3 4 100 20 30 4 20 0 1 0 5555 9 9";
        assert_eq!(times(stat), Some((154, 5555)));
    }

    #[test]
    fn the_daemons_of_a_node_are_added_up_and_each_is_counted_once() {
        let seen = |cpu_seconds, seconds, resident| Seen {
            node: "node1".to_owned(),
            memory: Memory { resident, working_set: 2 * resident },
            cpu_seconds,
            seconds,
        };
        let mut watched = Watched::default();
        watched.note((1, 10), &seen(1.0, 10.0, 5));
        watched.note((1, 10), &seen(1.5, 20.0, 9));
        watched.note((1, 99), &seen(0.25, 5.0, 6));
        let cost = &watched.costs["node1"];
        assert_eq!((cost.daemons, cost.first.resident, cost.most.working_set, cost.last.resident), (2, 5, 18, 6));
        assert!((cost.cpu_seconds - 1.75).abs() < 1e-9 && (cost.seconds - 25.0).abs() < 1e-9, "{cost:?}");
    }
}
