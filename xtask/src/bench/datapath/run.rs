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
    peers::PeerId,
    plan::Plan,
    program::Program,
    report::{Report, Series},
    request_response,
    scene::{Missing, Scene},
    stream, task,
    topology::Topology,
    workload::Workload,
};
use crate::{
    bench::environment::{Environment, load},
    lab::Programs,
};

/// Between two measurements others get both CPUs, and the kernel ends what the last one left.
const PAUSE: Duration = Duration::from_millis(5);

/// Connections where there are several.
const STREAMS: usize = 8;

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
    let (one, other) = task::cpus()?;
    eprintln!("making nodes and pods; seed {}", plan.seed);
    let mut scene = Scene::new(plan, programs)?;
    for id in PeerId::all() {
        let topology = Topology::Peer(id);
        match (id.peer().make)() {
            Ok(path) => drop(scene.paths.insert(topology, path)),
            Err(error) => scene.missing.push(Missing { topology, reason: format!("{error:#}") }),
        }
    }
    let program = Program::new(scene.node())?;
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut sums: BTreeMap<(Workload, Topology), Sums> = BTreeMap::new();
    let mut nanoseconds = [Vec::new(), Vec::new()];
    let cpus = [one, other.unwrap_or(one)];
    let mut workloads = Workload::ALL.to_vec();
    workloads.retain(|workload| other.is_some() || workload.is_on_one_cpu());
    let mut repeated = 0;
    for round in 0..=plan.rounds {
        rng.shuffle(&mut workloads);
        let now = |workload: &&Workload| !workload.is_seldom() || round % plan.seldom == 0;
        for &workload in workloads.iter().filter(now) {
            for topology in in_turn(workload, &mut rng) {
                let Some(path) = scene.paths.get(&topology.place()) else { continue };
                let before = scene.redirected(topology);
                let what = || format!("{}: {}", topology.name(), workload.name());
                let measure = || once(workload, path, cpus, plan.time()).with_context(what);
                let (value, count) = measure().or_else(|error| {
                    // On a machine that is not quiet a thread may be held up for longer than all of this takes.
                    eprintln!("once more: {error:#}");
                    repeated += 1;
                    measure()
                })?;
                sleep(PAUSE);
                if round == 0 {
                    continue;
                }
                let sums = sums.entry((workload, topology)).or_default();
                sums.rounds.push(value);
                sums.count += count;
                if let (Some(before), Some(after)) = (before, scene.redirected(topology)) {
                    *sums.redirected.get_or_insert_default() += after - before;
                }
            }
        }
        let [ours, empty] = program.nanoseconds(scene.node())?;
        if round == 0 {
            eprintln!("warmed up in {:.0?}", start.elapsed());
            continue;
        }
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

/// Where a workload is measured in a round, in random order. What is compared is neighbours, so that what disturbs the
/// machine for a second disturbs both.
fn in_turn(workload: Workload, rng: &mut fastrand::Rng) -> Vec<Topology> {
    let mut topologies = workload.topologies();
    rng.shuffle(&mut topologies);
    let mut neighbourhoods = [0, 1, 2, 3];
    rng.shuffle(&mut neighbourhoods);
    topologies.sort_by_key(|topology| neighbourhoods[topology.neighbourhood()]);
    topologies
}

/// What is found, and how often what was done.
fn once(workload: Workload, path: &Path, [one, other]: [usize; 2], time: Duration) -> Result<(f64, f64)> {
    let (value, count) = match workload {
        Workload::TcpSameCpu => request_response::tcp(path, [one, one], time)?,
        Workload::UdpSameCpu => request_response::udp(path, [one, one], time)?,
        Workload::TcpOtherCpu => request_response::tcp(path, [one, other], time)?,
        Workload::UdpOtherCpu => request_response::udp(path, [one, other], time)?,
        Workload::Stream => (stream::rate(path, [one, other], 1, time)?, 1.0),
        Workload::Streams => (stream::rate(path, [one, other], STREAMS, time)?, 1.0),
        Workload::StreamNoGso => (stream::rate_without_gso(path, [one, other], 1, time)?, 1.0),
        Workload::StreamsNoGso => (stream::rate_without_gso(path, [one, other], STREAMS, time)?, 1.0),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compared_is_measured_one_after_another() {
        let mut rng = fastrand::Rng::with_seed(7);
        for workload in Workload::ALL {
            let turn = in_turn(workload, &mut rng);
            let mut neighbourhoods: Vec<_> = turn.iter().map(|topology| topology.neighbourhood()).collect();
            neighbourhoods.dedup();
            let mut once = neighbourhoods.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(neighbourhoods.len(), once.len(), "{turn:?}");
            assert_eq!(turn.len(), workload.topologies().len());
        }
    }
}
