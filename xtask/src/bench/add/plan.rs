use serde::{Deserialize, Serialize};

/// How often what is measured.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Plan {
    /// Rounds of one pod after another.
    pub(super) rounds: usize,
    /// Rounds beside a plugin that waits for duplicate address detection: fewer, because it takes up to two seconds.
    pub(super) waiting_rounds: usize,
    /// Pods that are there where many are to be there.
    pub(super) present: usize,
    /// What the random order comes from.
    pub(super) seed: u64,
}

impl Plan {
    pub(super) fn new(quick: bool, rounds: Option<usize>, seed: Option<u64>) -> Self {
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        let plan = if quick {
            Self { rounds: 40, waiting_rounds: 6, present: 100, seed }
        } else {
            Self { rounds: 200, waiting_rounds: 20, present: 500, seed }
        };
        Self { rounds: rounds.unwrap_or(plan.rounds).max(1), ..plan }
    }
}
