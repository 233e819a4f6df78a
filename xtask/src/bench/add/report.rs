use serde::{Deserialize, Serialize};

use super::{
    plan::Plan,
    present::Present,
    sequence::{DualStack, Sequence},
};
use crate::bench::{environment::Environment, plugins::controls::Summaries};

/// All that a run found. Times are milliseconds from exec to exit.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(in crate::bench) struct Report {
    pub(in crate::bench) environment: Environment,
    pub(super) plan: Plan,
    pub(super) controls: Summaries,
    /// One pod after another.
    pub(super) sequence: Sequence,
    /// ADD with an address of each family.
    pub(super) dual_stack: DualStack,
    /// With many pods present, and with none.
    pub(super) present: Present,
}
