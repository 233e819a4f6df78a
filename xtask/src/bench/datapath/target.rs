//! What is to be reached.

use super::{
    control::Control,
    report::Report,
    topology::Topology::{self as T},
    workload::Workload::{self as W},
};
use crate::bench::{
    judged::{Judged, Limits, Verdict},
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
    limits: Limits,
}

/// What the program itself may take, in nanoseconds.
const PROGRAM: Limits = Limits::at_most([60.0, 30.0]);

const fn target(id: &'static str, workload: W, subject: T, baselines: &'static [T], limits: [f64; 2]) -> Target {
    let limits = match workload {
        W::CpuTime => Limits::at_most(limits),
        _ => Limits::at_least(limits),
    };
    Target { id, workload, subject, baselines, limits }
}

/// All of them.
pub(super) const TARGETS: [Target; 23] = [
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
    target("F1", W::TcpSameCpu, T::Minicni, &[T::Flowtable], [1.0, 1.05]),
    target("F1", W::UdpSameCpu, T::Minicni, &[T::Flowtable], [1.0, 1.05]),
    target("X1", W::TcpSameCpu, T::RemoteMinicni, &[T::RemoteRouted], [1.15, 1.22]),
    target("X1", W::UdpSameCpu, T::RemoteMinicni, &[T::RemoteRouted], [1.15, 1.22]),
    target("X2", W::TcpSameCpu, T::RemoteMinicni, &[T::RemoteHosts], [0.92, 1.00]),
    target("X3", W::Stream, T::RemoteMinicni, &[T::RemoteVxlan], [1.3, 1.6]),
];

/// The verdicts of a run.
pub(in crate::bench) fn judge(report: &Report) -> Vec<Judged> {
    let mut judged: Vec<_> = TARGETS.iter().map(|target| target.judge(report)).collect();
    let after = judged.iter().position(|row| row.id == "D10").unwrap_or(judged.len());
    judged.insert(after, judge_program(report));
    judged
}

/// The verdicts of a run without time: no nanoseconds, and nothing of what it left out.
pub(super) fn judge_ratios(report: &Report) -> Vec<Judged> {
    let mut judged = judge(report);
    judged.retain(|row| row.id != "D9" && !matches!(row.verdict, Verdict::NotMeasured(_)));
    judged
}

/// The verdicts of a run; those that its kernel cannot give, by instructions counted under another kernel.
pub(in crate::bench) fn judge_all(report: &Report, counted: Option<&Report>) -> Vec<Judged> {
    let mut judged = judge(report);
    let counted: Vec<_> = counted.into_iter().flat_map(judge).filter(|row| row.id == "F1").collect();
    if !counted.is_empty() && report.missing.iter().any(|missing| missing.topology == T::Flowtable) {
        judged.retain(|row| row.id != "F1");
        let counted = counted.into_iter().map(|row| Judged { what: format!("{}, by instructions", row.what), ..row });
        judged.extend(counted);
    }
    judged
}

impl Target {
    fn judge(&self, report: &Report) -> Judged {
        let Self { id, workload, subject, limits, .. } = *self;
        let baseline = self.baseline(report);
        let what = match subject {
            T::Minicni => workload.name().to_owned(),
            subject => format!("{}, {}", workload.name(), subject.name()),
        };
        let found = report.compared(workload, subject, baseline).map(|compared| compared.ratio);
        Judged {
            id,
            what,
            baseline: baseline.name().to_owned(),
            found: found.as_ref().map_or_else(String::new, ratio),
            target: limits.words("x"),
            ceiling: ceiling(report, workload, subject).unwrap_or_default(),
            verdict: match found {
                None => Verdict::NotMeasured(missing(report, workload, [subject, baseline]).to_owned()),
                Some(found) => match Control::of(report, workload).disturbed() {
                    Some(why) => Verdict::Unknown(why),
                    None => limits.judge_median(&found),
                },
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

/// A place beside what none of its kind can exceed, in words.
fn ceiling(report: &Report, workload: W, subject: T) -> Option<String> {
    let ratio = report.compared(workload, subject, subject.ceiling())?.ratio.median;
    let part = if workload.more_is_better() { ratio } else { 1.0 / ratio };
    Some(format!("{:.0} % of {}", part * 100.0, subject.ceiling().name()))
}

fn judge_program(report: &Report) -> Judged {
    let summary = Summary::of(&report.program_beyond_empty());
    Judged {
        id: "D9",
        what: "our program on a packet that it redirects".to_owned(),
        baseline: "an empty program".to_owned(),
        found: format!("+{} ns", summary.with_interval(0)),
        target: PROGRAM.words(" ns"),
        ceiling: String::new(),
        verdict: match Control::of(report, W::UdpSameCpu).disturbed() {
            Some(why) => Verdict::Unknown(why),
            None => PROGRAM.judge_median(&summary),
        },
    }
}

/// Why a comparison was not measured.
fn missing(report: &Report, workload: W, topologies: [T; 2]) -> &str {
    if report.series.iter().all(|series| series.workload != workload) {
        return "it takes two CPUs";
    }
    let reason = report.missing.iter().find(|missing| topologies.contains(&missing.topology));
    reason.map_or("the report does not say why", |missing| &missing.reason)
}

/// A ratio with its interval.
pub(super) fn ratio(ratio: &Summary) -> String {
    ratio.with_interval(3)
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
