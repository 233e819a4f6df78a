//! The measurements, one after the other on one API server.

use std::{
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use minicni::link::Netns;

use super::{
    api::Api,
    daemon::{Changes, Daemon, until_route},
    objects::{address, name},
    report::{Plan, Report},
};
use crate::{
    bench::{
        environment::{Environment, load},
        statistics::Summary,
    },
    build,
    lab::{self, Lab, Node, UPLINK, directory, kubernetes::ApiServer, netns_path},
};

/// The name of everything that a run makes.
const LAB: &str = "minicni-scale";
/// So many nodes are few.
const FEW: u32 = 10;
/// How long a daemon is left alone before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(5);

pub(super) fn measure(plan: Plan) -> Result<Report> {
    lab::need_root()?;
    let programs = build::portable()?;
    let start = Instant::now();
    let load_before = load()?;
    let step = |text: &str| eprintln!("[{:>5.1} s] {text}", start.elapsed().as_secs_f64());
    let lab = Lab::new(LAB, 2, programs)?;
    let [control, node] = lab.nodes.as_slice() else { bail!("the lab has not two nodes") };
    // The other nodes are on its network, but are not there.
    let own = format!("{}/16", address(u32::from(node.number)));
    node.run(Command::new("ip").args(["address", "add", &own, "dev", UPLINK]))?;
    step("starting the API server");
    let mut server = ApiServer::on(control)?;
    let kubeconfig = server.kubectl().kubeconfig().to_owned();
    let api = Api::new(LAB, Netns::open(netns_path(&control.netns_name()))?, &server.kubectl())?;

    step("few nodes");
    api.create_all(1..=FEW)?;
    let mut daemon = Daemon::start(node, &kubeconfig)?;
    daemon.until_routes(FEW as usize - 1)?;
    sleep(SETTLE);
    let memory_few = daemon.memory("VmRSS")?;
    daemon.end()?;

    step("all nodes");
    api.create_all(FEW + 1..=plan.nodes)?;
    let object_bytes = api.request("GET", &format!("/api/v1/nodes/{}", name(FEW)), "", "")?.len();
    step("cold starts");
    let mut cold = Vec::new();
    for _ in 1..plan.starts {
        let mut daemon = Daemon::start(node, &kubeconfig)?;
        cold.push(daemon.until_routes(plan.nodes as usize - 1)?.as_secs_f64());
        daemon.end()?;
    }
    let mut daemon = Daemon::start(node, &kubeconfig)?;
    cold.push(daemon.until_routes(plan.nodes as usize - 1)?.as_secs_f64());

    let (end, beats) = (AtomicBool::new(false), AtomicU32::new(0));
    let measured = scope(|scope| {
        let beating = scope.spawn(|| api.beat(plan.nodes, &end, &beats));
        let measured = with_heartbeats(&plan, &api, node, &daemon, &mut server, &beats, step);
        end.store(true, Relaxed);
        beating.join().map_err(|_| anyhow::anyhow!("the heartbeats panicked"))?;
        measured
    })?;
    Ok(Report {
        environment: Environment::found(load_before, start.elapsed())?,
        plan,
        object_bytes,
        heartbeats: measured.heartbeats,
        cold_start: Summary::of(&cold),
        event: Summary::of(&measured.events),
        memory_few,
        memory: daemon.memory("VmRSS")?,
        memory_peak: daemon.memory("VmHWM")?,
        idle_percent: measured.idle_percent,
        outage_changes: measured.outage_changes,
        back: measured.back,
    })
}

struct Measured {
    heartbeats: f64,
    idle_percent: f64,
    events: Vec<f64>,
    outage_changes: usize,
    back: f64,
}

fn with_heartbeats(
    plan: &Plan,
    api: &Api,
    node: &Node,
    daemon: &Daemon<'_>,
    server: &mut ApiServer,
    beats: &AtomicU32,
    step: impl Fn(&str),
) -> Result<Measured> {
    // What a start left to do is not idleness.
    sleep(SETTLE);
    step("CPU time with heartbeats");
    let (before, beats_before, start) = (daemon.cpu_time()?, beats.load(Relaxed), Instant::now());
    sleep(Duration::from_secs(plan.idle));
    let took = start.elapsed().as_secs_f64();
    let idle_percent = daemon.cpu_time()?.saturating_sub(before).as_secs_f64() * 100.0 / took;
    let heartbeats = f64::from(beats.load(Relaxed) - beats_before) * 60.0 / took;

    step("nodes that come and go");
    let mut events = Vec::new();
    let extra = plan.nodes + 1;
    for _ in 0..plan.events.div_ceil(2) {
        for there in [true, false] {
            let took = until_route(node, extra, there, || if there { api.create(extra) } else { api.delete(extra) })?;
            events.push(took.as_secs_f64() * 1000.0);
        }
    }

    step("the API server is away");
    let changes = Changes::watch(node, directory(LAB).join("routes.log"))?;
    server.kill()?;
    sleep(Duration::from_secs(plan.outage));
    server.start_again()?;
    step("the API server is back");
    let start = Instant::now();
    // Only a daemon that follows the nodes again makes this route.
    let before = changes.count()?;
    until_route(node, extra, true, || api.create(extra))?;
    let back = start.elapsed().as_secs_f64();
    // That one change is ours.
    sleep(SETTLE);
    let outage_changes = changes.count()?.checked_sub(1).context("the route of a new node was not seen")?;
    if outage_changes > 0 {
        eprintln!("{before} of them before the API server was back");
    }
    Ok(Measured { heartbeats, idle_percent, events, outage_changes, back })
}
