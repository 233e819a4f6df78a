//! The API server, as far as the daemon talks to it.

use std::mem;
use std::net::IpAddr;
use std::path::PathBuf;

use http_body_util::BodyExt as _;
use hyper::http::{HeaderValue, Request, header::ACCEPT};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::request::Request as Resource;
use kube::{Client, Config};
use prost::bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::json;
use tracing::debug;

use super::decode::{ACCEPTED, ACCEPTED_EVENTS, DecodeError, Encoding, Event};
use super::failure::Failure;
use super::frames::Frames;
use super::object::{NETWORK_UNAVAILABLE, Page};
use super::report::Availability;
use crate::daemon::problems::Problem;

/// How many nodes are asked for at once. A page of large ones is 10 MB, for a moment.
const PAGE: u32 = 250;
/// How much is read of what a server says that will not, in bytes.
const LONGEST_REFUSAL: usize = 1 << 16;

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
    /// There is no thread to talk to it.
    #[error("start the thread that talks to the API server: {0}")]
    Thread(#[source] std::io::Error),
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
    pub(super) async fn list(&self, more: Option<String>, buffer: &mut Vec<u8>) -> Result<Page, Failure> {
        let parameters = ListParams { limit: Some(PAGE), continue_token: more, ..ListParams::default() };
        let request = nodes().list(&parameters).map_err(kube::Error::BuildRequest)?;
        let (encoding, mut body) = self.ask(request, ACCEPTED).await?;
        buffer.clear();
        while let Some(data) = next_data(&mut body).await? {
            buffer.extend_from_slice(&data);
        }
        let bytes = Bytes::from(mem::take(buffer));
        let page = encoding.page(bytes.clone())?;
        // Nobody else has it any more, so that nothing is copied.
        *buffer = bytes.into();
        Ok(page)
    }

    /// What happens to nodes after `version`, for as many seconds at most.
    pub(super) async fn watch(&self, version: &str, seconds: u32) -> Result<Watch, Failure> {
        let parameters = WatchParams { bookmarks: true, timeout: Some(seconds), ..WatchParams::default() };
        let request = nodes().watch(&parameters, version).map_err(kube::Error::BuildRequest)?;
        let (encoding, body) = self.ask(request, ACCEPTED_EVENTS).await?;
        Ok(Watch { encoding, body, frames: Frames::new(encoding) })
    }

    /// Sends a request, and looks whether the server does what it says.
    async fn ask(&self, request: Request<Vec<u8>>, accepted: &'static str) -> Result<(Encoding, Body), Failure> {
        let mut request = request.map(Body::from);
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accepted));
        let response = self.client.send(request).await?;
        let (status, encoding) = (response.status(), Encoding::of(response.headers()));
        let mut body = response.into_body();
        if status.is_success() {
            return Ok((encoding, body));
        }
        let mut said = Vec::new();
        while said.len() < LONGEST_REFUSAL
            && let Ok(Some(data)) = next_data(&mut body).await
        {
            said.extend_from_slice(&data);
        }
        Err(encoding.refusal(status.as_u16(), &said.into()).into())
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
        let request = Resource::new("/api/v1/namespaces/default/events").create(&PostParams::default(), body);
        self.client.request::<IgnoredAny>(request.map_err(kube::Error::BuildRequest)?).await.map(drop)
    }
}

/// What happens to nodes.
pub(super) struct Watch {
    encoding: Encoding,
    body: Body,
    frames: Frames,
}

impl Watch {
    /// The next event; `None` where the connection ended, in the middle of an event or not: the server tells the rest to
    /// whoever asks from the version that was seen last. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, DecodeError> {
        loop {
            if let Some(frame) = self.frames.next()? {
                return self.encoding.event(frame).map(Some);
            }
            match next_data(&mut self.body).await {
                Ok(Some(data)) => self.frames.push(&data),
                Ok(None) => {
                    if let Err(error) = self.frames.finish() {
                        debug!("{error}");
                    }
                    return Ok(None);
                }
                Err(failure) => {
                    debug!("{failure}");
                    return Ok(None);
                }
            }
        }
    }
}

/// What comes next of a body; `None` at its end.
async fn next_data(body: &mut Body) -> Result<Option<Bytes>, Failure> {
    loop {
        match body.frame().await {
            // Anything else than data is a trailer, which nobody needs.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(error)) => return Err(Failure::NoAnswer(causes(&error))),
            None => return Ok(None),
        }
    }
}

async fn from_kubeconfig(path: &PathBuf) -> Result<Config, kube::config::KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}

fn nodes() -> Resource {
    Resource::new("/api/v1/nodes")
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
