//! One pass from the nodes to the kernel's routes.

use super::nodes::Node;
use super::plan::{self, LocalPrefix, Op, Problem, RouteSpec};
use super::routes::{ApplyError, Kernel, KernelError};

/// What one pass found and did.
#[derive(Debug, Default)]
pub struct Report {
    /// The addresses of this host.
    pub local: Vec<LocalPrefix>,
    /// The routes that should be there.
    pub desired: Vec<RouteSpec>,
    /// Those that were missing.
    pub added: Vec<RouteSpec>,
    /// Those that led elsewhere, as they are now.
    pub replaced: Vec<RouteSpec>,
    /// Those that nobody wants any more.
    pub deleted: Vec<RouteSpec>,
    /// Pod CIDRs that get no route, and why.
    pub problems: Vec<Problem>,
    /// Changes that the kernel refused.
    pub errors: Vec<ApplyError>,
}

/// Makes our routes in `kernel` what `nodes` ask for, seen from the node named `me`. If nothing has to change, nothing
/// is done, so it may be called at any time, as often as one likes.
///
/// `nodes` must have been read successfully once: for an empty list it removes every route of ours. An error means
/// that the kernel's state could not be read, and that nothing was changed.
pub async fn reconcile(nodes: &[Node], me: &str, kernel: &Kernel) -> Result<Report, KernelError> {
    let local = kernel.local_prefixes().await?;
    let actual = kernel.actual().await?;
    let (desired, problems) = plan::desired(nodes, me, &local);
    let ops = plan::plan(&desired, &actual);
    let errors = kernel.apply(&ops).await;

    let mut report = Report { local, desired, problems, errors, ..Report::default() };
    for op in ops {
        if report.errors.iter().any(|error| *error.op() == op) {
            continue;
        }
        match op {
            Op::Add(route) => report.added.push(route),
            Op::Replace { new, .. } => report.replaced.push(new),
            Op::Delete(route) => report.deleted.push(route),
        }
    }
    Ok(report)
}
