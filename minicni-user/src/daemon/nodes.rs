//! The nodes of a cluster, and how they are read from YAML.
//!
//! The YAML holds Kubernetes Node objects, as `kubectl get nodes -o yaml` prints them or as somebody wrote them by
//! hand: documents of `kind: Node`, `kind: List` or `kind: NodeList`. Everything but the fields of [`Node`] is ignored.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

const INTERNAL_IP: &str = "status.addresses[InternalIP]";

/// What a node of the cluster means for routing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// `spec.podCIDRs` (or `spec.podCIDR`), the primary family first. Empty while none is assigned.
    pub pod_cidrs: Vec<IpNet>,
    /// The `status.addresses` of type `InternalIP`, in their order.
    pub internal_ips: Vec<IpAddr>,
}

/// Where in the YAML an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the document, from 1.
    pub document: usize,
    /// Number of the item in a list, from 1; `None` if the document is the object.
    pub item: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "document {}", self.document)?;
        self.item.map_or(Ok(()), |item| write!(f, ", item {item}"))
    }
}

/// A field of a Node object that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?}: {why}")]
pub struct FieldError {
    /// The field, as a path.
    pub field: &'static str,
    /// The value that was found.
    pub value: String,
    /// What is wrong, and what would be right.
    pub why: String,
}

/// Why a YAML of nodes was not accepted. Nothing of it is used then.
#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    /// Not YAML, or a field of the wrong type; the source names line and field.
    #[error("document {document}: {source}")]
    Yaml {
        /// Number of the document, from 1.
        document: usize,
        /// What the YAML parser says.
        source: serde_yaml_ng::Error,
    },
    /// An object that is not a Node.
    #[error("{place}: {found} is not a v1 Node, NodeList or List of Nodes; only those belong here")]
    Kind {
        /// Where.
        place: Place,
        /// The apiVersion and kind that were found.
        found: String,
    },
    /// A Node that has no name.
    #[error("{0}: metadata.name is missing or empty; every Node needs the name that its kubelet registers")]
    NoName(Place),
    /// A field of one Node that cannot be used.
    #[error("{place}: node {node}: {source}")]
    Field {
        /// Where.
        place: Place,
        /// Name of the node.
        node: String,
        /// What is wrong with it.
        source: FieldError,
    },
    /// Two Nodes of the same name.
    #[error("{place}: node {node} was already described in {first}; remove one of the two")]
    DuplicateName {
        /// Where.
        place: Place,
        /// Name of the node.
        node: String,
        /// Where the other one is.
        first: Place,
    },
    /// Two Nodes claim the same addresses.
    #[error("{place}: node {node}: {field} {value} clashes with {other}; one of the two is wrong")]
    Clash {
        /// Where.
        place: Place,
        /// Name of the node.
        node: String,
        /// The field, as a path.
        field: &'static str,
        /// The value that was found.
        value: String,
        /// The other value, and the node it belongs to.
        other: String,
    },
    /// No Node at all. A cluster has at least the node that reads this, so the text was probably read while it was
    /// being written: taking it for an empty cluster would remove every route.
    #[error("there is no Node in it; list at least this node")]
    Empty,
}

/// A Node, a list of them, or something else: which of these only `kind` tells.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    api_version: Option<String>,
    kind: Option<String>,
    metadata: Option<Metadata>,
    spec: Option<Spec>,
    status: Option<Status>,
    items: Option<Vec<Object>>,
}

#[derive(Deserialize)]
struct Metadata {
    name: Option<String>,
}

/// The part of a Node's `spec` that is used.
#[derive(Clone, Deserialize)]
pub(super) struct Spec {
    #[serde(rename = "podCIDR")]
    pub(super) pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pub(super) pod_cidrs: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Status {
    addresses: Option<Vec<Address>>,
}

/// One of a Node's `status.addresses`.
#[derive(Clone, Deserialize)]
pub(super) struct Address {
    #[serde(rename = "type", default)]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) address: String,
}

/// Reads all Nodes of a YAML text, in their order.
///
/// A Node without pod CIDR is accepted (the cluster may not have assigned one yet), a Node without `InternalIP` is not.
/// Within the text, names and addresses are unique and pod CIDRs do not overlap.
pub fn parse(text: &str) -> Result<Vec<Node>, NodesError> {
    let mut nodes = Vec::new();
    for (place, object) in objects(text)? {
        nodes.push((place, node(place, object)?));
    }
    if nodes.is_empty() {
        return Err(NodesError::Empty);
    }
    check_unique(&nodes)?;
    check_overlaps(&nodes)?;
    Ok(nodes.into_iter().map(|(_, node)| node).collect())
}

fn objects(text: &str) -> Result<Vec<(Place, Object)>, NodesError> {
    let mut objects = Vec::new();
    for (document, yaml) in (1..).zip(serde_yaml_ng::Deserializer::from_str(text)) {
        let object = Option::<Object>::deserialize(yaml).map_err(|source| NodesError::Yaml { document, source })?;
        // A document of nothing but comments is null.
        let Some(object) = object else { continue };
        let place = Place { document, item: None };
        match object.core_kind() {
            Some("Node") => objects.push((place, object)),
            Some("List" | "NodeList") => {
                for (item, object) in (1..).zip(object.items.unwrap_or_default()) {
                    let place = Place { document, item: Some(item) };
                    // The API server leaves the kind out of the items of a NodeList.
                    let untyped = object.api_version.is_none() && object.kind.is_none();
                    if !untyped && object.core_kind() != Some("Node") {
                        return Err(NodesError::Kind { place, found: object.describe() });
                    }
                    objects.push((place, object));
                }
            }
            _ => return Err(NodesError::Kind { place, found: object.describe() }),
        }
    }
    Ok(objects)
}

impl Object {
    /// The kind, if it is one of the core API: others have Nodes, too.
    fn core_kind(&self) -> Option<&str> {
        let core = self.api_version.as_deref().is_none_or(|version| version == "v1");
        self.kind.as_deref().filter(|_| core)
    }

    fn describe(&self) -> String {
        match (&self.api_version, &self.kind) {
            (_, None) => "an object without kind".to_owned(),
            (None, Some(kind)) => format!("kind {kind}"),
            (Some(version), Some(kind)) => format!("kind {kind} of {version}"),
        }
    }
}

fn node(place: Place, object: Object) -> Result<Node, NodesError> {
    let name = object.metadata.and_then(|metadata| metadata.name).filter(|name| !name.is_empty());
    let name = name.ok_or(NodesError::NoName(place))?;
    let addresses = object.status.and_then(|status| status.addresses).unwrap_or_default();
    from_fields(&name, object.spec, &addresses).map_err(|source| NodesError::Field { place, node: name, source })
}

/// Checks what one Node says of itself.
pub(super) fn from_fields(name: &str, spec: Option<Spec>, addresses: &[Address]) -> Result<Node, FieldError> {
    let bad = |field, value: &str, why: String| FieldError { field, value: value.to_owned(), why };

    let mut internal_ips = Vec::new();
    for address in addresses {
        if address.kind == "InternalIP" {
            let ip = internal_ip(&address.address);
            internal_ips.push(ip.map_err(|why| bad(INTERNAL_IP, &address.address, why))?);
        }
    }
    if internal_ips.is_empty() {
        let why =
            "there is none; give the node one (`{type: InternalIP, address: ...}`), at which other nodes reach it";
        return Err(bad(INTERNAL_IP, "", why.to_owned()));
    }

    let (single, list) = spec.map_or((None, None), |spec| (spec.pod_cidr, spec.pod_cidrs));
    let mut pod_cidrs: Vec<IpNet> = Vec::new();
    for text in list.unwrap_or_default() {
        let cidr = pod_cidr(&text).map_err(|why| bad("spec.podCIDRs", &text, why))?;
        if pod_cidrs.iter().any(|other| other.addr().is_ipv4() == cidr.addr().is_ipv4()) {
            return Err(bad(
                "spec.podCIDRs",
                &text,
                "is the second one of its family; a node has one per family".into(),
            ));
        }
        pod_cidrs.push(cidr);
    }
    if let Some(text) = single {
        let cidr = pod_cidr(&text).map_err(|why| bad("spec.podCIDR", &text, why))?;
        match pod_cidrs.first() {
            None => pod_cidrs.push(cidr),
            Some(first) if *first == cidr => {}
            Some(first) => {
                return Err(bad("spec.podCIDR", &text, format!("must equal spec.podCIDRs[0], which is {first}")));
            }
        }
    }
    // Only the primary family is insisted on: in dual-stack clusters the second may lack an address yet, and is not routed
    // until then.
    if let Some(primary) = pod_cidrs.first()
        && !internal_ips.iter().any(|ip| ip.is_ipv4() == primary.addr().is_ipv4())
    {
        let why = format!("is of another family than the node's InternalIP {}", display_list(&internal_ips));
        return Err(bad("spec.podCIDR", &primary.to_string(), why));
    }
    Ok(Node { name: name.to_owned(), pod_cidrs, internal_ips })
}

fn internal_ip(text: &str) -> Result<IpAddr, String> {
    let ip: IpAddr = text.parse().map_err(|_| "is not an IP address".to_owned())?;
    let link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local {
        return Err("is not an address that other nodes can reach".to_owned());
    }
    Ok(ip)
}

fn pod_cidr(text: &str) -> Result<IpNet, String> {
    let cidr: IpNet = text.parse().map_err(|_| "is not a prefix like 10.244.1.0/24".to_owned())?;
    if cidr != cidr.trunc() {
        return Err(format!("has host bits set; write {}", cidr.trunc()));
    }
    Ok(cidr)
}

fn display_list<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn clash<T: ToString>(
    place: Place,
    node: &Node,
    field: &'static str,
    value: &T,
    other: &Node,
    theirs: &T,
) -> NodesError {
    let other = format!("{} of node {}", theirs.to_string(), other.name);
    NodesError::Clash { place, node: node.name.clone(), field, value: value.to_string(), other }
}

fn check_unique(nodes: &[(Place, Node)]) -> Result<(), NodesError> {
    let mut names = HashMap::new();
    let mut ips = HashMap::new();
    for (place, node) in nodes {
        if let Some(first) = names.insert(&node.name, *place) {
            return Err(NodesError::DuplicateName { place: *place, node: node.name.clone(), first });
        }
        for ip in &node.internal_ips {
            if let Some(other) = ips.insert(ip, node)
                && other.name != node.name
            {
                return Err(clash(*place, node, INTERNAL_IP, ip, other, ip));
            }
        }
    }
    Ok(())
}

/// Prefixes nest or are disjoint. Sorted by address, then by length, any overlap shows up between two neighbours.
fn check_overlaps(nodes: &[(Place, Node)]) -> Result<(), NodesError> {
    let owned = nodes.iter().flat_map(|(place, node)| node.pod_cidrs.iter().map(move |cidr| (*cidr, *place, node)));
    let mut owned: Vec<_> = owned.collect();
    owned.sort_by_key(|(cidr, ..)| (cidr.network(), cidr.prefix_len()));
    for pair in owned.windows(2) {
        if let [(outer, _, other), (inner, place, node)] = pair
            && outer.contains(inner)
        {
            return Err(clash(*place, node, "spec.podCIDR", inner, other, outer));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
