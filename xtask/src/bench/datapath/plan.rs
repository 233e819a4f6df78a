use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often and how long what is measured.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Plan {
    /// In each of them everything is measured once, but what is measured less often. One more before them warms up and is not
    /// counted.
    pub(super) rounds: usize,
    /// In every which round what no target is about, and takes long, is measured.
    #[serde(default = "always")]
    pub(super) seldom: usize,
    /// How long everything is measured in a round.
    pub(super) milliseconds: u64,
    /// Pods on the node with many; with none, that node is left out.
    pub(super) pods: usize,
    /// Routes to other nodes that it has.
    pub(super) routes: usize,
    /// What the random order comes from.
    pub(super) seed: u64,
}

impl Plan {
    pub(super) fn new(quick: bool, seed: Option<u64>) -> Self {
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        if quick {
            Self { rounds: 7, seldom: always(), milliseconds: 40, pods: 0, routes: 0, seed }
        } else {
            // Short ones: where what else the machine does comes and goes within a second, what is compared is next to each other.
            Self { rounds: 181, seldom: 4, milliseconds: 20, pods: 500, routes: 5_000, seed }
        }
    }

    pub(super) fn time(&self) -> Duration {
        Duration::from_millis(self.milliseconds)
    }
}

/// In every round.
fn always() -> usize {
    1
}
