//! One netlink request and what to make of its answer.

use std::{marker::PhantomData, os::fd::BorrowedFd};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;

/// A route netlink message with its description for people and the errors that count as success.
///
/// A request borrows the descriptors it names (a namespace, a program), so that none can be closed, and its number reused,
/// before the kernel has seen it.
#[derive(Debug)]
pub struct Request<'fd> {
    pub(super) message: NetlinkMessage<RouteNetlinkMessage>,
    pub(super) operation: String,
    tolerated: Vec<Errno>,
    descriptors: PhantomData<BorrowedFd<'fd>>,
}

impl Request<'_> {
    /// `operation` reads like `add route 10.1.0.5/32 dev 7`; `flags` are `NLM_F_*` beyond `REQUEST` and `ACK`.
    pub fn new(operation: String, message: RouteNetlinkMessage, flags: u16) -> Self {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        Self { message, operation, tolerated: Vec::new(), descriptors: PhantomData }
    }

    /// Takes this error for success: `EEXIST` where the object may already be there. Deletions tolerate by themselves
    /// that the object is gone.
    #[must_use]
    pub fn tolerate(mut self, errno: Errno) -> Self {
        self.tolerated.push(errno);
        self
    }

    pub(super) fn tolerates(&self, errno: Errno) -> bool {
        self.tolerated.contains(&errno)
    }
}
