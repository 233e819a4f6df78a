//! What the API server answers, in either of the two encodings that it knows for nodes.

use hyper::http::{HeaderMap, header::CONTENT_TYPE};
use kube::core::{Status, WatchEvent};
use prost::bytes::Bytes;

use super::object::{NodeObject, Page};
use super::protobuf;

/// What is asked for: protobuf is less work for both sides. A server without it answers with JSON.
pub(super) const ACCEPTED: &str = "application/vnd.kubernetes.protobuf, application/json";
/// The same for what happens to nodes.
pub(super) const ACCEPTED_EVENTS: &str = "application/vnd.kubernetes.protobuf;stream=watch, application/json";

/// How an answer is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Encoding {
    Json,
    Protobuf,
}

/// Something that happened to a node.
pub(super) enum Event {
    /// It came, or changed.
    Set(NodeObject),
    /// It went.
    Deleted(NodeObject),
    /// Nothing did, until this version.
    Bookmark(String),
    /// The server will not go on.
    Refused(Refusal),
}

/// The `Status` with which the server refuses.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    /// The HTTP status.
    pub(super) code: u16,
    /// What the server says.
    pub(super) message: String,
}

/// An answer that cannot be understood. Nothing of it is used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    /// It is no JSON, or not of what was asked for.
    #[error("the API server's answer is not the JSON that was expected: {0}")]
    Json(#[from] serde_json::Error),
    /// It is no protobuf, or not of what was asked for.
    #[error("the API server's answer is not the protobuf that was expected: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// It does not begin as Kubernetes' protobuf does.
    #[error("the API server's answer is called protobuf, but does not begin with \"k8s\" and a zero")]
    NoPrefix,
    /// An object of another kind.
    #[error("the API server's answer has an object of kind {found:?} instead of {expected}")]
    Kind { expected: &'static str, found: String },
    /// Every object of the API has this field.
    #[error("the API server's answer has an object without {0}")]
    NoField(&'static str),
    /// An event of no known type.
    #[error("the API server tells of an event of type {0:?}, which is not known")]
    EventType(String),
    /// No object is that large.
    #[error("the API server announces an event of {0} bytes; at most {limit} are taken", limit = super::frames::LONGEST)]
    TooLong(usize),
    /// The connection ended before the event did.
    #[error("the API server's answer ends in the middle of an event, after {0} bytes of it")]
    Truncated(usize),
}

impl Encoding {
    /// Servers that say nothing mean JSON.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if kind.starts_with("application/vnd.kubernetes.protobuf") { Self::Protobuf } else { Self::Json }
    }

    /// A page of a list of nodes.
    pub(super) fn page(self, body: Bytes) -> Result<Page, DecodeError> {
        match self {
            Self::Json => Ok(serde_json::from_slice(&body)?),
            Self::Protobuf => protobuf::page(body),
        }
    }

    /// One event of a watch of nodes.
    pub(super) fn event(self, frame: Bytes) -> Result<Event, DecodeError> {
        match self {
            Self::Json => json_event(&frame),
            Self::Protobuf => protobuf::event(frame),
        }
    }

    /// What a request that failed with this HTTP status was answered. Others than the API server, on the way to it, answer
    /// in their own words.
    pub(super) fn refusal(self, code: u16, body: &Bytes) -> Refusal {
        let status = match self {
            Self::Json => serde_json::from_slice::<Status>(body).map(Refusal::from).map_err(DecodeError::from),
            Self::Protobuf => protobuf::refusal(body.clone()),
        };
        status.unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(body);
            let line = text.trim().lines().next().unwrap_or_default();
            Refusal { code, message: format!("HTTP status {code}: {line}") }
        })
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { code: status.code, message: status.message }
    }
}

fn json_event(line: &[u8]) -> Result<Event, DecodeError> {
    let event = match serde_json::from_slice(line) {
        Ok(event) => event,
        // A server that cannot go on may say that without calling it an event.
        Err(error) => {
            let status = serde_json::from_slice::<Status>(line);
            return status.map(|status| Event::Refused(status.into())).map_err(|_| error.into());
        }
    };
    Ok(match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => Event::Set(object),
        WatchEvent::Deleted(object) => Event::Deleted(object),
        WatchEvent::Bookmark(bookmark) => Event::Bookmark(bookmark.metadata.resource_version),
        WatchEvent::Error(status) => Event::Refused((*status).into()),
    })
}

#[cfg(test)]
mod tests;
