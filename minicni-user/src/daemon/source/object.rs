//! What is read of a Node object, and what of that is kept.
//!
//! A Node is 8 to 40 kB of JSON, and hardly less of protobuf, most of it images, conditions and managed fields; what is not
//! named here is skipped while it is parsed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Deserializer};

use crate::daemon::nodes::{Address, FieldError, Node, Spec, from_fields};

/// The condition that this daemon is responsible for.
pub(super) const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";

/// A Node object as the API server sends it.
#[derive(Clone, Deserialize)]
pub(super) struct NodeObject {
    pub(super) metadata: Metadata,
    pub(super) spec: Option<Spec>,
    pub(super) status: Option<Status>,
}

/// The part of `metadata` that is read.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) resource_version: String,
    /// When it was created, in seconds since 1970.
    #[serde(rename = "creationTimestamp", default, deserialize_with = "seconds")]
    pub(super) created: i64,
}

/// The part of `status` that is read.
#[derive(Clone, Deserialize)]
pub(super) struct Status {
    pub(super) addresses: Option<Vec<Address>>,
    pub(super) conditions: Option<Vec<Condition>>,
}

/// One of a Node's conditions.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
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
    /// When it was created, in seconds since 1970.
    pub(super) created: i64,
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
            created: metadata.created,
            condition: conditions.into_iter().flatten().find(|condition| condition.kind == NETWORK_UNAVAILABLE),
        }
    }
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Ok(Option::<Time>::deserialize(deserializer)?.map_or(0, |Time(time)| time.as_second()))
}

#[cfg(test)]
mod tests;
