//! The daemon's main loop: prepare the node, then keep its routes, its settings and `node.json` what they should be.

use std::{
    fs::{File, TryLockError},
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::unistd::gethostname;
use prometheus_client::registry::Registry;
use serde_json::{Map, Value};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info, warn};

use super::{
    file,
    firewall::{Asked, Firewall, Masquerade},
    health::Health,
    host::Host,
    http::Server,
    install::{self, Installer},
    logs,
    metrics::Metrics,
    plan::RouteSpec,
    problems::{Problems, Reason},
    reconcile::{Report, reconcile_from},
    routes::Kernel,
    rules::Rules,
    source::{ApiError, Availability, Source, SourceOptions},
    sweep::{Limits, Sweeper},
    underlay,
    watch::RouteWatch,
};
use crate::{
    datapath::Pins,
    node::{DEFAULT_BPF_DIR, DEFAULT_STATE_DIR, Datapath, Mode, NodeError, StateDir},
};

/// How often everything is looked at without a reason.
const RESYNC: Duration = Duration::from_secs(30);

/// How often what the datapath stands on is looked at: a connection on the fast path hangs while conntrack is strict, and for as long
/// again as TCP has put off its next attempt. The kernel tells nobody of its settings.
const LOOK: Duration = Duration::from_secs(2);

/// How often our routes are read without a reason. The kernel tells of every change, so this is for what is not thought of.
const ROUTES_RESYNC: Duration = Duration::from_mins(5);

/// How long to wait for another's lock until that must be a daemon.
const CLAIM_LIMIT: Duration = Duration::from_secs(1);

/// What the daemon is told on its command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the nodes are known from.
    pub source: SourceOptions,
    /// This node's name among them; the host's name where nobody says.
    pub node_name: Option<String>,
    /// Where the state is.
    pub state: StateDir,
    /// Where programs and maps are pinned.
    pub pins: Pins,
    /// The datapath asked for.
    pub datapath: Datapath,
    /// By which networks nodes meet, and what is encapsulated there.
    pub underlay: underlay::Settings,
    /// The MTU for pods; the uplink's, less what the tunnel adds, where nobody says.
    pub mtu: Option<u32>,
    /// What pods get this node's address for.
    pub masquerade: Masquerade,
    /// Where to listen for those who ask for metrics, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// The level of the eBPF programs' log, as aya-log counts.
    pub ebpf_log_level: u8,
    /// What to install for the container runtime.
    pub install: install::Options,
}

impl Options {
    /// What the plugin has to be told in the network configuration to find what the daemon was told.
    fn for_plugin(&self) -> Map<String, Value> {
        let mut settings = Map::new();
        let mut differs = |key: &str, value: Value, default: &str| {
            if value != *default {
                settings.insert(key.to_owned(), value);
            }
        };
        differs("stateDir", self.state.root().to_string_lossy().into(), DEFAULT_STATE_DIR);
        differs("bpfDir", self.pins.root().to_string_lossy().into(), DEFAULT_BPF_DIR);
        differs("datapath", self.datapath.to_string().into(), &Datapath::default().to_string());
        settings.extend(self.mtu.map(|mtu| ("mtu".to_owned(), mtu.into())));
        settings
    }
}

/// Why the daemon cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another daemon serves this state directory.
    #[error("another minicnid runs with state directory {}; stop it first, or name another with --state-dir", .0.display())]
    AlreadyRunning(PathBuf),
    /// The node cannot be prepared, or its state not be written.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The kernel does not talk to us.
    #[error(transparent)]
    Kernel(#[from] super::routes::KernelError),
    /// The file of Node objects cannot be watched.
    #[error(transparent)]
    File(#[from] file::FileError),
    /// The Kubernetes API cannot be asked.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The routes cannot be watched.
    #[error(transparent)]
    Watch(#[from] super::watch::WatchError),
    /// Something that every process may do failed.
    #[error("{action}: {source}")]
    System {
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

fn system<E: Into<std::io::Error>>(action: &'static str) -> impl FnOnce(E) -> RunError {
    move |source| RunError::System { action, source: source.into() }
}

/// Runs until SIGTERM or SIGINT. What was set up stays: the network works without the daemon.
pub async fn run(options: Options) -> Result<(), RunError> {
    let _only = claim(&options.state)?;
    let me = match &options.node_name {
        Some(name) => name.clone(),
        None => gethostname().map_err(system("ask for the host's name"))?.to_string_lossy().into_owned(),
    };
    // Subscribed first, so that no change between looking and listening is missed.
    let kernel = Kernel::new()?;
    let mut watch = RouteWatch::new()?.except(&kernel);
    let asked = Asked { masquerade: options.masquerade.clone(), tunnel_port: options.underlay.tunnel_port() };
    let firewall =
        Firewall::start(options.state.clone(), asked).map_err(system("start the thread that keeps firewall rules"))?;
    let (mut registry, health) = (Registry::default(), Health::new());
    let metrics = Metrics::new(&mut registry, health.clone(), options.state.clone(), options.pins.clone());
    let server = options.metrics.map(|address| Server::start(address, registry, health)).transpose();
    let server = server.map_err(system("start the thread that answers for metrics"))?;
    let rules = Rules::listen(options.pins.clone(), metrics.rule_changes.clone(), firewall.doorbell())
        .map_err(system("start the thread that listens for rules"))?;
    let source = Source::open(&options.source, &me, metrics.nodes.clone()).await?;
    let mut runtime =
        install::Watch::new(&options.install).map_err(system("watch the container runtime's directories"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(system("listen for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("listen for SIGINT"))?;
    let mut timer = interval(RESYNC);
    let mut look = interval(LOOK);
    for timer in [&mut timer, &mut look] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }

    let ebpf_log_level = options.ebpf_log_level;
    let pins = options.pins.clone();
    let mut installer = Installer::new(options.install.clone(), options.for_plugin());
    // The plugin first: an older one that is executed after the programs were loaded would load its own, and take over from ours.
    installer.keep(false, &mut Problems::default());
    let mut daemon = Daemon {
        host: Host::prepare(&options)?,
        rules,
        firewall,
        metrics,
        server,
        sweeper: Sweeper::new(options.state.clone(), options.pins.clone(), Limits::DAEMON),
        installer,
        source,
        at_home: false,
        kernel,
        routes: None,
        routes_read: Instant::now(),
        me,
        options,
    };
    if ebpf_log_level > 0 {
        logs::forward(&pins);
    }
    info!(node = daemon.me, nodes = %daemon.source, datapath = %daemon.host.mode(), "started");
    // The timer's first tick is at once.
    loop {
        tokio::select! {
            () = daemon.source.changed() => {}
            changed = watch.changed() => {
                daemon.routes = None;
                if let Err(error) = changed {
                    warn!(%error, "listening anew");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    watch = RouteWatch::new()?.except(&daemon.kernel);
                }
            }
            () = runtime.changed() => daemon.installer.look_again(),
            _ = look.tick() => {
                if !daemon.host.keep_prepared(false) {
                    continue;
                }
            }
            _ = timer.tick() => {
                if daemon.routes_read.elapsed() >= ROUTES_RESYNC {
                    daemon.routes = None;
                }
                daemon.source.look();
                daemon.host.keep_prepared(true);
                daemon.sweep();
                daemon.installer.look_again();
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        daemon.pass().await;
    }
    info!("stopped; the network stays as it is");
    Ok(())
}

/// Makes sure that no other daemon serves the same state.
fn claim(state: &StateDir) -> Result<File, RunError> {
    let file = state.daemon_lock()?;
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // A `status` that looks whether there is a daemon holds the lock for a moment, too.
            Err(TryLockError::WouldBlock) if start.elapsed() < CLAIM_LIMIT => std::thread::sleep(CLAIM_LIMIT / 20),
            Err(TryLockError::WouldBlock) => return Err(RunError::AlreadyRunning(state.root().to_owned())),
            Err(TryLockError::Error(source)) => {
                return Err(RunError::System { action: "lock the state directory", source });
            }
        }
    }
}

struct Daemon {
    options: Options,
    me: String,
    host: Host,
    rules: Rules,
    firewall: Firewall,
    metrics: Metrics,
    /// `None` where nobody may ask.
    server: Option<Server>,
    sweeper: Sweeper,
    installer: Installer,
    kernel: Kernel,
    /// Our routes in the kernel, while nobody changes them.
    routes: Option<Vec<RouteSpec>>,
    /// When they were last read.
    routes_read: Instant,
    source: Source,
    /// Whether this network namespace has the node's address, so that pods' devices would be here.
    at_home: bool,
}

impl Daemon {
    /// Releases the leases of pods that are gone. In another namespace than the host's every pod would seem to be.
    fn sweep(&mut self) {
        if self.at_home {
            self.sweeper.look(Instant::now());
        }
    }

    /// One pass: routes, then what the plugin and people read.
    async fn pass(&mut self) {
        let mut problems = Problems::default();
        self.source.problems(&mut problems);
        let mut availability = None;
        if let Some(nodes) = self.source.nodes() {
            self.firewall.keep(nodes, &self.me).await;
            let start = Instant::now();
            let known = self.routes.take();
            if known.is_none() {
                self.routes_read = start;
            }
            match reconcile_from(known, nodes, &self.me, &self.options.underlay, &self.kernel).await {
                Ok(mut report) => {
                    self.routes = report.actual.take();
                    self.metrics.reconciled(&report, start.elapsed());
                    let own = nodes.iter().filter(|node| node.name == self.me).flat_map(|node| &node.internal_ips);
                    self.at_home = own.into_iter().any(|ip| report.local.iter().any(|prefix| prefix.address == *ip));
                    self.host.routes_changed(&report, &mut problems);
                    self.host.keep_uplinks(&report, &mut problems);
                    self.host.publish(nodes, &self.me, &report, self.options.mtu, &mut problems);
                    // What kept the host from being published was found last.
                    let refused = self.source.own_refused();
                    availability = match refused.or(problems.all().last()) {
                        Some(problem) if !self.host.is_published() => Some(Availability::down(problem)),
                        _ => Some(Availability::up()),
                    };
                    if refused.is_some() {
                        problems.forget(Reason::NodeMissing);
                    }
                }
                Err(error) => {
                    self.metrics.unreadable();
                    problems.add(Reason::RouteFailed, error);
                }
            }
        }
        if matches!(self.host.mode(), Mode::Ebpf { .. }) {
            problems.extend(Reason::RulesUnheard, self.rules.problems());
        }
        self.firewall.tell(&mut problems);
        problems.extend(Reason::LeasesNotSwept, self.sweeper.problems());
        self.installer.keep(self.host.is_published(), &mut problems);
        problems.extend(Reason::MetricsUnavailable, self.server.as_ref().and_then(Server::problem));
        if self.host.is_published() {
            self.metrics.ready();
        }
        self.metrics.passed(self.host.mode(), &problems);
        self.host.tell(&problems);
        self.source.tell(availability, &problems);
    }
}

/// Logs what a reconciliation changed, one line each.
pub(super) fn log_report(report: &Report) {
    for (what, routes) in [("added", &report.added), ("replaced", &report.replaced), ("deleted", &report.deleted)] {
        for route in routes {
            info!(%route, "route {what}");
        }
    }
    for error in &report.errors {
        error!("{error}");
    }
}
