//! What tells whether a run says anything.
//!
//! A direct veth pair beside a routed path without netfilter, and a routed path beside itself. None of them has anything of
//! minicni. How much better the direct pair is does not change on one machine; and whatever the method makes of a thing
//! beside itself that is not 1 it makes of others, too.
//!
//! That single rounds scatter says nothing against a run: it makes the intervals of its medians wide.

use super::{report::Report, topology::Topology, workload::Workload};
use crate::bench::statistics::Summary;

/// Where the ratio of a direct pair has to lie: a node in between costs something, and not half of the time.
const BAND: [f64; 2] = [1.0, 1.6];
/// Where that of a path to itself has to lie.
const SAME: [f64; 2] = [0.99, 1.01];

/// The controls of one workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Control {
    pub(super) workload: Workload,
    /// By how much the direct pair is better.
    pub(super) direct: Summary,
    /// The same in the first and in the second half of the rounds.
    pub(super) halves: [Summary; 2],
    /// By how much a path is better than itself; `None` of figures that were kept without it.
    pub(super) again: Option<Summary>,
}

impl Control {
    pub(super) fn of(report: &Report, workload: Workload) -> Self {
        let rounds = |topology| report.series(workload, topology).map_or(&[][..], |series| &series.rounds);
        let better = |one: &[f64], other: &[f64]| -> Vec<f64> {
            let better = |(one, other): (&f64, &f64)| if workload.more_is_better() { one / other } else { other / one };
            one.iter().zip(other).map(better).collect()
        };
        let direct = better(rounds(Topology::Direct), rounds(Topology::Plain));
        let again = better(rounds(Topology::RoutedAgain), rounds(Topology::Routed));
        Self::new(workload, &direct, &again)
    }

    fn new(workload: Workload, direct: &[f64], again: &[f64]) -> Self {
        let (first, second) = direct.split_at(direct.len() / 2);
        Self {
            workload,
            direct: Summary::of(direct),
            halves: [first, second].map(Summary::of),
            again: (!again.is_empty()).then(|| Summary::of(again)),
        }
    }

    /// Why what is said about the workload means nothing; none where it does.
    pub(super) fn disturbed(&self) -> Option<&'static str> {
        let Some(direct) = self.direct.interval else { return Some("too few rounds") };
        let drifted = match self.halves.map(|half| half.interval) {
            [Some(first), Some(second)] => !overlap(first, second),
            // A quick run is too short to tell.
            _ => false,
        };
        if !overlap(direct, BAND) {
            Some("a control left its band")
        } else if drifted {
            Some("a control drifted")
        } else if self.again.and_then(|again| again.interval).is_some_and(|again| !overlap(again, SAME)) {
            Some("a path differed from itself")
        } else {
            None
        }
    }

    /// The rule, in words.
    pub(super) fn rule() -> String {
        format!(
            "The interval of the one has to meet {} .. {}, that of the other {} .. {}; and the intervals of the two halves of \
             a run have to meet each other",
            BAND[0], BAND[1], SAME[0], SAME[1]
        )
    }
}

fn overlap(one: [f64; 2], other: [f64; 2]) -> bool {
    one[0] <= other[1] && other[0] <= one[1]
}

/// The controls of all workloads that were measured.
pub(super) fn controls(report: &Report) -> Vec<Control> {
    let measured = |workload: &Workload| report.series.iter().any(|series| series.workload == *workload);
    Workload::ALL.into_iter().filter(measured).map(|workload| Control::of(report, workload)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twelve rounds around each of two values, as far apart as the last says.
    fn rounds([first, second]: [f64; 2], scatter: f64) -> Vec<f64> {
        let around = |value: f64| (0..12_u32).map(move |round| value + scatter * (f64::from(round) / 11.0 - 0.5));
        around(first).chain(around(second)).collect()
    }

    #[test]
    fn a_control_that_leaves_its_band_drifts_or_differs_from_itself_makes_a_run_say_nothing() {
        for (direct, scatter, again, expected) in [
            ([1.17, 1.17], 0.02, 1.0, None),
            ([1.17, 1.20], 0.3, 1.0, None),
            ([0.9, 0.9], 0.02, 1.0, Some("a control left its band")),
            ([1.7, 1.7], 0.02, 1.0, Some("a control left its band")),
            ([1.1, 1.2], 0.02, 1.0, Some("a control drifted")),
            ([1.17, 1.17], 0.02, 1.05, Some("a path differed from itself")),
        ] {
            let control = Control::new(Workload::TcpSameCpu, &rounds(direct, scatter), &rounds([again; 2], scatter));
            assert_eq!(control.disturbed(), expected, "{direct:?}, {scatter}, {again}");
        }
        let few = Control::new(Workload::TcpSameCpu, &[1.17; 5], &[1.0; 5]);
        assert_eq!(few.disturbed(), Some("too few rounds"));
    }
}
