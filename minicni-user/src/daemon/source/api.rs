//! The API server, as far as the daemon talks to it.

use std::net::IpAddr;
use std::path::PathBuf;

use futures_util::{AsyncReadExt as _, Stream};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use kube::{Client, Config};
use serde::de::IgnoredAny;
use serde_json::json;

use super::object::{NETWORK_UNAVAILABLE, NodeObject, Page};
use super::report::Availability;
use crate::daemon::problems::Problem;

/// How many nodes are asked for at once. A page of large ones is 10 MB of JSON, for a moment.
const PAGE: u32 = 250;

/// Where the API server is, and who we are there: what a pod's `ServiceAccount` gives, where nobody says otherwise.
#[derive(Clone, Debug, Default)]
pub struct ApiOptions {
    /// A kubeconfig instead of the `ServiceAccount`.
    pub kubeconfig: Option<PathBuf>,
    /// Another URL of the same server, for hosts that cannot reach the one that is configured.
    pub server: Option<String>,
}

/// Why the API server cannot even be asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No file of nodes, no kubeconfig, no `ServiceAccount`.
    #[error(
        "no source of nodes: {0}; run in a pod with a ServiceAccount token, or name a kubeconfig with --kubeconfig, or a file \
         of Node objects with --nodes"
    )]
    NotInCluster(#[source] kube::config::InClusterError),
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<kube::config::KubeconfigError>,
    },
    /// `--apiserver` is no URL.
    #[error("--apiserver {0:?} is not a URL like https://192.0.2.1:6443")]
    Server(String),
    /// The credentials cannot be read, or TLS not be set up.
    #[error("prepare to talk to the API server {server}: {reason}")]
    Client {
        /// Its URL.
        server: String,
        /// Why.
        reason: String,
    },
}

/// A client of the API server.
#[derive(Clone)]
pub(super) struct Api {
    client: Client,
    /// Its URL.
    pub(super) server: String,
    /// Names or addresses by which it is known.
    hosts: Vec<String>,
}

impl Api {
    /// Reads the credentials; does not connect yet.
    pub(super) async fn new(options: &ApiOptions) -> Result<Self, ApiError> {
        let mut config = match &options.kubeconfig {
            Some(path) => from_kubeconfig(path)
                .await
                .map_err(|source| ApiError::Kubeconfig { path: path.clone(), source: source.into() })?,
            None => Config::incluster().map_err(ApiError::NotInCluster)?,
        };
        // We wait in our own way.
        config.default_retry = false;
        let mut hosts: Vec<_> = config.cluster_url.host().map(bare).into_iter().collect();
        if let Some(server) = &options.server {
            let invalid = || ApiError::Server(server.clone());
            let url: &str = server.strip_suffix('/').unwrap_or(server);
            config.cluster_url = url.parse().map_err(|_| invalid())?;
            if !matches!(config.cluster_url.scheme_str(), Some("https" | "http")) {
                return Err(invalid());
            }
            hosts.extend(config.cluster_url.host().map(bare));
        }
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = Client::try_from(config)
            .map_err(|error| ApiError::Client { server: server.clone(), reason: causes(&error) })?;
        Ok(Self { client, server, hosts })
    }

    /// The addresses of the server that are known or can be found out.
    pub(super) async fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for host in &self.hosts {
            // An address is found as itself. That nobody knows a name is told when the server is asked for nodes.
            let found = tokio::net::lookup_host((host.as_str(), 443)).await;
            addresses.extend(found.into_iter().flatten().map(|address| address.ip()));
        }
        addresses
    }

    /// One page of the list of nodes, read through `buffer`, which may hold an earlier page.
    pub(super) async fn list(&self, more: Option<String>, buffer: &mut Vec<u8>) -> kube::Result<Page> {
        let parameters = ListParams { limit: Some(PAGE), continue_token: more, ..ListParams::default() };
        let request = nodes().list(&parameters).map_err(kube::Error::BuildRequest)?;
        let mut body = Box::pin(self.client.request_stream(request).await?);
        buffer.clear();
        body.read_to_end(buffer).await.map_err(kube::Error::ReadEvents)?;
        serde_json::from_slice(buffer).map_err(kube::Error::SerdeError)
    }

    /// What happens to nodes after `version`, for as many seconds at most.
    pub(super) async fn watch(
        &self,
        version: &str,
        seconds: u32,
    ) -> kube::Result<impl Stream<Item = kube::Result<WatchEvent<NodeObject>>> + use<>> {
        let parameters = WatchParams { bookmarks: true, timeout: Some(seconds), ..WatchParams::default() };
        let request = nodes().watch(&parameters, version).map_err(kube::Error::BuildRequest)?;
        self.client.request_events(request).await
    }

    /// Sets `NetworkUnavailable` of a node; `turns` if its status becomes another one.
    pub(super) async fn set_condition(&self, node: &str, availability: &Availability, turns: bool) -> kube::Result<()> {
        let now = now();
        let mut condition = json!({
            "type": NETWORK_UNAVAILABLE,
            "status": availability.status(),
            "reason": availability.reason,
            "message": availability.message,
            "lastHeartbeatTime": now,
        });
        if turns {
            condition["lastTransitionTime"] = now.into();
        }
        // The server merges conditions by their type.
        let patch = Patch::Strategic(json!({ "status": { "conditions": [condition] } }));
        let request = nodes().patch_subresource("status", node, &PatchParams::default(), &patch);
        self.client.request::<IgnoredAny>(request.map_err(kube::Error::BuildRequest)?).await.map(drop)
    }

    /// Writes a warning about a node.
    pub(super) async fn warn(&self, node: &str, problem: &Problem) -> kube::Result<()> {
        let now = now();
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "generateName": format!("{node}."), "namespace": "default" },
            // kubelet, too, gives a node's name for its uid; `kubectl describe node` looks for that.
            "involvedObject": { "apiVersion": "v1", "kind": "Node", "name": node, "uid": node },
            "type": "Warning",
            "reason": problem.reason.to_string(),
            "message": problem.message,
            "source": { "component": "minicnid", "host": node },
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        });
        let body = serde_json::to_vec(&event).map_err(kube::Error::SerdeError)?;
        // What concerns no namespace is kept in this one.
        let request = Request::new("/api/v1/namespaces/default/events").create(&PostParams::default(), body);
        self.client.request::<IgnoredAny>(request.map_err(kube::Error::BuildRequest)?).await.map(drop)
    }
}

async fn from_kubeconfig(path: &PathBuf) -> Result<Config, kube::config::KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}

fn nodes() -> Request {
    Request::new("/api/v1/nodes")
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

/// The API's times have seconds.
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// An error with all its causes.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
