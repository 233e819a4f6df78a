//! Lists of what the kernel has, by rtnetlink.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::routes::KernelError;

/// A dump that changes interrupted is repeated, so often in all.
const ATTEMPTS: u32 = 5;
/// The kernel answers at once; an answer for which it has no memory never comes.
const LIMIT: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 10 });
/// Of errors after which nothing is to be expected from a connection.
const BROKEN: io::ErrorKind = io::ErrorKind::BrokenPipe;

/// Asks the kernel, by a connection that is made anew where it breaks.
pub(super) struct Dumps(Mutex<Option<Connection>>);

/// A netlink socket, and the task that serves it, on the current tokio runtime, until all handles are dropped or it fails.
struct Connection {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Connection {
    fn open() -> io::Result<Self> {
        // Kernels before 4.20 cannot filter dumps; then all of it is done here.
        let connection = rtnetlink::new_connection_with_strict_check().or_else(|_| rtnetlink::new_connection());
        let (mut connection, handle, _) = connection?;
        connection.set_forward_done(true);
        Ok(Self { handle, task: tokio::spawn(connection) })
    }
}

impl Dumps {
    /// Opens a netlink socket. Needs a tokio runtime.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self(Mutex::new(Some(Connection::open()?))))
    }

    /// Lists objects, all of them or none: a route missing from a list would be swept or added again.
    pub(super) async fn list(
        &self,
        what: &'static str,
        get: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        let mut attempts = 1;
        loop {
            let answer = timeout(LIMIT, dump(self.handle()?, get.clone())).await;
            match answer.unwrap_or_else(|_| Err(broken(&format!("no answer within {LIMIT:?}")))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted && attempts < ATTEMPTS => attempts += 1,
                result => {
                    if result.as_ref().is_err_and(|error| error.kind() == BROKEN) {
                        *self.connection() = None;
                    }
                    return result.map_err(|source| KernelError::Dump { what, source });
                }
            }
        }
    }

    fn handle(&self) -> Result<Handle, KernelError> {
        let mut connection = self.connection();
        if let Some(connection) = connection.as_ref().filter(|connection| !connection.task.is_finished()) {
            return Ok(connection.handle.clone());
        }
        let opened = Connection::open().map_err(KernelError::Open)?;
        Ok(connection.insert(opened).handle.clone())
    }

    /// Nothing that panics is done under the lock.
    fn connection(&self) -> MutexGuard<'_, Option<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// rtnetlink's own requests take the end of the stream for the end of the list, and do not look at the error code with which
/// the kernel ends it.
async fn dump(mut handle: Handle, get: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    let ended = || broken("the netlink connection ended");
    let mut request = NetlinkMessage::from(get);
    request.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut answers = handle.request(request).map_err(|_| ended())?;
    let mut list = Vec::new();
    let mut interrupted = false;
    while let Some(answer) = answers.next().await {
        interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => list.push(message),
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            NetlinkPayload::Done(done) if done.code != 0 => return Err(io::Error::from_raw_os_error(-done.code)),
            NetlinkPayload::Done(_) if interrupted => {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "they kept changing meanwhile"));
            }
            NetlinkPayload::Done(_) => return Ok(list),
            _ => return Err(broken("the answer is incomplete")),
        }
    }
    Err(ended())
}

fn broken(why: &str) -> io::Error {
    io::Error::new(BROKEN, why)
}

/// They read what the host has, and change nothing.
#[cfg(test)]
mod tests {
    use std::future;

    use netlink_packet_route::link::LinkMessage;

    use super::*;

    async fn interfaces(dumps: &Dumps) -> Result<Vec<RouteNetlinkMessage>, KernelError> {
        dumps.list("interfaces", RouteNetlinkMessage::GetLink(LinkMessage::default())).await
    }

    #[tokio::test]
    async fn a_connection_that_ended_is_followed_by_another() {
        let dumps = Dumps::open().unwrap();
        assert!(!interfaces(&dumps).await.unwrap().is_empty());
        dumps.connection().as_ref().unwrap().task.abort();
        // Whether this one sees it in time.
        drop(interfaces(&dumps).await);
        assert!(!interfaces(&dumps).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_is_an_error_in_time_and_the_next_one_comes() {
        let dumps = Dumps::open().unwrap();
        let (silent, handle, _) = rtnetlink::new_connection().unwrap();
        let task = tokio::spawn(async move {
            let _silent = silent;
            future::pending::<()>().await;
        });
        *dumps.connection() = Some(Connection { handle, task });
        let error = interfaces(&dumps).await.unwrap_err();
        assert!(error.to_string().contains("cannot list the kernel's interfaces: no answer within"), "{error}");
        assert!(!interfaces(&dumps).await.unwrap().is_empty());
    }
}
