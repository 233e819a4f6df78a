//! The node daemon: from the nodes of the cluster to the routes of this node, reconciled.
//!
//! [`source`], which is the Kubernetes API or a [`mod@file`], yields [`nodes`]; [`plan`] decides, without touching anything, which routes
//! they ask for and what has to change; [`routes`] reads and changes the kernel; [`watch`] tells when somebody else
//! did; [`reconcile`] composes these, and [`run`] is the loop around it all. `rules`, beside it, makes flows prove
//! themselves again when the stack may treat them in another way. `sweep` releases the leases of pods that are gone.
//! What goes wrong meanwhile is collected as [`problems`].

mod changes;
mod debounce;
pub mod file;
mod host;
mod logs;
pub mod nodes;
pub mod plan;
pub mod problems;
pub mod reconcile;
pub mod routes;
mod rules;
pub mod run;
pub mod source;
mod sweep;
mod uplinks;
pub mod watch;

#[cfg(test)]
mod tests;
