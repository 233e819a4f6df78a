use serde::{Deserialize, Serialize};

use super::{
    controls::Summaries,
    parallel::Parallel,
    plan::Plan,
    present::Present,
    sequence::{DualStack, Sequence},
};
use crate::bench::{environment::Environment, statistics::Compared};

/// All that a run found. Times are milliseconds from exec to exit.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(in crate::bench) struct Report {
    pub(super) environment: Environment,
    pub(super) plan: Plan,
    pub(super) controls: Summaries,
    /// One pod after another.
    pub(super) sequence: Sequence,
    /// ADD with an address of each family.
    pub(super) dual_stack: DualStack,
    /// With many pods present, and with none.
    pub(super) present: Present,
    /// Many at once.
    pub(super) parallel: Parallel,
    /// The p99 of ADD while others are deleted.
    pub(super) churn: Compared,
    /// The size of the plugin's stripped binary.
    pub(super) plugin_bytes: u64,
}
