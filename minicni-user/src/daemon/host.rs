//! This host: prepared for pods, and described in `node.json` and `daemon.json`.

use std::{fmt::Write as _, net::IpAddr};

use tracing::{error, info, warn};

use super::{
    firewall::former,
    nodes::Node,
    plan::{LocalPrefix, same_family},
    problems::{Problems, Reason},
    reconcile::Report,
    run::{Options, RunError, log_report},
    uplinks::{Uplinks, desired},
};
use crate::{
    datapath::{DatapathError, Generations},
    link::{LinkError, sysctl},
    node::{DaemonReport, Facts, Mode, NodeError, Reported, Settings, detach, forward, prepare},
};

/// `rp_filter`: drop what does not come from where its source is routed.
const STRICT: &str = "1";
/// `rp_filter`: drop what comes from a source that is not routed at all.
const LOOSE: &str = "2";

/// The host as the daemon keeps it.
pub(super) struct Host {
    options: Options,
    mode: Mode,
    /// Whether the host could not be prepared again when it had to be, and may be half prepared.
    failed: bool,
    facts: Option<Facts>,
    /// Whether pods of this node have IPv6 addresses, and the host therefore forwards IPv6.
    ipv6: bool,
    told: Option<DaemonReport>,
    uplinks: Uplinks,
    /// Whether routes changed since the flows were last made to prove themselves again.
    flows_outdated: bool,
}

impl Host {
    /// Makes the kernel settings and loads the programs.
    pub(super) fn prepare(options: &Options) -> Result<Self, RunError> {
        // A malformed one is written anew.
        if let Some(facts) = Facts::read(&options.state).ok().flatten() {
            facts.check_netns(&options.state)?;
        }
        // Whether there is IPv6 is known with the nodes.
        let mode = prepared(options, false)?;
        // Whatever happened to the routes while no daemon looked.
        Ok(Self {
            options: options.clone(),
            mode,
            failed: false,
            facts: None,
            ipv6: false,
            told: None,
            uplinks: Uplinks::default(),
            flows_outdated: true,
        })
    }

    pub(super) fn mode(&self) -> &Mode {
        &self.mode
    }

    /// Whether this daemon wrote `node.json`.
    pub(super) fn is_published(&self) -> bool {
        self.facts.is_some()
    }

    /// Puts back what the datapath depends on and somebody changed behind our back, and prepares the host again where that is not
    /// enough. What failed the last time is tried, and told, only `now_and_then`. Whether the host is another one now.
    pub(super) fn keep_prepared(&mut self, now_and_then: bool) -> bool {
        match forward(self.ipv6) {
            Ok(true) => warn!("forwarding was off, and is on again"),
            Err(error) if now_and_then => error!("{error}"),
            Ok(false) | Err(_) => {}
        }
        let wanting = self.failed || self.fell_back();
        let due = if wanting { now_and_then } else { !self.mode.stands() || self.programs_are_gone() };
        if !due {
            return false;
        }
        let prepared = prepared(&self.options, self.ipv6);
        self.failed = prepared.is_err();
        match prepared {
            // Still without programs, and for the reason that is known.
            Ok(mode) if self.fell_back() && mode == self.mode => false,
            Ok(mode) => {
                info!(datapath = %mode, "prepared again");
                self.mode = mode;
                true
            }
            Err(error) => {
                error!(%error, "the datapath could not be prepared again");
                false
            }
        }
    }

    /// Whether the programs were to be had and could not be. Who mounts a filesystem or loads a module then need not know of us.
    fn fell_back(&self) -> bool {
        matches!(self.mode, Mode::Route { reason: Some(_) })
    }

    /// Whether our programs' pins are gone, as after an ADD by a plugin of another layout that was under way while ours were loaded.
    fn programs_are_gone(&self) -> bool {
        matches!(self.mode, Mode::Ebpf { .. })
            && self.options.pins.open_programs().is_err_and(|error| error.is_missing())
    }

    /// Takes note of what a reconciliation did.
    pub(super) fn routes_changed(&mut self, report: &Report, problems: &mut Problems) {
        log_report(report);
        for problem in &report.problems {
            problems.add(problem.reason, problem);
        }
        problems.extend(Reason::RouteFailed, &report.errors);
        problems.extend(Reason::TunnelFailed, &report.tunnel_error);
        self.flows_outdated |= !(report.added.is_empty() && report.replaced.is_empty() && report.deleted.is_empty());
        if self.flows_outdated {
            match self.forget_flows() {
                Ok(()) => self.flows_outdated = false,
                Err(error) => problems.add(Reason::DatapathDegraded, error),
            }
        }
    }

    /// Attaches the programs where this node meets the others.
    pub(super) fn keep_uplinks(&mut self, report: &Report, problems: &mut Problems) {
        // While the uplink that somebody named is not there, or this node's object, nobody knows which it will be.
        let unknown = [Reason::UplinkMissing, Reason::NodeMissing];
        let known = report.problems.iter().all(|problem| !unknown.contains(&problem.reason));
        if known && matches!(self.mode, Mode::Ebpf { .. }) {
            self.uplinks.reconcile(&self.options.pins, &desired(report), problems);
        }
    }

    /// What was proven before a route changed says nothing about the new one.
    fn forget_flows(&self) -> Result<(), DatapathError> {
        match &self.mode {
            Mode::Ebpf { .. } => Generations::open(&self.options.pins)?.bump_all(),
            Mode::Route { .. } => Ok(()),
        }
    }

    /// Writes `node.json`, once ADD can be served, and whenever it changes.
    pub(super) fn publish(
        &mut self,
        nodes: &[Node],
        me: &str,
        report: &Report,
        mtu: Option<u32>,
        problems: &mut Problems,
    ) {
        let Some(node) = nodes.iter().find(|node| node.name == me) else {
            let message = format_args!("no Node object is named {me}; add it, or name this node with --node-name");
            problems.add(Reason::NodeMissing, message);
            return;
        };
        if node.pod_cidrs.is_empty() {
            let message =
                format_args!("node {me}: spec.podCIDR is missing; no pod can get an address before it is there");
            problems.add(Reason::PodCidrMissing, message);
            return;
        }
        // Why is said where the routes are. A route to a pod would cut this host off from a node.
        let mut node_ips = nodes.iter().flat_map(|node| &node.internal_ips);
        if node_ips.any(|ip| node.pod_cidrs.iter().any(|cidr| cidr.contains(ip))) {
            let message = format_args!("node {me}: spec.podCIDR covers a node's address; no pod gets one of it");
            problems.add(Reason::PodCidrConflict, message);
            return;
        }
        care_for_uplinks(node, report, problems);
        let facts = Facts::new(self.mode.clone()).map(|facts| Facts {
            node: Some(me.to_owned()),
            pod_cidrs: node.pod_cidrs.clone(),
            former_pod_cidrs: former::prefixes(&self.options.state, &node.pod_cidrs),
            // An uplink that is down for a moment keeps its MTU.
            mtu: mtu.or(report.pod_mtu).or_else(|| Facts::read(&self.options.state).ok().flatten()?.mtu),
            ..facts
        });
        let written = facts.and_then(|facts| {
            // Told all the same: a pod that cannot have its IPv6 address then fails, and says so.
            if let Err(error) = self.forward_for(&facts) {
                problems.add(Reason::HostNotPrepared, error);
            }
            self.write(facts)
        });
        if let Err(error) = written {
            problems.add(Reason::HostNotPrepared, error);
        }
    }

    /// Forwards IPv6 before the first pod that has it.
    fn forward_for(&mut self, facts: &Facts) -> Result<(), NodeError> {
        if facts.ipv6() && !self.ipv6 && forward(true)? {
            info!("IPv6 is forwarded now");
        }
        self.ipv6 = facts.ipv6();
        Ok(())
    }

    fn write(&mut self, facts: Facts) -> Result<(), NodeError> {
        let _lock = self.options.state.lock()?;
        // Whoever else wrote it, the plugin for example, did not know what we know.
        let written = Facts::read(&self.options.state).ok().flatten();
        if self.facts.as_ref() == Some(&facts) && written.as_ref() == Some(&facts) {
            return Ok(());
        }
        facts.write(&self.options.state)?;
        let cidrs: Vec<_> = facts.pod_cidrs.iter().map(ToString::to_string).collect();
        info!(pod_cidrs = cidrs.join(","), mtu = facts.mtu, datapath = %facts.datapath, "node.json written");
        self.facts = Some(facts);
        Ok(())
    }

    /// Writes `daemon.json` for `minicnid status`, and logs what is new in it.
    pub(super) fn tell(&mut self, problems: &Problems) {
        let problems = problems.all().iter().map(Reported::from).collect();
        let report = DaemonReport { pid: std::process::id(), problems };
        if self.told.as_ref() == Some(&report) {
            return;
        }
        let before = self.told.as_ref().map_or(&[][..], |told| &told.problems);
        for problem in report.problems.iter().filter(|problem| !before.contains(problem)) {
            warn!(reason = problem.reason, "{}", problem.message);
        }
        for problem in before.iter().filter(|problem| !report.problems.contains(problem)) {
            info!(reason = problem.reason, "solved: {}", problem.message);
        }
        match report.write(&self.options.state) {
            Ok(()) => self.told = Some(report),
            Err(error) => error!(%error, "status will not know"),
        }
    }
}

/// Lets replies in that other nodes send another way than we would, and says which of the node's addresses are missing.
fn care_for_uplinks(node: &Node, report: &Report, problems: &mut Problems) {
    // IPv6 has no such filter.
    for prefix in report.own.iter().filter(|prefix| prefix.address.is_ipv4()) {
        if let Err(error) = loosen_rp_filter(&prefix.ifname) {
            problems.add(Reason::HostNotPrepared, error);
        }
    }
    for cidr in &node.pod_cidrs {
        let ips = same_family(&node.internal_ips, *cidr);
        let is_here = |prefix: &LocalPrefix| ips.contains(&prefix.address);
        // That there is no address at all is said where the routes are.
        if !ips.is_empty() && !report.local.iter().any(is_here) {
            problems.add(
                Reason::NodeUnreachable,
                format_args!("node {}: no interface has its InternalIP {}", node.name, listed(&ips)),
            );
        }
    }
}

/// Lets an interface take packets of sources that are routed by another.
pub(super) fn loosen_rp_filter(device: &str) -> Result<(), LinkError> {
    let own = sysctl::device_key("ipv4", device, "rp_filter")?;
    let all = sysctl::device_key("ipv4", "all", "rp_filter")?;
    // The kernel takes the larger of the two, so 2 here loosens a 1 there.
    let value = sysctl::read(&own)?.max(sysctl::read(&all)?);
    if value == STRICT {
        sysctl::write(&own, LOOSE)?;
        info!(device, "rp_filter set from strict to loose");
    }
    Ok(())
}

fn prepared(options: &Options, ipv6: bool) -> Result<Mode, NodeError> {
    let _lock = options.state.lock()?;
    let settings = Settings { datapath: options.datapath, ebpf_log_level: options.ebpf_log_level, ipv6 };
    let mut mode = prepare(&options.pins, settings)?;
    // Nobody would look after those of an older daemon: their flows would outlive a change of rules or routes.
    if let Mode::Route { reason: Some(reason) } = &mut mode
        && let Err(error) = detach(&options.pins)
    {
        let _ = write!(reason, "; and older programs may be attached still: {error}");
    }
    tell_mode(options, &mode)?;
    Ok(mode)
}

/// Tells the plugin of the datapath before the node is known, which may take long: an ADD would else act on what an
/// earlier daemon wrote, or prepare the node itself, with the programs that this daemon was told to do without. The caller
/// holds the lock of the node.
fn tell_mode(options: &Options, mode: &Mode) -> Result<(), NodeError> {
    let facts = match Facts::read(&options.state).ok().flatten() {
        Some(facts) if facts.datapath == *mode => return Ok(()),
        Some(facts) => Facts { datapath: mode.clone(), ..facts },
        // Programs are found without being told of.
        None if matches!(mode, Mode::Ebpf { .. }) => return Ok(()),
        None => Facts::new(mode.clone())?,
    };
    facts.write(&options.state)
}

fn listed(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
