use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::bench::{environment::Environment, plugins::controls::Summaries, statistics::Compared};

/// All that a run found. Times are milliseconds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(in crate::bench) struct Report {
    pub(in crate::bench) environment: Environment,
    pub(super) plan: Plan,
    pub(super) controls: Summaries,
    pub(super) series: Vec<Series>,
    pub(super) first_packets: FirstPackets,
}

/// minicni beside another plugin, with so many pods of either present; one figure for each round.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Series {
    pub(super) present: usize,
    /// The other plugin.
    pub(super) beside: String,
    /// From the first exec of as many as the plan says at once to the last exit.
    pub(super) add_wall: Compared,
    /// The p99 of their calls.
    pub(super) add_p99: Compared,
    pub(super) del_wall: Compared,
    pub(super) del_p99: Compared,
    /// The p99 of ADD, one after another, while others are deleted at once.
    pub(super) add_while_deleted: Compared,
}

/// Pods of minicni whose first packet was lost.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct FirstPackets {
    /// Of as many as the plan says, one after another.
    pub(super) lost_in_turn: usize,
    /// How many were added at once in the other case.
    pub(super) at_once: usize,
    /// Of as many, so many at once.
    pub(super) lost_at_once: usize,
}
