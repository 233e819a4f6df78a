//! What a run found, and in words.

use std::fmt;

use anyhow::Result;
use comfy_table::{
    Table, TableStyle,
    presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED},
};
use serde::{Deserialize, Serialize};

use crate::bench::{
    environment::Environment,
    judged::{Judged, Limits, Verdict},
    plot::{Bars, Row},
    statistics::Compared,
};

/// All that a run found, round by round.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(in crate::bench) struct Report {
    pub(in crate::bench) environment: Environment,
    pub(super) rounds: usize,
    /// How long everything is measured in a round.
    pub(super) milliseconds: u64,
    pub(super) series: Vec<Series>,
}

/// One workload with one set of rules.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Series {
    pub(super) layout: Layout,
    pub(super) services: usize,
    pub(super) workload: Workload,
    /// Exchanges or connections in a second, by round.
    pub(super) minicni: Vec<f64>,
    /// The same without our programs.
    pub(super) routed: Vec<f64>,
    /// The same once more; none in figures that were kept without it.
    #[serde(default)]
    pub(super) again: Vec<f64>,
    /// Packets that our programs redirected for each exchange or connection.
    pub(super) redirected: f64,
}

/// The mode of kube-proxy whose rules there are.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Layout {
    Iptables,
    Nftables,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        })
    }
}

/// What client and server do, on one CPU.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Workload {
    /// Requests over one connection between two pods.
    Established,
    /// A connection between two pods for each request.
    New,
    /// Requests over one connection to the service whose rules come last.
    EstablishedByService,
    /// A connection to it for each request.
    NewByService,
}

impl Workload {
    pub(super) const ALL: [Self; 4] = [Self::Established, Self::New, Self::EstablishedByService, Self::NewByService];

    pub(super) fn by_service(self) -> bool {
        matches!(self, Self::EstablishedByService | Self::NewByService)
    }

    pub(super) fn connects(self) -> bool {
        matches!(self, Self::New | Self::NewByService)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Established => "request/response, direct",
            Self::New => "connect, request, close, direct",
            Self::EstablishedByService => "request/response, by ClusterIP",
            Self::NewByService => "connect, request, close, by ClusterIP",
        }
    }

    /// The name of its target and what it is: what holds on a node with few rules is to hold here, too.
    fn target(self) -> (&'static str, [f64; 2]) {
        match self {
            Self::Established => ("D1", [1.18, 1.25]),
            Self::New => ("D7", [0.97, 1.0]),
            Self::EstablishedByService | Self::NewByService => ("D11", [0.97, 0.985]),
        }
    }
}

/// Where the ratio of a path to itself has to lie.
const SAME: [f64; 2] = [0.99, 1.01];

impl Series {
    fn compared(&self) -> Compared {
        Compared::of(&self.minicni, &self.routed)
    }

    fn limits(&self) -> Limits {
        Limits::at_least(self.workload.target().1)
    }

    fn verdict(&self) -> Verdict {
        if let Some([low, high]) = Compared::of(&self.again, &self.routed).ratio.interval
            && (low > SAME[1] || high < SAME[0])
        {
            return Verdict::Unknown("a path differed from itself");
        }
        self.limits().judge_median(&self.compared().ratio)
    }
}

/// The verdicts of a run.
pub(in crate::bench) fn judge(report: &Report) -> Vec<Judged> {
    let judged = |series: &Series| Judged {
        id: series.workload.target().0,
        what: format!("{}, {} services, {}", series.workload.name(), series.services, series.layout),
        baseline: "routed, conntrack".to_owned(),
        found: ratio(series),
        target: series.limits().words("x"),
        ceiling: String::new(),
        verdict: series.verdict(),
    };
    report.series.iter().map(judged).collect()
}

fn ratio(series: &Series) -> String {
    series.compared().ratio.with_interval(3)
}

/// For a terminal.
pub(super) fn render(report: &Report) -> String {
    format!("{}\n{}", table(report, UTF8_FULL_CONDENSED), notes(report))
}

/// For docs/bench-services.md.
pub(in crate::bench) fn document(report: &Report) -> String {
    format!(
        "# Many services\n\n\
         A node with as many of kube-proxy's services as the table says, in the layout of its iptables mode and of its \
         nftables mode, with minicni's programs\nand without them. Everything runs on one CPU. The service that is used \
         comes last, behind all the others. A ratio is the median of the ratios of single\nrounds, with its interval, and \
         judged as [there](performance.md#controls-and-what-a-verdict-means).\n\n\
         ```sh\n\
         cargo xtask bench services --json docs/bench-services.json\n\
         cargo xtask bench all --from docs --docs docs   # this document, its plot, and those of the other benchmarks\n\
         ```\n\n\
         {}\n\n\
         New connections walk the rules of the iptables mode one by one, which nobody saves them: they go through the \
         stack by design. What is established does\nnot, and what is promoted meets no rule at all.\n\n\
         ![request/response between two pods, without our programs = 1](bench-services.svg)\n\n{}\n",
        table(report, ASCII_MARKDOWN),
        notes(report)
    )
}

/// Ratios as bars: request/response between two pods.
pub(in crate::bench) fn svg(report: &Report) -> Result<String> {
    plot(report, Workload::Established)
}

/// As [`svg`], a plot for each workload.
pub(in crate::bench) fn svgs(report: &Report) -> Result<Vec<String>> {
    Workload::ALL.into_iter().map(|workload| plot(report, workload)).collect()
}

fn plot(report: &Report, workload: Workload) -> Result<String> {
    let row = |series: &Series| Row {
        name: format!("{}, {} services", series.layout, series.services),
        ours: true,
        bars: vec![series.compared().ratio],
    };
    let of = report.series.iter().filter(|series| series.workload == workload);
    let title = format!("TCP {}, without our programs = 1", workload.name());
    Bars { title: &title, rows: of.map(row).collect() }.svg()
}

fn table(report: &Report, style: TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_header([
        "",
        "services",
        "layout",
        "minicni",
        "routed",
        "ratio",
        "redirected",
        "verdict",
    ]);
    for workload in Workload::ALL {
        for series in report.series.iter().filter(|series| series.workload == workload) {
            let Compared { subject, baseline, .. } = series.compared();
            table.add_row([
                workload.name().to_owned(),
                series.services.to_string(),
                series.layout.to_string(),
                format!("{:.1} k/s", subject.median * 1e-3),
                format!("{:.1} k/s", baseline.median * 1e-3),
                ratio(series),
                format!("{:.2}", series.redirected),
                series.verdict().to_string(),
            ]);
        }
    }
    table
}

fn notes(report: &Report) -> String {
    let environment = &report.environment;
    format!(
        "* {} rounds, {} ms for each measurement in each\n\
         * {environment}; minicni {}",
        report.rounds, report.milliseconds, environment.minicni,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Report {
        serde_json::from_str(include_str!("../../../../docs/bench-services.json")).unwrap()
    }

    #[test]
    fn rounds_that_scatter_around_a_target_are_too_close_to_call() {
        let mut series = kept().series.remove(0);
        series.routed = vec![1.0; 7];
        series.again.clone_from(&series.routed);
        series.minicni = vec![1.3; 7];
        assert_eq!(series.verdict(), Verdict::Ambitious);
        series.minicni = vec![1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6];
        assert_eq!(series.verdict(), Verdict::Close);
    }
}
