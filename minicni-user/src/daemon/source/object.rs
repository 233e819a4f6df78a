//! What is read of a Node object, and what of that is kept.
//!
//! A Node is 8 to 40 kB of JSON, most of it images, conditions and managed fields; what is not named here is skipped while
//! it is parsed.

use serde::Deserialize;

use crate::daemon::nodes::{Address, FieldError, Node, Spec, from_fields};

/// The condition that this daemon is responsible for.
pub(super) const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";

/// A Node object as the API server sends it.
#[derive(Clone, Deserialize)]
pub(super) struct NodeObject {
    pub(super) metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

/// The part of `metadata` that is read.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) resource_version: String,
    #[serde(default)]
    creation_timestamp: String,
}

#[derive(Clone, Deserialize)]
struct Status {
    addresses: Option<Vec<Address>>,
    conditions: Option<Vec<Condition>>,
}

/// One of a Node's conditions.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    kind: String,
    /// `True` or `False`.
    pub(super) status: String,
    #[serde(default)]
    pub(super) reason: String,
    #[serde(default)]
    pub(super) message: String,
}

/// A page of a list of Nodes.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) metadata: ListMetadata,
    pub(super) items: Vec<NodeObject>,
}

/// The `metadata` of a list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMetadata {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) more: Option<String>,
}

/// What is kept of a Node. Two that are equal ask for the same.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Known {
    /// What it means for routing, or why it cannot be used.
    pub(super) node: Result<Node, FieldError>,
    /// When it was created, as the API writes it: older sorts first.
    pub(super) created: String,
    /// `NetworkUnavailable`, if this is the node's own object.
    pub(super) condition: Option<Condition>,
}

impl Known {
    /// Keeps what matters of an object to the node `me`.
    pub(super) fn new(object: NodeObject, me: &str) -> Self {
        let NodeObject { metadata, spec, status } = object;
        let (addresses, conditions) =
            status.map_or((None, None), |status| (status.addresses, status.conditions.filter(|_| metadata.name == me)));
        Self {
            node: from_fields(&metadata.name, spec, &addresses.unwrap_or_default()),
            created: metadata.creation_timestamp,
            condition: conditions.into_iter().flatten().find(|condition| condition.kind == NETWORK_UNAVAILABLE),
        }
    }
}

#[cfg(test)]
mod tests;
