//! `/metrics`, `/healthz` and `/readyz`.
//!
//! On a thread of its own: what is read for the metrics keeps the main loop from nothing, and a main loop that hangs is
//! told of.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use prometheus_client::{encoding, registry::Registry};
use tokio::{
    net::TcpStream,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tracing::debug;

use super::health::Health;

/// How long an address that cannot be had is left alone until the next attempt.
const RETRY: Duration = Duration::from_secs(5);
/// How long the daemon before this one, and what it executes at its end, may hold the address still.
const PREDECESSOR: Duration = Duration::from_millis(500);
/// How long one request may take, from its connection to the last byte of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many connections there may be at once. One more ends the oldest, so that who dawdles is in nobody's way.
const CONNECTIONS: usize = 16;
/// How many headers a request may have, and how long they may be in bytes.
const HEADERS: usize = 32;
const HEADER_BYTES: usize = 16 * 1024;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// What there is to be asked for.
#[derive(Debug)]
struct Pages {
    registry: Registry,
    health: Health,
}

/// The thread that answers, until the process ends.
#[derive(Debug)]
pub(super) struct Server {
    problem: Arc<Mutex<Option<String>>>,
}

impl Server {
    /// Listens at an address in the network namespace of this thread, or as soon as it can be had.
    pub(super) fn start(address: SocketAddr, registry: Registry, health: Health) -> io::Result<Self> {
        // Here, so that the first pass knows what came of it.
        let first = listen_first(address);
        let problem = Arc::new(Mutex::new(first.as_ref().err().cloned()));
        let server = Self { problem: Arc::clone(&problem) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let pages = Arc::new(Pages { registry, health });
        thread::Builder::new().name("http".to_owned()).spawn(move || {
            runtime.block_on(async {
                let mut listener = first;
                loop {
                    match listener {
                        Ok(listening) => {
                            *locked(&problem) = None;
                            let error = serve(listening, address, &pages).await;
                            *locked(&problem) = Some(failed(address, &error));
                        }
                        Err(error) => *locked(&problem) = Some(error),
                    }
                    sleep(RETRY).await;
                    listener = listen(address);
                }
            });
        })?;
        Ok(server)
    }

    /// Why nobody can ask at the moment, if so.
    pub(super) fn problem(&self) -> Option<String> {
        locked(&self.problem).clone()
    }
}

/// Nothing that panics is done under the lock.
fn locked(problem: &Mutex<Option<String>>) -> MutexGuard<'_, Option<String>> {
    problem.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen_first(address: SocketAddr) -> Result<TcpListener, String> {
    let deadline = Instant::now() + PREDECESSOR;
    loop {
        match bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            bound => return bound.map_err(|error| failed(address, &error)),
        }
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    bind(address).map_err(|error| failed(address, &error))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn failed(address: SocketAddr, error: &io::Error) -> String {
    format!("no metrics at {address}: {error}; name another address with --metrics-address, or off")
}

/// Answers until the listener is of no use any more.
async fn serve(listener: TcpListener, address: SocketAddr, pages: &Arc<Pages>) -> io::Error {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        match listener.accept().await {
            // `route_localnet`, which kube-proxy sets, lets others reach 127.0.0.1 whom no rule keeps from it.
            Ok((_, peer)) if address.ip().is_loopback() && !peer.ip().is_loopback() => {
                debug!(%peer, "refused: not from this host");
            }
            Ok((stream, _)) => {
                connections.retain(|connection| !connection.is_finished());
                if connections.len() == CONNECTIONS
                    && let Some(oldest) = connections.pop_front()
                {
                    oldest.abort();
                }
                connections
                    .push_back(tokio::spawn(timeout(PATIENCE, converse(stream, Arc::clone(pages)))).abort_handle());
            }
            // Out of descriptors, for example: what helps is that others end.
            Err(error) => {
                debug!(%error, "no connection accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One request, one answer.
async fn converse(stream: TcpStream, pages: Arc<Pages>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(pages.answer(request.method(), request.uri().path())) }
    });
    let mut protocol = http1::Builder::new();
    // The time is limited for the whole of it.
    protocol.header_read_timeout(None).keep_alive(false).max_headers(HEADERS).max_buf_size(HEADER_BYTES);
    if let Err(error) = protocol.serve_connection(TokioIo::new(stream), answer).await {
        debug!(%error, "a client of the metrics failed");
    }
}

impl Pages {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match path {
            "/metrics" => self.metrics(),
            "/healthz" => judgement(self.health.ailment(Instant::now())),
            "/readyz" => judgement(self.health.unreadiness()),
            _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n".to_owned()),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut body = String::new();
        match encoding::text::encode(&mut body, &self.registry) {
            Ok(()) => response(StatusCode::OK, OPENMETRICS, body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics cannot be written: {error}\n")),
        }
    }
}

fn judgement(complaint: Option<String>) -> Response<Full<Bytes>> {
    match complaint {
        None => text(StatusCode::OK, "ok\n".to_owned()),
        Some(complaint) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{complaint}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    response(status, PLAIN, body)
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_the_daemon_before_still_holds_for_a_moment_is_waited_for() {
        let before = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = before.local_addr().unwrap();
        let ending = thread::spawn(move || {
            thread::sleep(PREDECESSOR / 10);
            drop(before);
        });
        listen_first(address).unwrap();
        ending.join().unwrap();
    }

    #[test]
    fn an_address_that_stays_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = listen_first(address).unwrap_err();
        assert!(error.contains(&address.to_string()) && error.contains("--metrics-address"), "{error}");
    }
}
