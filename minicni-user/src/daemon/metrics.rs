//! What the daemon tells Prometheus. `docs/metrics.md` lists all of it.
//!
//! What the daemon does is counted here as it happens; what is to be read somewhere, in the kernel or in files, is read
//! when somebody asks, by [`Scraped`].

mod calls;
mod datapath;
mod encode;
mod leases;
mod process;
mod scraped;

use std::{collections::BTreeSet, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use self::scraped::Scraped;
use super::{
    health::Health,
    problems::{Problems, Reason},
    reconcile::Report,
    routes::ApplyError,
};
use crate::{
    datapath::Pins,
    node::{Mode, StateDir},
};

type Label = [(&'static str, &'static str); 1];

/// The upper bounds of the buckets of [`Metrics::reconciled`], in seconds.
const PASS_BOUNDS: [f64; 11] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

/// The daemon's own counters.
#[derive(Debug)]
pub(super) struct Metrics {
    /// What the source of nodes tells.
    pub(super) nodes: NodeSource,
    /// How often all flows had to prove themselves again, because something that may concern them changed.
    pub(super) rule_changes: Counter,
    health: Health,
    datapath: Family<[(&'static str, &'static str); 2], Gauge>,
    passes: Histogram,
    routes_desired: Gauge,
    route_changes: Family<Label, Counter>,
    errors: Family<Label, Counter>,
    problems: Family<[(&'static str, String); 1], Gauge>,
    /// The reasons that were told of once, and have to be told of as solved.
    reasons: BTreeSet<Reason>,
}

/// How well the source of nodes does: the file, or the API server.
#[derive(Clone, Debug)]
pub(super) struct NodeSource {
    known: Gauge,
    contact: Gauge<f64, std::sync::atomic::AtomicU64>,
    errors: Counter,
    restarts: Counter,
}

impl NodeSource {
    /// The source answered, with so many nodes.
    pub(super) fn answered(&self, nodes: usize) {
        self.known.set(i64::try_from(nodes).unwrap_or(i64::MAX));
        self.contact.set(process::unix_time());
    }

    /// A request failed, or what came cannot be understood.
    pub(super) fn failed(&self) {
        self.errors.inc();
    }

    /// The watch ended, and begins anew.
    pub(super) fn restarted(&self) {
        self.restarts.inc();
    }
}

impl Metrics {
    /// Counters at zero, registered.
    pub(super) fn new(registry: &mut Registry, health: Health, state: StateDir, pins: Pins) -> Self {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("minicni_build", "The running minicnid", Info::new(version));
        registry.register("minicni_ready", "1 once an ADD can be served, else 0", health.ready_gauge());
        let this = Self {
            nodes: NodeSource::new(registry),
            rule_changes: Counter::default(),
            health,
            datapath: Family::default(),
            passes: Histogram::new(PASS_BOUNDS),
            routes_desired: Gauge::default(),
            route_changes: Family::default(),
            errors: Family::default(),
            problems: Family::default(),
            reasons: BTreeSet::new(),
        };
        for operation in ["add", "replace", "delete"] {
            this.route_changes.get_or_create(&[("operation", operation)]).inc_by(0);
        }
        for kind in ["unreadable", "foreign_route", "refused"] {
            this.errors.get_or_create(&[("kind", kind)]).inc_by(0);
        }
        registry.register("minicni_datapath_info", "What carries the packets of pods", this.datapath.clone());
        registry.register(
            "minicni_reconcile_duration_seconds",
            "How long a reconciliation of the routes with the nodes took",
            this.passes.clone(),
        );
        registry.register("minicni_reconcile_errors", "What went wrong in reconciliations", this.errors.clone());
        registry.register(
            "minicni_routes_desired",
            "Routes to other nodes that should be there",
            this.routes_desired.clone(),
        );
        registry.register("minicni_route_changes", "Routes to other nodes that changed", this.route_changes.clone());
        registry.register(
            "minicni_rule_changes",
            "Times that all flows had to prove themselves again, because rules, routes, addresses or links changed",
            this.rule_changes.clone(),
        );
        registry.register("minicni_problems", "What minicnid status says is wrong", this.problems.clone());
        let errors = Family::default();
        registry.register("minicni_scrape_errors", "Parts of the metrics that could not be read", errors.clone());
        registry.register_collector(Box::new(Scraped::new(state, pins, errors)));
        this
    }

    /// The main loop has come round.
    pub(super) fn passed(&mut self, mode: &Mode, problems: &Problems) {
        self.health.beat();
        let (mode, tcp) = match mode {
            Mode::Ebpf { without_tcp, .. } => ("ebpf", without_tcp.is_none()),
            Mode::Route { .. } => ("route", false),
        };
        let now = [("mode", mode), ("tcp_fast_path", if tcp { "yes" } else { "no" })];
        if self.datapath.get(&now).is_none() {
            self.datapath.clear();
            self.datapath.get_or_create(&now).set(1);
        }
        self.reasons.extend(problems.all().iter().map(|problem| problem.reason));
        for reason in &self.reasons {
            let count = problems.all().iter().filter(|problem| problem.reason == *reason).count();
            let gauge = self.problems.get_or_create_owned(&[("reason", reason.to_string())]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// The routes were reconciled with the nodes.
    pub(super) fn reconciled(&self, report: &Report, took: Duration) {
        self.passes.observe(took.as_secs_f64());
        self.routes_desired.set(i64::try_from(report.desired.len()).unwrap_or(i64::MAX));
        let Report { added, replaced, deleted, .. } = report;
        for (operation, routes) in [("add", added), ("replace", replaced), ("delete", deleted)] {
            self.route_changes.get_or_create(&[("operation", operation)]).inc_by(routes.len() as u64);
        }
        for error in &report.errors {
            let kind = match error {
                ApplyError::Foreign { .. } => "foreign_route",
                ApplyError::Refused { .. } => "refused",
            };
            self.errors.get_or_create(&[("kind", kind)]).inc();
        }
    }

    /// The kernel's routes could not be read.
    pub(super) fn unreadable(&self) {
        self.errors.get_or_create(&[("kind", "unreadable")]).inc();
    }

    /// `node.json` is written: an ADD can be served.
    pub(super) fn ready(&self) {
        self.health.ready();
    }
}

impl NodeSource {
    fn new(registry: &mut Registry) -> Self {
        let this = Self {
            known: Gauge::default(),
            contact: Gauge::default(),
            errors: Counter::default(),
            restarts: Counter::default(),
        };
        registry.register(
            "minicni_nodes",
            "Nodes of the cluster that are known, this one among them",
            this.known.clone(),
        );
        registry.register(
            "minicni_node_source_last_contact_timestamp_seconds",
            "When the source of nodes answered last, in seconds since 1970; 0 before it did",
            this.contact.clone(),
        );
        registry.register(
            "minicni_node_source_errors",
            "Requests to the source of nodes that failed, or whose answer was not understood",
            this.errors.clone(),
        );
        registry.register(
            "minicni_node_source_restarts",
            "Times that the watch of nodes began anew",
            this.restarts.clone(),
        );
        this
    }
}
