//! What tells whether the machine was quiet enough: a direct veth pair beside a routed path without netfilter.
//!
//! None of the two has anything of minicni, and how much faster the one is does not change on one machine. So where the
//! ratio moves, something else was measured with it.

use super::{report::Report, topology::Topology, workload::Workload};
use crate::bench::statistics::Summary;

/// Where the median of the ratio has to lie: a node in between costs something, and not half of the time.
const BAND: [f64; 2] = [1.0, 1.6];
/// How far its quartiles may lie apart, and the medians of the halves of a run, as parts of the median.
const SPREAD: f64 = 0.08;
const DRIFT: f64 = 0.06;

/// The control of one workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Control {
    pub(super) workload: Workload,
    /// By how much the direct pair is better.
    pub(super) ratio: Summary,
    /// The medians of the first and of the second half of the rounds.
    pub(super) halves: [f64; 2],
}

impl Control {
    pub(super) fn of(report: &Report, workload: Workload) -> Self {
        let rounds = |topology| report.series(workload, topology).map_or(&[][..], |series| &series.rounds);
        let (direct, plain) = (rounds(Topology::Direct), rounds(Topology::Plain));
        let better = |(direct, plain): (&f64, &f64)| {
            if workload.more_is_better() { direct / plain } else { plain / direct }
        };
        let ratios: Vec<_> = direct.iter().zip(plain).map(better).collect();
        let (first, second) = ratios.split_at(ratios.len() / 2);
        Self { workload, ratio: Summary::of(&ratios), halves: [first, second].map(|half| Summary::of(half).median) }
    }

    /// Whether what is said about the workload means something.
    pub(super) fn steady(&self) -> bool {
        let [first, second] = self.halves;
        let median = self.ratio.median;
        (BAND[0]..=BAND[1]).contains(&median)
            && self.ratio.upper_quartile - self.ratio.lower_quartile <= SPREAD * median
            && (first - second).abs() <= DRIFT * median
    }

    /// The rule, in words.
    pub(super) fn rule() -> String {
        format!(
            "the median from {} to {}, the quartiles at most {:.0} % of it apart, the medians of the two halves of the \
             run at most {:.0} %",
            BAND[0],
            BAND[1],
            SPREAD * 100.0,
            DRIFT * 100.0
        )
    }
}

/// The controls of all workloads.
#[derive(Clone, Debug)]
pub(super) struct Controls {
    pub(super) all: Vec<Control>,
}

impl Controls {
    pub(super) fn of(report: &Report) -> Self {
        Self { all: Workload::ALL.into_iter().map(|workload| Control::of(report, workload)).collect() }
    }

    /// Whether the run says anything: on one CPU nothing but other processes makes the ratio move.
    pub(super) fn run_is_steady(&self) -> bool {
        self.steady_alone(Workload::TcpSameCpu) && self.steady_alone(Workload::UdpSameCpu)
    }

    /// Whether there is a verdict about this workload.
    pub(super) fn steady(&self, workload: Workload) -> bool {
        self.run_is_steady() && self.steady_alone(workload)
    }

    fn steady_alone(&self, workload: Workload) -> bool {
        self.all.iter().any(|control| control.workload == workload && control.steady())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(ratios: &[f64]) -> Control {
        let (first, second) = ratios.split_at(ratios.len() / 2);
        Control {
            workload: Workload::TcpSameCpu,
            ratio: Summary::of(ratios),
            halves: [first, second].map(|half| Summary::of(half).median),
        }
    }

    #[test]
    fn a_control_that_leaves_its_band_scatters_or_drifts_is_not_steady() {
        for (ratios, steady, what) in [
            (&[1.17, 1.18, 1.16, 1.19, 1.18, 1.17][..], true, "as measured on a quiet machine"),
            (&[0.9, 0.91, 0.9, 0.91, 0.9, 0.9], false, "a node in between cannot make it faster"),
            (&[1.7, 1.71, 1.7, 1.71, 1.7, 1.7], false, "nor cost so much"),
            (&[1.0, 1.4, 1.0, 1.4, 1.0, 1.4], false, "scatters"),
            (&[1.1, 1.1, 1.1, 1.18, 1.18, 1.18], false, "drifts"),
            (&[], false, "nothing measured"),
        ] {
            assert_eq!(control(ratios).steady(), steady, "{what}");
        }
    }
}
