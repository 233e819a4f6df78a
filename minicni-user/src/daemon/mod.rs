//! The node daemon: from the nodes of the cluster to the routes of this node, reconciled.
//!
//! [`source`], which is the Kubernetes API or a [`mod@file`], yields [`nodes`]; [`plan`] decides, without touching anything, which routes
//! they ask for and what has to change; [`routes`] reads and changes the kernel; [`watch`] tells when somebody else
//! did; [`underlay`] says by which networks nodes meet, and [`tunnel`] keeps the device for those that share none;
//! [`reconcile`] composes these, and [`run`] is the loop around it all. `rules`, beside it, makes flows prove
//! themselves again when the stack may treat them in another way. `sweep` releases the leases of pods that are gone. `metrics`,
//! `health` and `http` tell what became of all this. `firewall` keeps the rules that pods need. [`memory`] keeps the process small.
//! [`install`] puts the plugin and its configuration where the container runtime looks for them.
//! What goes wrong meanwhile is collected as [`problems`].

mod changes;
mod debounce;
mod dumps;
mod encapsulation;
pub mod file;
pub mod firewall;
mod health;
mod host;
mod http;
pub mod install;
mod logs;
pub mod memory;
mod metrics;
mod next_hops;
pub mod nodes;
pub mod plan;
pub mod problems;
pub mod reconcile;
pub mod routes;
mod rules;
pub mod run;
pub mod source;
mod sweep;
pub mod tunnel;
pub mod underlay;
mod uplinks;
pub mod watch;

#[cfg(test)]
mod tests;
