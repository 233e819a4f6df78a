//! What is to be reached.

use super::{
    control::Controls,
    report::Report,
    topology::Topology::{self as T},
    workload::Workload::{self as W},
};
use crate::bench::{
    judged::{Judged, verdict},
    statistics::Summary,
};

/// A ratio that is to be reached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) id: &'static str,
    pub(super) workload: W,
    pub(super) subject: T,
    /// The best of them counts.
    baselines: &'static [T],
    limit: f64,
    ambitious: f64,
}

/// What the program itself may take, in nanoseconds, and what would be better still.
const PROGRAM: [f64; 2] = [60.0, 30.0];

const fn target(
    id: &'static str,
    workload: W,
    subject: T,
    baselines: &'static [T],
    [limit, ambitious]: [f64; 2],
) -> Target {
    Target { id, workload, subject, baselines, limit, ambitious }
}

/// All of them.
pub(super) const TARGETS: [Target; 21] = [
    target("D1", W::TcpSameCpu, T::Minicni, &[T::Routed], [1.18, 1.25]),
    target("D1", W::UdpSameCpu, T::Minicni, &[T::Routed], [1.18, 1.25]),
    target("D2", W::TcpSameCpu, T::Minicni, &[T::Plain], [1.10, 1.15]),
    target("D2", W::UdpSameCpu, T::Minicni, &[T::Plain], [1.10, 1.15]),
    target("D3", W::TcpSameCpu, T::Minicni, &[T::Direct], [0.94, 0.98]),
    target("D3", W::UdpSameCpu, T::Minicni, &[T::Direct], [0.94, 0.98]),
    target("D4", W::TcpOtherCpu, T::Minicni, &[T::Routed], [1.06, 1.10]),
    target("D4", W::UdpOtherCpu, T::Minicni, &[T::Routed], [1.06, 1.10]),
    target("D5", W::TcpSameCpu, T::Minicni, &[T::Bridge], [1.20, 1.28]),
    target("D5", W::UdpSameCpu, T::Minicni, &[T::Bridge], [1.20, 1.28]),
    target("D6", W::Stream, T::Minicni, &[T::Routed, T::Bridge, T::BridgeAlone], [1.02, 1.07]),
    target("D7", W::Connections, T::Minicni, &[T::Routed], [0.97, 1.00]),
    target("D8", W::CpuTime, T::Minicni, &[T::Routed], [0.85, 0.78]),
    target("D10", W::TcpSameCpu, T::Crowded, &[T::Minicni], [0.97, 0.99]),
    target("D10", W::UdpSameCpu, T::Crowded, &[T::Minicni], [0.97, 0.99]),
    target("D11", W::TcpSameCpu, T::Service, &[T::ServiceRouted], [0.97, 0.985]),
    target("D11", W::UdpSameCpu, T::Service, &[T::ServiceRouted], [0.97, 0.985]),
    target("X1", W::TcpSameCpu, T::RemoteMinicni, &[T::RemoteRouted], [1.15, 1.22]),
    target("X1", W::UdpSameCpu, T::RemoteMinicni, &[T::RemoteRouted], [1.15, 1.22]),
    target("X2", W::TcpSameCpu, T::RemoteMinicni, &[T::RemoteHosts], [0.92, 1.00]),
    target("X3", W::Stream, T::RemoteMinicni, &[T::RemoteVxlan], [1.3, 1.6]),
];

/// The verdicts of a run.
pub(in crate::bench) fn judge(report: &Report) -> Vec<Judged> {
    let controls = Controls::of(report);
    let mut judged: Vec<_> = TARGETS.iter().map(|target| target.judge(report, &controls)).collect();
    let after = judged.iter().position(|row| row.id == "D10").unwrap_or(judged.len());
    judged.insert(after, judge_program(report, &controls));
    judged
}

impl Target {
    fn judge(&self, report: &Report, controls: &Controls) -> Judged {
        let baseline = self.baseline(report);
        let compared = report.compared(self.workload, self.subject, baseline);
        let more = self.workload.more_is_better();
        let what = match self.subject {
            T::Minicni => self.workload.name().to_owned(),
            subject => format!("{}, {}", self.workload.name(), subject.name()),
        };
        let found = compared.map(|compared| compared.ratio);
        Judged {
            id: self.id,
            what,
            baseline: baseline.name().to_owned(),
            found: found.as_ref().map_or_else(String::new, ratio),
            target: format!("{} {}x ({})", if more { "≥" } else { "≤" }, self.limit, self.ambitious),
            verdict: match found {
                None => format!("NOT MEASURED: {}", missing(report, self.subject)),
                Some(_) if !controls.steady(self.workload) => UNKNOWN.to_owned(),
                Some(found) => verdict(found.median, [self.limit, self.ambitious], more),
            },
        }
    }

    /// The best of the baselines in this run.
    fn baseline(&self, report: &Report) -> T {
        let median = |topology: T| {
            let median = report
                .series(self.workload, topology)
                .map_or(f64::NEG_INFINITY, |series| Summary::of(&series.rounds).median);
            if self.workload.more_is_better() { median } else { -median }
        };
        let best = self.baselines.iter().copied().max_by(|one, other| median(*one).total_cmp(&median(*other)));
        best.unwrap_or(self.subject.baseline())
    }
}

const UNKNOWN: &str = "unknown: the control was unstable";

fn judge_program(report: &Report, controls: &Controls) -> Judged {
    let summary = Summary::of(&report.program_beyond_empty());
    Judged {
        id: "D9",
        what: "our program on a packet that it redirects".to_owned(),
        baseline: "an empty program".to_owned(),
        found: format!("+{:.0} ns ({:.0} .. {:.0})", summary.median, summary.lower_quartile, summary.upper_quartile),
        target: format!("≤ {} ns ({})", PROGRAM[0], PROGRAM[1]),
        verdict: if controls.run_is_steady() { verdict(summary.median, PROGRAM, false) } else { UNKNOWN.to_owned() },
    }
}

/// Why a place was not measured.
fn missing(report: &Report, topology: T) -> &str {
    let reason = report.missing.iter().find(|missing| missing.topology == topology);
    reason.map_or("the report does not say why", |missing| &missing.reason)
}

/// A ratio with its quartiles.
pub(super) fn ratio(ratio: &Summary) -> String {
    format!("{:.3} ({:.3} .. {:.3})", ratio.median, ratio.lower_quartile, ratio.upper_quartile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_about_places_where_its_workload_is_measured() {
        for target in TARGETS {
            let measured = target.workload.topologies();
            assert!(
                target.baselines.iter().chain([&target.subject]).all(|topology| measured.contains(topology)),
                "{target:?}"
            );
        }
    }
}
