//! A blocking route netlink socket: batches, queries, dumps.

use std::slice;

use netlink_packet_core::{DecodeError, NLM_F_DUMP_INTR, NetlinkBuffer, NetlinkMessage, NetlinkPayload, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    sys::{
        socket::{setsockopt, sockopt::ReceiveTimeout},
        time::{TimeVal, TimeValLike},
    },
};

use super::{LinkError, Request, error::errno_of};

/// Messages sent at once. An acknowledgement takes the better part of a kilobyte of the socket's receive buffer (208 KiB by
/// default), and the kernel drops those that find it full.
const MAX_BATCH: usize = 128;
/// Room for any acknowledgement: a header and the kernel's text. Dumps measure before they read.
const BUFFER_LENGTH: usize = 8192;
/// The kernel answers before `send` returns; this only keeps a broken kernel from hanging the caller for ever.
const ANSWER_TIMEOUT_SECONDS: i64 = 10;
const DUMP_ATTEMPTS: u32 = 5;
/// `NLMSGERR_ATTR_MSG`: <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netlink.h>
const EXT_ACK_TEXT: u16 = 1;
/// The header of the refused message, which precedes the extended acknowledgement (`NETLINK_CAP_ACK` cuts the rest).
const ECHOED_HEADER_LENGTH: usize = 16;

/// A connection to the kernel's route netlink, bound to the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// All answers to one query, and whether the table changed while it was dumped.
struct Answers {
    messages: Vec<RouteNetlinkMessage>,
    interrupted: bool,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self, LinkError> {
        let step = |call| {
            move |error| LinkError::Transport {
                operation: "open a netlink socket".to_owned(),
                call,
                errno: errno_of(&error),
            }
        };
        let inner = netlink_sys::Socket::new(NETLINK_ROUTE).map_err(step("socket"))?;
        // A connected socket takes datagrams from the kernel only, never from another process.
        inner.connect(&SocketAddr::new(0, 0)).map_err(step("connect"))?;
        inner.set_ext_ack(true).map_err(step("setsockopt NETLINK_EXT_ACK"))?;
        inner.set_cap_ack(true).map_err(step("setsockopt NETLINK_CAP_ACK"))?;
        setsockopt(&inner, ReceiveTimeout, &TimeVal::seconds(ANSWER_TIMEOUT_SECONDS))
            .map_err(|errno| step("setsockopt SO_RCVTIMEO")(errno.into()))?;
        Ok(Self { inner, sequence: 1, buffer: vec![0; BUFFER_LENGTH] })
    }

    /// The port by which the kernel knows this socket: notifications of what it was asked to change by it bear it, too
    /// (`nlmsg_pid`). Nobody else has it while the socket is open.
    pub fn port(&self) -> Result<u32, LinkError> {
        let mut address = SocketAddr::new(0, 0);
        self.inner.get_address(&mut address).map_err(|error| LinkError::Transport {
            operation: "ask for the port of a netlink socket".to_owned(),
            call: "getsockname",
            errno: errno_of(&error),
        })?;
        Ok(address.port_number())
    }

    /// Sends all requests at once (in portions of 128) and waits for every answer.
    ///
    /// A batch is no transaction: the kernel goes on after a request that failed. What is returned is the first failure
    /// that its request does not tolerate; the others were applied, or not, each for itself.
    pub fn batch(&mut self, requests: Vec<Request<'_>>) -> Result<(), LinkError> {
        self.batch_each(requests)?.into_iter().flatten().next().map_or(Ok(()), Err)
    }

    /// As [`Socket::batch`], and tells of each request the failure that it does not tolerate.
    pub fn batch_each(&mut self, mut requests: Vec<Request<'_>>) -> Result<Vec<Option<LinkError>>, LinkError> {
        let mut failures = Vec::with_capacity(requests.len());
        for portion in requests.chunks_mut(MAX_BATCH) {
            failures.extend(self.exchange(portion)?);
        }
        Ok(failures)
    }

    /// Sends a request with `NLM_F_DUMP` and returns the whole table; starts over when the table changed meanwhile.
    pub fn dump(&mut self, mut request: Request<'_>) -> Result<Vec<RouteNetlinkMessage>, LinkError> {
        // Without it the kernel ignores most filters: https://docs.kernel.org/userspace-api/netlink/intro.html#strict-checking
        self.inner.set_netlink_get_strict_chk(true).map_err(|error| LinkError::Transport {
            operation: request.operation.clone(),
            call: "setsockopt NETLINK_GET_STRICT_CHK",
            errno: errno_of(&error),
        })?;
        for _ in 0..DUMP_ATTEMPTS {
            let answers = self.query(&mut request)?;
            if !answers.interrupted {
                return Ok(answers.messages);
            }
        }
        Err(LinkError::Inconsistent { operation: request.operation, attempts: DUMP_ATTEMPTS })
    }

    /// Sends a request for one object; `None` where the kernel's error is one the request tolerates.
    pub(super) fn get(&mut self, mut request: Request<'_>) -> Result<Option<RouteNetlinkMessage>, LinkError> {
        Ok(self.query(&mut request)?.messages.into_iter().next())
    }

    /// Sends the requests and returns which of them failed, by their acknowledgements.
    fn exchange(&mut self, requests: &mut [Request<'_>]) -> Result<Vec<Option<LinkError>>, LinkError> {
        let first = self.send(requests)?;
        // The description for an error of the socket itself, which concerns all of the requests.
        let operation = requests.first().map_or("", |request| &request.operation);
        let mut failures: Vec<_> = requests.iter().map(|_| None).collect();
        let mut outstanding = requests.len();
        while outstanding > 0 {
            let mut rest = receive(&self.inner, &mut self.buffer, operation)?;
            while !rest.is_empty() {
                let (message, tail) = split(rest).map_err(undecodable(operation))?;
                rest = tail;
                let index = message.sequence_number().wrapping_sub(first);
                let Ok(index) = usize::try_from(index) else { continue };
                let (Some(request), Some(failure)) = (requests.get(index), failures.get_mut(index)) else { continue };
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message.buffer)
                    .map_err(undecodable(&request.operation))?;
                if let NetlinkPayload::Error(error) = message.payload {
                    outstanding = outstanding.saturating_sub(1);
                    let text = error.header.get(ECHOED_HEADER_LENGTH..).unwrap_or_default();
                    *failure = refusal(request, error.raw_code(), text);
                }
            }
        }
        Ok(failures)
    }

    /// Sends one request and collects what the kernel says until it says that this was all.
    fn query(&mut self, request: &mut Request<'_>) -> Result<Answers, LinkError> {
        let sequence = self.send(slice::from_mut(request))?;
        let mut answers = Answers { messages: Vec::new(), interrupted: false };
        // A table is read to its end even so: the kernel runs one dump at a time on a socket.
        let mut unreadable = None;
        loop {
            make_room(&self.inner, &mut self.buffer, &request.operation)?;
            let mut rest = receive(&self.inner, &mut self.buffer, &request.operation)?;
            while !rest.is_empty() {
                let (message, tail) = split(rest).map_err(undecodable(&request.operation))?;
                rest = tail;
                if message.sequence_number() != sequence {
                    continue;
                }
                answers.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                let message = match NetlinkMessage::deserialize(message.buffer) {
                    Ok(message) => message,
                    Err(error) => {
                        unreadable.get_or_insert_with(|| undecodable(&request.operation)(error));
                        continue;
                    }
                };
                let failure = match &message.payload {
                    NetlinkPayload::Done(done) => refusal(request, done.code, &done.extended_ack),
                    NetlinkPayload::Error(error) => {
                        let text = error.header.get(ECHOED_HEADER_LENGTH..).unwrap_or_default();
                        refusal(request, error.raw_code(), text)
                    }
                    _ => {
                        if let NetlinkPayload::InnerMessage(message) = message.payload {
                            answers.messages.push(message);
                        }
                        continue;
                    }
                };
                return failure.or(unreadable).map_or(Ok(answers), Err);
            }
        }
    }

    /// Numbers the requests, sends them in one datagram and returns the first number.
    fn send(&mut self, requests: &mut [Request<'_>]) -> Result<u32, LinkError> {
        let first = self.sequence;
        let mut datagram = Vec::with_capacity(requests.len().saturating_mul(192));
        for request in &mut *requests {
            request.message.header.sequence_number = self.sequence;
            self.sequence = self.sequence.wrapping_add(1);
            let start = datagram.len();
            datagram.resize(start + request.message.buffer_len().next_multiple_of(4), 0);
            if let Some(space) = datagram.get_mut(start..) {
                request.message.serialize(space);
            }
        }
        let operation = requests.first().map_or("", |request| &request.operation);
        retry(operation, "send", || self.inner.send(&datagram, 0))?;
        Ok(first)
    }
}

/// Receives one datagram; it may hold several messages.
fn receive<'b>(inner: &netlink_sys::Socket, buffer: &'b mut [u8], operation: &str) -> Result<&'b [u8], LinkError> {
    // With MSG_TRUNC the kernel returns the true length, even where it exceeds the buffer.
    let length = retry(operation, "recv", || inner.recv(&mut &mut *buffer, libc::MSG_TRUNC))?;
    let room = buffer.len();
    buffer.get(..length).ok_or_else(|| LinkError::Undecodable {
        operation: operation.to_owned(),
        reason: format!("{length} bytes in a datagram where at most {room} were expected"),
    })
}

/// Grows the buffer to the next datagram's length.
fn make_room(inner: &netlink_sys::Socket, buffer: &mut Vec<u8>, operation: &str) -> Result<(), LinkError> {
    let flags = libc::MSG_PEEK | libc::MSG_TRUNC;
    let length = retry(operation, "recv", || inner.recv(&mut &mut buffer[..], flags))?;
    if length > buffer.len() {
        buffer.resize(length, 0);
    }
    Ok(())
}

fn retry(
    operation: &str,
    call: &'static str,
    mut attempt: impl FnMut() -> std::io::Result<usize>,
) -> Result<usize, LinkError> {
    loop {
        match attempt().map_err(|error| errno_of(&error)) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(LinkError::Transport { operation: operation.to_owned(), call, errno }),
            Ok(length) => return Ok(length),
        }
    }
}

/// The first message of a datagram, and what follows it.
fn split(datagram: &[u8]) -> Result<(NetlinkBuffer<&[u8]>, &[u8]), DecodeError> {
    let length = usize::try_from(NetlinkBuffer::new_checked(datagram)?.length()).unwrap_or(usize::MAX);
    let message = NetlinkBuffer::new(datagram.get(..length).unwrap_or(datagram));
    Ok((message, datagram.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The error that a negative answer to `request` amounts to; `None` for success and for what the request tolerates.
fn refusal(request: &Request<'_>, code: i32, extended_ack: &[u8]) -> Option<LinkError> {
    if code == 0 {
        return None;
    }
    let errno = Errno::from_raw(code.saturating_neg());
    if request.tolerates(errno) {
        return None;
    }
    let text = NlasIterator::new(extended_ack).map_while(Result::ok).find(|nla| nla.kind() == EXT_ACK_TEXT);
    let reason =
        text.map(|nla| String::from_utf8_lossy(nla.value()).trim_end_matches('\0').to_owned()).unwrap_or_default();
    Some(LinkError::Refused { operation: request.operation.clone(), errno, reason })
}

fn undecodable(operation: &str) -> impl Fn(DecodeError) -> LinkError {
    move |error| LinkError::Undecodable { operation: operation.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable as _;
    use proptest::prelude::*;

    use super::*;
    use crate::link::{link_up, tests::in_fresh_netns};

    /// A request that changes nothing anywhere: no device has this index.
    fn harmless() -> Request<'static> {
        link_up(u32::MAX >> 1).tolerate(Errno::ENODEV)
    }

    #[test]
    fn answers_that_the_kernel_had_to_drop_are_an_error() {
        in_fresh_netns(|| {
            let mut socket = Socket::open().unwrap();
            socket.inner.set_rx_buf_sz(1_i32).unwrap();
            let error = socket.batch((0..MAX_BATCH).map(|_| harmless()).collect()).unwrap_err();
            assert!(matches!(error, LinkError::Transport { call: "recv", errno: Errno::ENOBUFS, .. }), "{error}");
        });
    }

    #[test]
    fn a_table_larger_than_the_buffer_is_read_and_an_answer_larger_than_it_is_an_error() {
        in_fresh_netns(|| {
            let mut socket = Socket::open().unwrap();
            let links = socket.links().unwrap();
            socket.buffer = vec![0; 20];
            assert_eq!(socket.links().unwrap(), links);
            socket.buffer = vec![0; 20];
            let error = socket.batch(vec![harmless()]).unwrap_err();
            assert!(matches!(error, LinkError::Undecodable { .. }), "{error}");
        });
    }

    #[test]
    fn answers_to_an_earlier_request_are_passed_over() {
        in_fresh_netns(|| {
            let mut socket = Socket::open().unwrap();
            socket.send(&mut [link_up(u32::MAX >> 1), harmless()]).unwrap();
            socket.batch(vec![harmless()]).unwrap();
            socket.send(&mut [link_up(u32::MAX >> 1)]).unwrap();
            assert!(!socket.links().unwrap().is_empty());
        });
    }

    #[test]
    fn sequence_numbers_may_run_over() {
        in_fresh_netns(|| {
            let mut socket = Socket::open().unwrap();
            socket.sequence = u32::MAX;
            socket.batch(vec![harmless(), harmless(), harmless()]).unwrap();
        });
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, length in 0_u32..200) {
            let mut datagram = bytes.clone();
            if let Some(head) = datagram.first_chunk_mut() {
                *head = length.to_ne_bytes();
            }
            let mut rest = datagram.as_slice();
            while let Ok((message, tail)) = split(rest) {
                let length = message.buffer.len();
                prop_assert!(length >= ECHOED_HEADER_LENGTH && length + tail.len() <= rest.len());
                rest = tail;
            }
            prop_assert!(refusal(&link_up(1), -libc::EPERM, &bytes).is_some());
        }

        #[test]
        fn a_message_cut_anywhere_is_an_error_or_a_shorter_message(cut in 0_usize..200) {
            let request = harmless();
            let mut bytes = vec![0; request.message.buffer_len()];
            request.message.emit(&mut bytes);
            bytes.truncate(cut);
            prop_assert!(split(&bytes).is_ok() == (cut >= request.message.buffer_len()));
        }
    }
}
