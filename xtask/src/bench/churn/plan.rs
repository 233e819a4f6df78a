use serde::{Deserialize, Serialize};

/// How often what is measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Plan {
    /// So many pods of each plugin are there already; from few to many.
    pub(super) present: Vec<usize>,
    /// Pods that are added at once, and deleted at once.
    pub(super) at_once: usize,
    /// Pods that are deleted at once while others are added.
    pub(super) deleted: usize,
    /// Rounds, with each number of pods present.
    pub(super) rounds: usize,
    /// Pods whose first packet is waited for, one after another, and in all where many come at once.
    pub(super) first_packets: usize,
    /// What the random order comes from.
    pub(super) seed: u64,
}

impl Plan {
    pub(super) fn new(quick: bool, seed: Option<u64>) -> Self {
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        if quick {
            Self { present: vec![0, 100], at_once: 20, deleted: 10, rounds: 7, first_packets: 100, seed }
        } else {
            Self { present: vec![0, 100, 500], at_once: 100, deleted: 50, rounds: 11, first_packets: 1_000, seed }
        }
    }
}
