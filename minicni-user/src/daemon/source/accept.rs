//! Which Nodes of the API can be used beside each other. Pure.
//!
//! One wrong object must not take the others along: it alone is left out. Of two that contradict each other this node's own is
//! right, then the older one, so that nobody who comes takes anything away from who was there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::object::Known;
use crate::daemon::nodes::Node;
use crate::daemon::problems::{Problem, Reason};

/// What can be used, and what not.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Accepted {
    /// Sorted by age, this node's own first. Their addresses are unique; their pod CIDRs are disjoint and cover none of them.
    pub(super) nodes: Vec<Node>,
    /// Why others were left out.
    pub(super) problems: Vec<Problem>,
    /// Why this node's own was.
    pub(super) own_refused: Option<Problem>,
}

/// Chooses among all nodes that are known, by name. No pod CIDR may cover one of the addresses of `api_server`.
pub(super) fn accept(known: &BTreeMap<String, Known>, me: &str, api_server: &[IpAddr]) -> Accepted {
    let mut order: Vec<_> = known.iter().collect();
    order.sort_by_key(|(name, known)| (*name != me, known.created, *name));
    let mut claims = Claims { api_server, ..Claims::default() };
    let mut accepted = Accepted::default();
    for (name, known) in order {
        let refused = match &known.node {
            Ok(node) => claims.claim(node),
            Err(error) => Err((Reason::NodeMalformed, error.to_string())),
        };
        match (refused, &known.node) {
            (Ok(()), Ok(node)) => accepted.nodes.push(node.clone()),
            (Err((reason, why)), _) => {
                let message = format!("node {name}: {why}; the node is left out until its object is right");
                let problem = Problem { reason, message };
                if name == me {
                    accepted.own_refused = Some(problem.clone());
                }
                accepted.problems.push(problem);
            }
            (Ok(()), Err(_)) => {}
        }
    }
    accepted
}

/// What is taken already.
#[derive(Default)]
struct Claims<'a> {
    api_server: &'a [IpAddr],
    /// Disjoint; by the first address of each.
    cidrs: BTreeMap<IpAddr, (IpNet, &'a str)>,
    ips: BTreeMap<IpAddr, &'a str>,
}

impl<'a> Claims<'a> {
    /// Takes what the node says is its own, or says why not.
    fn claim(&mut self, node: &'a Node) -> Result<(), (Reason, String)> {
        for ip in &node.internal_ips {
            if let Some(other) = self.ips.get(ip) {
                return Err((Reason::AddressConflict, format!("InternalIP {ip} is that of node {other}")));
            }
            if let Some((cidr, other)) = self.last_until(*ip).filter(|(cidr, _)| cidr.contains(ip)) {
                return Err((
                    Reason::AddressConflict,
                    format!("InternalIP {ip} is in the pod CIDR {cidr} of node {other}"),
                ));
            }
        }
        for cidr in &node.pod_cidrs {
            self.check(*cidr, node).map_err(|why| (Reason::PodCidrConflict, format!("pod CIDR {cidr} {why}")))?;
        }
        self.ips.extend(node.internal_ips.iter().map(|ip| (*ip, node.name.as_str())));
        self.cidrs.extend(node.pod_cidrs.iter().map(|cidr| (cidr.network(), (*cidr, node.name.as_str()))));
        Ok(())
    }

    fn check(&self, cidr: IpNet, node: &Node) -> Result<(), String> {
        // They are disjoint: who begins last, ends last.
        if let Some((other, name)) = self.last_until(cidr.broadcast())
            && (other.contains(&cidr) || cidr.contains(&other))
        {
            return Err(format!("overlaps {other} of node {name}"));
        }
        if let Some(ip) = node.internal_ips.iter().find(|ip| cidr.contains(*ip)) {
            return Err(format!("covers the node's own InternalIP {ip}"));
        }
        if let Some((ip, name)) = self.ips.range(cidr.network()..=cidr.broadcast()).next() {
            return Err(format!("covers the InternalIP {ip} of node {name}"));
        }
        match self.api_server.iter().find(|ip| cidr.contains(*ip)) {
            Some(ip) => Err(format!("covers the API server's address {ip}")),
            None => Ok(()),
        }
    }

    /// The last pod CIDR that begins at or before an address.
    fn last_until(&self, ip: IpAddr) -> Option<(IpNet, &'a str)> {
        self.cidrs.range(..=ip).next_back().map(|(_, owned)| *owned)
    }
}

#[cfg(test)]
mod tests;
