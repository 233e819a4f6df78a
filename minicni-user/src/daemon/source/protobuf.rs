//! The protobuf encoding of the API, as far as it is read. Numbers of fields are those of `generated.proto` in
//! `k8s.io/apimachinery` and `k8s.io/api/core/v1`, which never change; fields that are not named are skipped.
//!
//! Every object stands in an envelope, `runtime.Unknown`, behind the bytes `k8s\0`:
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding-idl>.

use prost::{Message, bytes::Bytes};

use super::decode::{DecodeError, Event, Refusal};
use super::object::{self, Condition, Metadata, NETWORK_UNAVAILABLE, NodeObject, Page};
use crate::daemon::nodes::{Address, Spec};

const PREFIX: &[u8] = b"k8s\0";

#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(message, optional, tag = "1")]
    kind: Option<TypeMeta>,
    #[prost(bytes = "bytes", tag = "2")]
    object: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct TypeMeta {
    #[prost(string, tag = "2")]
    kind: String,
}

#[derive(Clone, PartialEq, Message)]
struct WatchEvent {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(message, optional, tag = "2")]
    object: Option<RawExtension>,
}

#[derive(Clone, PartialEq, Message)]
struct RawExtension {
    /// An object in its envelope.
    #[prost(bytes = "bytes", tag = "1")]
    raw: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "3")]
    message: String,
    #[prost(int32, tag = "6")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct NodeList {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ListMeta>,
    #[prost(message, repeated, tag = "2")]
    items: Vec<Node>,
}

#[derive(Clone, PartialEq, Message)]
struct ListMeta {
    #[prost(string, tag = "2")]
    resource_version: String,
    #[prost(string, tag = "3")]
    more: String,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
    #[prost(message, optional, tag = "2")]
    spec: Option<NodeSpec>,
    #[prost(message, optional, tag = "3")]
    status: Option<NodeStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct ObjectMeta {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "6")]
    resource_version: String,
    #[prost(message, optional, tag = "8")]
    creation_timestamp: Option<Time>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Time {
    /// Since 1970.
    #[prost(int64, tag = "1")]
    seconds: i64,
}

#[derive(Clone, PartialEq, Message)]
struct NodeSpec {
    #[prost(string, tag = "1")]
    pod_cidr: String,
    #[prost(string, repeated, tag = "7")]
    pod_cidrs: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeStatus {
    /// [`NodeCondition`]s, not taken apart: a heartbeat has several, and only one of one node matters.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    conditions: Vec<Bytes>,
    #[prost(message, repeated, tag = "5")]
    addresses: Vec<NodeAddress>,
}

#[derive(Clone, PartialEq, Message)]
struct ConditionType {
    #[prost(bytes = "bytes", tag = "1")]
    kind: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct NodeCondition {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    status: String,
    #[prost(string, tag = "5")]
    reason: String,
    #[prost(string, tag = "6")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct NodeAddress {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    address: String,
}

/// A page of a list of nodes.
pub(super) fn page(body: Bytes) -> Result<Page, DecodeError> {
    let list: NodeList = opened(body, "NodeList")?;
    let ListMeta { resource_version, more } = list.metadata.unwrap_or_default();
    let metadata = object::ListMetadata { resource_version: version(resource_version)?, more: Some(more) };
    let items = list.items.into_iter().map(NodeObject::try_from).collect::<Result<_, _>>()?;
    Ok(Page { metadata, items })
}

/// One event of a watch of nodes.
pub(super) fn event(frame: Bytes) -> Result<Event, DecodeError> {
    let WatchEvent { kind, object: raw } = WatchEvent::decode(frame)?;
    let raw = raw.unwrap_or_default().raw;
    match kind.as_str() {
        "ADDED" | "MODIFIED" => Ok(Event::Set(opened::<Node>(raw, "Node")?.try_into()?)),
        "DELETED" => Ok(Event::Deleted(opened::<Node>(raw, "Node")?.try_into()?)),
        // A node with nothing but a version.
        "BOOKMARK" => {
            let metadata = opened::<Node>(raw, "Node")?.metadata.unwrap_or_default();
            Ok(Event::Bookmark(version(metadata.resource_version)?))
        }
        "ERROR" => Ok(Event::Refused(refusal(raw)?)),
        _ => Err(DecodeError::EventType(kind)),
    }
}

/// A `Status`.
pub(super) fn refusal(body: Bytes) -> Result<Refusal, DecodeError> {
    let Status { message, code } = opened(body, "Status")?;
    Ok(Refusal { code: u16::try_from(code).unwrap_or_default(), message })
}

/// Takes an object out of its envelope.
fn opened<M: Message + Default>(mut bytes: Bytes, expected: &'static str) -> Result<M, DecodeError> {
    if !bytes.starts_with(PREFIX) {
        return Err(DecodeError::NoPrefix);
    }
    let Envelope { kind, object } = Envelope::decode(bytes.split_off(PREFIX.len()))?;
    match kind.unwrap_or_default().kind {
        found if found == expected => Ok(M::decode(object)?),
        found => Err(DecodeError::Kind { expected, found }),
    }
}

/// Every object of the API has a version. To ask for what came after none is to ask for something else.
fn version(version: String) -> Result<String, DecodeError> {
    if version.is_empty() { Err(DecodeError::NoField("metadata.resourceVersion")) } else { Ok(version) }
}

impl TryFrom<Node> for NodeObject {
    type Error = DecodeError;

    fn try_from(node: Node) -> Result<Self, DecodeError> {
        let ObjectMeta { name, resource_version, creation_timestamp } = node.metadata.unwrap_or_default();
        if name.is_empty() {
            return Err(DecodeError::NoField("metadata.name"));
        }
        let NodeSpec { pod_cidr, pod_cidrs } = node.spec.unwrap_or_default();
        let NodeStatus { conditions, addresses } = node.status.unwrap_or_default();
        let conditions = conditions.into_iter().map(condition).filter_map(Result::transpose);
        Ok(Self {
            metadata: Metadata {
                name,
                resource_version: version(resource_version)?,
                created: creation_timestamp.unwrap_or_default().seconds,
            },
            // The encoding has no other way to say that there is none.
            spec: Some(Spec { pod_cidr: Some(pod_cidr).filter(|cidr| !cidr.is_empty()), pod_cidrs: Some(pod_cidrs) }),
            status: Some(object::Status {
                addresses: Some(
                    addresses.into_iter().map(|NodeAddress { kind, address }| Address { kind, address }).collect(),
                ),
                conditions: Some(conditions.collect::<Result<_, _>>()?),
            }),
        })
    }
}

/// A condition, if it is the one that is read.
fn condition(encoded: Bytes) -> Result<Option<Condition>, DecodeError> {
    if ConditionType::decode(encoded.clone())?.kind != NETWORK_UNAVAILABLE {
        return Ok(None);
    }
    let NodeCondition { kind, status, reason, message } = NodeCondition::decode(encoded)?;
    Ok(Some(Condition { kind, status, reason, message }))
}
