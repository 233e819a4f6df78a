//! The rounds.

use std::{
    collections::BTreeMap,
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    connections, cpu_time,
    path::Path,
    plan::Plan,
    program::Program,
    report::{Report, Series},
    request_response,
    scene::Scene,
    stream, task,
    topology::Topology,
    workload::Workload,
};
use crate::{
    bench::environment::{Environment, load},
    lab::Programs,
};

/// Between two measurements others get both CPUs, and the kernel ends what the last one left.
const PAUSE: Duration = Duration::from_millis(25);

/// Sums over the rounds of a series.
#[derive(Debug, Default)]
struct Sums {
    rounds: Vec<f64>,
    count: f64,
    redirected: Option<u64>,
}

/// Makes everything, measures, and removes it.
pub(super) fn measure(plan: &Plan, programs: &Programs) -> Result<Report> {
    let start = Instant::now();
    let load_before = load()?;
    let [total_before, stolen_before] = cpu_ticks()?;
    let cpus = task::two_cpus()?;
    eprintln!("making nodes and pods; seed {}", plan.seed);
    let scene = Scene::new(plan, programs)?;
    let program = Program::new(scene.node())?;
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut sums: BTreeMap<(Workload, Topology), Sums> = BTreeMap::new();
    let mut nanoseconds = [Vec::new(), Vec::new()];
    let mut workloads = Workload::ALL;
    let mut repeated = 0;
    for round in 1..=plan.rounds {
        rng.shuffle(&mut workloads);
        for workload in workloads {
            let mut topologies = workload.topologies().to_vec();
            rng.shuffle(&mut topologies);
            for topology in topologies {
                let Some(path) = scene.paths.get(&topology) else { continue };
                let before = scene.redirected(topology);
                let what = || format!("{}: {}", topology.name(), workload.name());
                let measure = || once(workload, path, cpus, plan.time()).with_context(what);
                let (value, count) = measure().or_else(|error| {
                    // On a machine that is not quiet a thread may be held up for longer than all of this takes.
                    eprintln!("once more: {error:#}");
                    repeated += 1;
                    measure()
                })?;
                let sums = sums.entry((workload, topology)).or_default();
                sums.rounds.push(value);
                sums.count += count;
                if let (Some(before), Some(after)) = (before, scene.redirected(topology)) {
                    *sums.redirected.get_or_insert_default() += after - before;
                }
                sleep(PAUSE);
            }
        }
        let [ours, empty] = program.nanoseconds(scene.node())?;
        nanoseconds[0].push(ours);
        nanoseconds[1].push(empty);
        eprintln!("{round} of {} rounds in {:.0?}", plan.rounds, start.elapsed());
    }
    let series = sums.into_iter().map(|((workload, topology), sums)| Series {
        workload,
        topology,
        rounds: sums.rounds.into_iter().map(to_four_digits).collect(),
        redirected: sums.redirected.map(|redirected| to_four_digits(exact(redirected) / sums.count)),
    });
    let [total, stolen] = cpu_ticks()?;
    Ok(Report {
        stolen: to_four_digits(100.0 * exact(stolen - stolen_before) / exact(total - total_before)),
        environment: Environment::found(load_before, start.elapsed())?,
        mitigations: mitigations()?,
        repeated,
        plan: *plan,
        series: series.collect(),
        missing: scene.missing.clone(),
        program: nanoseconds,
    })
}

/// What is found, and how often what was done.
fn once(workload: Workload, path: &Path, [one, other]: [usize; 2], time: Duration) -> Result<(f64, f64)> {
    let (value, count) = match workload {
        Workload::TcpSameCpu => request_response::tcp(path, [one, one], time)?,
        Workload::UdpSameCpu => request_response::udp(path, [one, one], time)?,
        Workload::TcpOtherCpu => request_response::tcp(path, [one, other], time)?,
        Workload::UdpOtherCpu => request_response::udp(path, [one, other], time)?,
        Workload::Stream => (stream::rate(path, [one, other], time)?, 1.0),
        Workload::Connections => connections::rate(path, [one, one], time)?,
        Workload::CpuTime => cpu_time::per_datagram(path, one, time)?,
    };
    if !(value.is_finite() && value > 0.0) {
        bail!("{value} is no result");
    }
    Ok((value, count))
}

/// More digits are noise, and a diff of the figures is read by people.
pub(in crate::bench) fn to_four_digits(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53 packets")]
fn exact(count: u64) -> f64 {
    count as f64
}

/// Ticks of all CPUs since boot, and those of them that a hypervisor gave to others: `proc_stat(5)`.
fn cpu_ticks() -> Result<[u64; 2]> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let words = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    // What guests got is counted as user time already.
    let ticks = words.take(8).map(str::parse::<u64>).collect::<Result<Vec<_>, _>>().context("read /proc/stat")?;
    let stolen = ticks.get(7).context("/proc/stat has no steal time")?;
    Ok([ticks.iter().sum(), *stolen])
}

/// Name and state of each vulnerability that the CPU has.
fn mitigations() -> Result<Vec<String>> {
    let dir = fs::read_dir("/sys/devices/system/cpu/vulnerabilities").context("list the CPU's vulnerabilities")?;
    let mut found = Vec::new();
    for entry in dir {
        let path = entry?.path();
        let state = fs::read_to_string(&path)?;
        if state.trim() != "Not affected" {
            found.push(format!("{}: {}", path.file_name().unwrap_or_default().to_string_lossy(), state.trim()));
        }
    }
    found.sort();
    Ok(found)
}
