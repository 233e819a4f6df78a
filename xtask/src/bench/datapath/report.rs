use serde::{Deserialize, Serialize};

use super::{plan::Plan, scene::Missing, topology::Topology, workload::Workload};
use crate::bench::{environment::Environment, statistics::Compared};

/// All that a run found, round by round, so that whoever doubts a figure can count again.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(in crate::bench) struct Report {
    pub(in crate::bench) environment: Environment,
    /// What the kernel does against each vulnerability of the CPU that it knows.
    pub(super) mitigations: Vec<String>,
    /// Of a hundred seconds of the CPUs' time, those that a hypervisor gave to others.
    pub(super) stolen: f64,
    /// Measurements that failed and were made again.
    pub(super) repeated: usize,
    pub(super) plan: Plan,
    pub(super) series: Vec<Series>,
    pub(super) missing: Vec<Missing>,
    /// Nanoseconds of our program on a packet that it redirects, and of an empty one, by round.
    pub(super) program: [Vec<f64>; 2],
}

/// One workload in one place.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Series {
    pub(super) workload: Workload,
    pub(super) topology: Topology,
    /// In a second: exchanges, connections, or bits; or nanoseconds for each datagram.
    pub(super) rounds: Vec<f64>,
    /// Packets that our programs redirected, for each exchange, connection or datagram; of streams, that they redirected
    /// any; none where there are no programs of ours.
    pub(super) redirected: Option<f64>,
}

impl Report {
    pub(super) fn series(&self, workload: Workload, topology: Topology) -> Option<&Series> {
        self.series.iter().find(|series| series.workload == workload && series.topology == topology)
    }

    /// One place beside another; none where one of them was not measured.
    pub(super) fn compared(&self, workload: Workload, subject: Topology, baseline: Topology) -> Option<Compared> {
        let rounds = |topology| Some(&self.series(workload, topology)?.rounds);
        Some(Compared::of(rounds(subject)?, rounds(baseline)?))
    }

    /// Nanoseconds of our program beyond those of an empty one, by round.
    pub(super) fn program_beyond_empty(&self) -> Vec<f64> {
        let [ours, empty] = &self.program;
        ours.iter().zip(empty).map(|(ours, empty)| ours - empty).collect()
    }
}
