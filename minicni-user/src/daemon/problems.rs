//! What is wrong at the moment, each with its reason: for the log, `minicnid status` and the Node's Events.

use std::fmt;

use crate::node::Reported;

/// The kinds of problems, in one word as Kubernetes likes the reason of an Event.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Reason {
    /// The nodes of the cluster cannot be read.
    NodesUnreadable,
    /// A Node has a field that cannot be used, or lacks one.
    NodeMalformed,
    /// A node has an address that is another's.
    AddressConflict,
    /// No Node has this node's name.
    NodeMissing,
    /// A node has no pod CIDR.
    PodCidrMissing,
    /// A pod CIDR covers or overlaps what it must not.
    PodCidrConflict,
    /// A node has no address by which this host could reach it, or this node none that this host has.
    NodeUnreachable,
    /// A route, or the kernel's routes as a whole, could not be read or changed.
    RouteFailed,
    /// The uplink that somebody named is not there.
    UplinkMissing,
    /// The tunnel to other nodes could not be made or removed.
    TunnelFailed,
    /// The programs could not be attached where this node meets the others, or be taken off there.
    UplinkFailed,
    /// The eBPF datapath does not do all that it should.
    DatapathDegraded,
    /// A setting of the kernel could not be made, or what the plugin reads not be written.
    HostNotPrepared,
    /// Leases of pods that are gone could not be released.
    LeasesNotSwept,
    /// Pods do not get this node's address where they leave the cluster, or not as they should.
    MasqueradeFailed,
    /// Somebody's firewall may drop what pods send, or nobody knows whether it does.
    ForwardBlocked,
    /// Changes of firewall rules are not noticed.
    RulesUnheard,
    /// The plugin could not be installed.
    PluginNotInstalled,
    /// The network configuration could not be installed.
    ConfigurationNotInstalled,
    /// A plugin that the network configuration chains behind minicni is not there.
    ChainedPluginMissing,
    /// The container runtime takes the network configuration of somebody else.
    OtherNetworkConfigurationFirst,
    /// Nobody can ask for metrics.
    MetricsUnavailable,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Something that a person has to know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Of what kind it is.
    pub reason: Reason,
    /// What is wrong with what, and what to do about it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<&Problem> for Reported {
    fn from(problem: &Problem) -> Self {
        Self { reason: problem.reason.to_string(), message: problem.message.clone() }
    }
}

/// What one pass found wrong, in the order in which it was found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds a problem.
    pub fn add(&mut self, reason: Reason, message: impl fmt::Display) {
        self.0.push(Problem { reason, message: message.to_string() });
    }

    /// Adds problems of one kind.
    pub fn extend<M: fmt::Display>(&mut self, reason: Reason, messages: impl IntoIterator<Item = M>) {
        messages.into_iter().for_each(|message| self.add(reason, message));
    }

    /// Drops those of one kind, because another problem says it better.
    pub fn forget(&mut self, reason: Reason) {
        self.0.retain(|problem| problem.reason != reason);
    }

    /// All of them.
    pub fn all(&self) -> &[Problem] {
        &self.0
    }
}
