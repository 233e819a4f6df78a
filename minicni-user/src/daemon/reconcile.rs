//! One pass from the nodes to the kernel's routes.

use super::next_hops::Tunnel;
use super::nodes::Node;
use super::plan::{self, LocalPrefix, Op, Problem, RouteSpec};
use super::problems::Reason;
use super::routes::{ApplyError, Kernel, KernelError};
use super::tunnel::{self, TunnelError};
use super::underlay::{Encapsulation, Settings, Underlay};
use crate::link::LinkError;

/// What one pass found and did.
#[derive(Debug, Default)]
pub struct Report {
    /// The addresses of this host.
    pub local: Vec<LocalPrefix>,
    /// Those by which it meets the other nodes.
    pub own: Vec<LocalPrefix>,
    /// The MTU that suits pods, in bytes: the uplink's, less what the tunnel adds where one is used. `None` while there is no
    /// uplink.
    pub pod_mtu: Option<u32>,
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
    /// Our routes in the kernel after the pass; `None` where that is not certain.
    pub actual: Option<Vec<RouteSpec>>,
    /// Changes that the kernel refused.
    pub errors: Vec<ApplyError>,
    /// Why the tunnel is not as it should be.
    pub tunnel_error: Option<TunnelError>,
}

/// Makes our routes in `kernel`, and the tunnel, what `nodes` ask for, seen from the node named `me`. If nothing has to
/// change, nothing is done, so it may be called at any time, as often as one likes.
///
/// `nodes` must have been read successfully once. While none of them is `me`, or that one has no pod CIDR yet, no route is changed:
/// a Node that is registered anew is away for a moment, and its pods are not. An error means that the kernel's state could not be
/// read, and that no route was changed.
pub async fn reconcile(nodes: &[Node], me: &str, settings: &Settings, kernel: &Kernel) -> Result<Report, KernelError> {
    reconcile_from(None, nodes, me, settings, kernel).await
}

/// As [`reconcile`], without reading our routes where it is known which there are: reading thousands takes longer than all else.
/// If somebody changed one since, what differs is not repaired here; or the kernel refuses to add what is there, which is
/// among the report's errors.
pub async fn reconcile_from(
    known: Option<Vec<RouteSpec>>,
    nodes: &[Node],
    me: &str,
    settings: &Settings,
    kernel: &Kernel,
) -> Result<Report, KernelError> {
    let local = kernel.local_prefixes().await?;
    let actual = match known {
        Some(known) => known,
        None => kernel.actual().await?,
    };
    let (own, underlay) = match this_node(nodes, me, settings, &local) {
        Ok(both) => both,
        // Whatever was meant, the routes that are there were right once.
        Err(problem) => {
            let (desired, actual) = (actual.clone(), Some(actual));
            return Ok(Report { local, desired, actual, problems: vec![problem], ..Report::default() });
        }
    };
    let (tunnel, mut tunnel_error) = keep_tunnel(settings, own, &underlay)?;
    let (desired, problems) = plan::desired(nodes, own, &underlay, tunnel);
    let ops = plan::plan(&desired, &actual);
    let errors = kernel.apply(&ops).await;
    // Last, so that no route is missing meanwhile. One that could not be replaced may lead through it still.
    if settings.encapsulation == Encapsulation::Never && errors.is_empty() {
        tunnel_error = tunnel::remove().err();
    }

    // A pod keeps its MTU for life, and a tunnel that is not there now will be.
    let is_wanting = || problems.iter().any(|problem| problem.reason == Reason::NodeUnreachable);
    let encapsulated = match settings.encapsulation {
        Encapsulation::Never => false,
        Encapsulation::CrossSubnet => {
            desired.iter().any(|route| route.encap.is_some()) || (tunnel.is_none() && is_wanting())
        }
        Encapsulation::Always => true,
    };
    let pod_mtu = if encapsulated { underlay.tunnel_mtu() } else { underlay.mtu() };
    let actual = errors.is_empty().then(|| desired.clone());
    let mut report = Report {
        local,
        own: underlay.own,
        pod_mtu,
        desired,
        actual,
        problems,
        errors,
        tunnel_error,
        ..Report::default()
    };
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

/// This node and its networks, or what is missing of them.
fn this_node<'a>(
    nodes: &'a [Node],
    me: &str,
    settings: &Settings,
    local: &[LocalPrefix],
) -> Result<(&'a Node, Underlay), Problem> {
    let own = nodes.iter().find(|node| node.name == me).ok_or_else(|| plan::no_node(me))?;
    if own.pod_cidrs.is_empty() {
        return Err(plan::no_pod_cidr(own));
    }
    Ok((own, Underlay::new(settings, own, local.to_vec())?))
}

/// The tunnel, where one is asked for, and what is wrong with it. It is there also where no route needs it: another node may
/// see it otherwise.
fn keep_tunnel(
    settings: &Settings,
    own: &Node,
    underlay: &Underlay,
) -> Result<(Option<Tunnel>, Option<TunnelError>), LinkError> {
    if settings.encapsulation == Encapsulation::Never {
        return Ok((None, None));
    }
    let device =
        tunnel::Tunnel { port: settings.vxlan_port, mtu: underlay.tunnel_mtu(), pod_cidrs: own.pod_cidrs.clone() };
    let always = settings.encapsulation == Encapsulation::Always;
    let (ifindex, error) = device.keep()?;
    Ok((ifindex.map(|ifindex| Tunnel { ifindex, vni: settings.vni, always }), error))
}
