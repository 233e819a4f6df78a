//! The API server, as far as the daemon talks to it.

use std::mem;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http_body_util::BodyExt as _;
use hyper::http::{HeaderValue, Request, header::ACCEPT};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::client::Body;
use kube::core::request::Request as Resource;
use prost::bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::json;
use tracing::{debug, warn};

use super::access::{Access, ApiError, ApiOptions};
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

/// A client of the API server. Copies share the credentials.
#[derive(Clone)]
pub(super) struct Api {
    options: ApiOptions,
    access: Arc<Mutex<Access>>,
}

impl Api {
    /// Reads the credentials; does not connect yet.
    pub(super) async fn new(options: ApiOptions) -> Result<Self, ApiError> {
        let access = Access::read(&options).await?;
        Ok(Self { options, access: Arc::new(Mutex::new(access)) })
    }

    /// Reads the credentials anew, where that may help: certificates and keys, too, are replaced in time. Those that cannot be
    /// read change nothing.
    pub(super) async fn renew(&self, failure: &Failure) {
        if failure.may_be_of_access() {
            match Access::read(&self.options).await {
                Ok(access) => *self.locked() = access,
                Err(error) => warn!("the credentials for the API server cannot be read anew: {error}"),
            }
        }
    }

    /// The server's URL.
    pub(super) fn server(&self) -> String {
        self.locked().server.clone()
    }

    fn client(&self) -> Client {
        self.locked().client.clone()
    }

    /// Nothing that panics is done under the lock.
    fn locked(&self) -> MutexGuard<'_, Access> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The addresses of the server that are known or can be found out.
    pub(super) async fn addresses(&self) -> Vec<IpAddr> {
        let hosts = self.locked().hosts.clone();
        let mut addresses = Vec::new();
        for host in &hosts {
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
        let response = self.client().send(request).await?;
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
        self.client().request::<IgnoredAny>(request.map_err(kube::Error::BuildRequest)?).await.map(drop)
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
        self.client().request::<IgnoredAny>(request.map_err(kube::Error::BuildRequest)?).await.map(drop)
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

fn nodes() -> Resource {
    Resource::new("/api/v1/nodes")
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
