use std::{collections::BTreeMap, io::Write as _, process::ExitCode};

use clap::Args;
use minicni_common::{Counters, FlowState, Reason, Verdict};
use serde::Serialize;

use super::{
    Directories,
    endpoints::{self, EndpointView},
    table,
    uplinks::{self, UplinkView},
};
use crate::{
    daemon::plan::ROUTE_PROTOCOL,
    datapath::{Flows, Pins, counters},
    link::{LinkError, LinkInfo, RouteFilter, Socket, sysctl},
    node::{DaemonReport, Facts, Mode, StateDir, attach},
};

/// `minicnid status`.
#[derive(Args, Debug)]
pub(super) struct Status {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    directories: Directories,
}

/// What is known about a node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    node: Option<Facts>,
    daemon: bool,
    endpoints: Vec<EndpointView>,
    uplinks: Vec<UplinkView>,
    routes: Vec<RouteView>,
    flows: FlowsView,
    packets: Packets,
    counters: BTreeMap<&'static str, u64>,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct RouteView {
    destination: String,
    via: Option<String>,
    interface: String,
}

#[derive(Debug, Default, Serialize)]
struct FlowsView {
    observed: usize,
    promoted: usize,
    closing: usize,
}

/// Packets by verdict.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Packets {
    fast: u64,
    stack: u64,
    dropped: u64,
    /// Of those that were not dropped; `null` where there were none.
    fast_percent: Option<f64>,
}

pub(super) fn run(arguments: &Status) -> ExitCode {
    let view = View::collect(&arguments.directories.state(), &arguments.directories.pins());
    let text = if arguments.json {
        serde_json::to_string_pretty(&view).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
    } else {
        view.to_string()
    };
    // A reader that went away is no error.
    let _ = writeln!(std::io::stdout(), "{text}");
    if view.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl View {
    /// Collects what can be had; what cannot becomes a problem.
    fn collect(state: &StateDir, pins: &Pins) -> Self {
        let mut problems = Vec::new();
        let node = keep(Facts::read(state), &mut problems).flatten();
        let daemon = state.has_daemon();
        match keep(DaemonReport::read(state), &mut problems).flatten() {
            Some(report) if daemon => problems.extend(report.problems.into_iter().map(|problem| problem.message)),
            _ if !daemon => {
                problems.push("minicnid does not run here; pods work, routes to new nodes are missing".into());
            }
            _ => {}
        }
        let links = keep(Socket::open().and_then(|mut socket| socket.links()), &mut problems).unwrap_or_default();
        match &node {
            None => {
                problems.push(format!("{} is missing: the node was not prepared since boot", state.facts().display()));
            }
            Some(facts) => {
                problems.extend(datapath_problems(&facts.datapath, pins));
                problems.extend(forwarding_problems(facts));
            }
        }
        let ebpf = matches!(node.as_ref().map(|facts| &facts.datapath), Some(Mode::Ebpf { .. }));
        let counted = if ebpf { keep(counters(pins), &mut problems) } else { None }.unwrap_or_default();
        Self {
            daemon,
            endpoints: if ebpf { endpoints::collect(pins, &links, &mut problems) } else { Vec::new() },
            uplinks: if ebpf { uplinks::collect(pins, &links, &mut problems) } else { Vec::new() },
            routes: keep(routes(&links), &mut problems).unwrap_or_default(),
            flows: if ebpf { flows(pins, &mut problems) } else { FlowsView::default() },
            packets: Packets::new(&counted),
            counters: Reason::ALL.iter().map(|reason| (reason.name(), counted.get(*reason))).collect(),
            node,
            problems,
        }
    }
}

/// Makes a failure a problem.
pub(super) fn keep<T, E: std::fmt::Display>(result: Result<T, E>, problems: &mut Vec<String>) -> Option<T> {
    result.map_err(|error| problems.push(error.to_string())).ok()
}

fn datapath_problems(mode: &Mode, pins: &Pins) -> Vec<String> {
    let mut problems = Vec::new();
    match mode {
        Mode::Route { reason } => problems.extend(reason.iter().map(|reason| format!("no eBPF fast path: {reason}"))),
        Mode::Ebpf { without_tcp, .. } => {
            problems.extend(without_tcp.iter().map(|reason| format!("no fast path for TCP: {reason}")));
            problems.extend(attachment_problems(pins).unwrap_or_else(|error| vec![error]));
        }
    }
    problems
}

fn forwarding_problems(node: &Facts) -> Vec<String> {
    let is_off = |ipv6: bool| {
        let key = if ipv6 { "net/ipv6/conf/all/forwarding" } else { "net/ipv4/ip_forward" };
        let off = sysctl::read(key).is_ok_and(|value| value != "1");
        off.then(|| format!("{key} is not 1: this host does not forward packets of pods"))
    };
    [false, true].into_iter().filter(|ipv6| !ipv6 || node.ipv6()).filter_map(is_off).collect()
}

fn attachment_problems(pins: &Pins) -> Result<Vec<String>, String> {
    let programs = pins.open_programs().map_err(|error| format!("{error}; restart minicnid, which loads it"))?;
    let mut socket = Socket::open().map_err(|error| error.to_string())?;
    let (ingress, egress) = programs.ids();
    let mut problems = Vec::new();
    for (block, expected) in [(attach::INGRESS_BLOCK, ingress), (attach::EGRESS_BLOCK, egress)] {
        match attach::attached(&mut socket, block) {
            // No pod, no block.
            Ok(None) => {}
            Ok(Some(found)) if found == expected => {}
            Ok(Some(found)) => {
                problems.push(format!("tc block {block} has program {found}, not the pinned {expected}"));
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    Ok(problems)
}

fn routes(links: &[LinkInfo]) -> Result<Vec<RouteView>, LinkError> {
    let routes = Socket::open()?.routes(RouteFilter { protocol: Some(ROUTE_PROTOCOL), ifindex: None })?;
    let name =
        |ifindex| links.iter().find(|link| link.ifindex == ifindex).map_or(String::new(), |link| link.name.clone());
    Ok(routes
        .into_iter()
        .map(|route| RouteView {
            destination: route.destination.to_string(),
            via: route.via.or(route.tunnel).map(|via| via.to_string()),
            interface: name(route.ifindex),
        })
        .collect())
}

fn flows(pins: &Pins, problems: &mut Vec<String>) -> FlowsView {
    let mut view = FlowsView::default();
    for (_, flow) in keep(Flows::open(pins).and_then(|flows| flows.all()), problems).unwrap_or_default() {
        match FlowState::from_number(flow.state) {
            Some(FlowState::Promoted) => view.promoted += 1,
            Some(FlowState::Closing) => view.closing += 1,
            Some(FlowState::Observed) | None => view.observed += 1,
        }
    }
    view
}

impl Packets {
    fn new(counters: &Counters) -> Self {
        let sum = |verdict| {
            let reasons = Reason::ALL.iter().filter(|reason| reason.verdict() == verdict);
            reasons.map(|reason| counters.get(*reason)).sum::<u64>()
        };
        let (fast, stack, dropped) = (sum(Verdict::Fast), sum(Verdict::Stack), sum(Verdict::Drop));
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        let fast_percent = (fast + stack > 0).then(|| fast as f64 * 100.0 / (fast + stack) as f64);
        Self { fast, stack, dropped, fast_percent }
    }
}

impl std::fmt::Display for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(node) = &self.node {
            let cidrs: Vec<_> = node.pod_cidrs.iter().map(ToString::to_string).collect();
            let name = node.node.as_deref().unwrap_or("(no daemon has named it)");
            writeln!(f, "Node       {name}  pods {}  datapath {}", cidrs.join(","), node.datapath)?;
        }
        writeln!(f, "Daemon     {}", if self.daemon { "running" } else { "not running" })?;
        let Packets { fast, stack, dropped, fast_percent } = &self.packets;
        let share = fast_percent.map_or("-".to_owned(), |percent| format!("{percent:.1} %"));
        writeln!(f, "Packets    {fast} fast, {stack} through the stack, {dropped} dropped; fast path {share}")?;
        let FlowsView { observed, promoted, closing } = &self.flows;
        writeln!(f, "Flows      {promoted} promoted, {observed} observed, {closing} closing\n")?;
        let rows = self.endpoints.iter().map(|endpoint| {
            let addresses: Vec<_> = endpoint.addresses.iter().map(ToString::to_string).collect();
            let fast_path = if endpoint.fast_path { "yes" } else { "no" }.to_owned();
            let EndpointView { pod, interface, mac, .. } = endpoint;
            vec![addresses.join(" "), pod.clone(), interface.clone(), mac.clone(), fast_path]
        });
        let header = ["address", "pod", "interface", "mac", "fast path"];
        writeln!(f, "Endpoints\n{}\n", table(&header, rows.collect()))?;
        let rows = self.uplinks.iter().map(|uplink| {
            vec![uplink.interface.clone(), uplink.ifindex.to_string(), uplink.attached.unwrap_or("no").to_owned()]
        });
        writeln!(f, "Uplinks\n{}\n", table(&["interface", "index", "attached"], rows.collect()))?;
        let rows = self.routes.iter().map(|route| {
            vec![route.destination.clone(), route.via.clone().unwrap_or_default(), route.interface.clone()]
        });
        writeln!(f, "Routes to other nodes\n{}\n", table(&["destination", "via", "interface"], rows.collect()))?;
        let rows = Reason::ALL.iter().filter_map(|reason| {
            let count = self.counters.get(reason.name()).filter(|count| **count > 0)?;
            Some(vec![format!("{:?}", reason.verdict()).to_lowercase(), reason.name().to_owned(), count.to_string()])
        });
        writeln!(f, "Counters\n{}\n", table(&["verdict", "reason", "count"], rows.collect()))?;
        match self.problems.as_slice() {
            [] => write!(f, "Nothing is wrong."),
            problems => write!(f, "What is wrong\n  {}", problems.join("\n  ")),
        }
    }
}
