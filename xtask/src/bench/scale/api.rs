//! Thousands of requests to the API server, through `kubectl proxy`, which leaves plain HTTP.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use minicni::link::Netns;

use super::objects::{heartbeat, name, node};
use crate::lab::{
    directory,
    kubernetes::{Kubectl, Process},
};

const PORT: u16 = 8001;
/// Requests at the same time.
const WORKERS: u32 = 4;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The way to the API server.
pub(super) struct Api {
    netns: Netns,
    _proxy: Process,
}

impl Api {
    /// Starts the proxy in the API server's namespace.
    pub(super) fn new(lab: &str, netns: Netns, kubectl: &Kubectl) -> Result<Self> {
        let port = PORT.to_string();
        let dir = directory(lab).join("proxy").join(crate::lab::kubernetes::DIRECTORY);
        let proxy = Process::start(&dir, "kubectl-proxy", &netns, &mut kubectl.command(&["proxy", "--port", &port]))?;
        let api = Self { netns, _proxy: proxy };
        let start = Instant::now();
        while let Err(error) = api.request("GET", "/version", "", "") {
            if start.elapsed() > PATIENCE {
                return Err(error).context("kubectl proxy does not answer");
            }
            sleep(Duration::from_millis(50));
        }
        Ok(api)
    }

    /// A request, and the body of the answer.
    pub(super) fn request(&self, method: &str, path: &str, kind: &str, body: &str) -> Result<String> {
        self.netns.run(|| request(method, path, kind, body))?
    }

    /// Creates a node.
    pub(super) fn create(&self, number: u32) -> Result<()> {
        self.request("POST", "/api/v1/nodes", "application/json", &node(number).to_string()).map(drop)
    }

    /// Deletes a node.
    pub(super) fn delete(&self, number: u32) -> Result<()> {
        self.request("DELETE", &format!("/api/v1/nodes/{}", name(number)), "", "").map(drop)
    }

    /// Creates many nodes.
    pub(super) fn create_all(&self, numbers: std::ops::RangeInclusive<u32>) -> Result<()> {
        let next = AtomicU32::new(*numbers.start());
        let (last, create) =
            (*numbers.end(), |number| request("POST", "/api/v1/nodes", "application/json", &node(number).to_string()));
        scope(|scope| {
            let workers: Vec<_> = (0..WORKERS)
                .map(|_| {
                    scope.spawn(|| {
                        self.netns.run(|| -> Result<()> {
                            loop {
                                let number = next.fetch_add(1, Relaxed);
                                if number > last {
                                    return Ok(());
                                }
                                create(number).with_context(|| format!("create node {number}"))?;
                                if number.is_multiple_of(500) {
                                    eprintln!("{number} nodes");
                                }
                            }
                        })?
                    })
                })
                .collect();
            workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a worker panicked")))
        })
    }

    /// Lets every node say once a minute that it lives, until it is told to end. Gives how often one did; what the API
    /// server does not take, because it is away, is not counted.
    pub(super) fn beat(&self, nodes: u32, end: &AtomicBool, beats: &AtomicU32) {
        let start = Instant::now();
        let pause = Duration::from_mins(1) / nodes * WORKERS;
        let next = AtomicU32::new(0);
        scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    self.netns.run(|| {
                        while !end.load(Relaxed) {
                            let beat = next.fetch_add(1, Relaxed);
                            let path = format!("/api/v1/nodes/{}/status", name(beat % nodes + 1));
                            let said = heartbeat(1 + beat / nodes).to_string();
                            if request("PATCH", &path, "application/strategic-merge-patch+json", &said).is_ok() {
                                beats.fetch_add(1, Relaxed);
                            }
                            let due = pause * (beat / WORKERS);
                            sleep(due.saturating_sub(start.elapsed()).min(Duration::from_secs(1)));
                        }
                    })
                });
            }
        });
    }
}

fn request(method: &str, path: &str, kind: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    // Version 1.0: the answer ends with the connection, and comes in one piece.
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of its head")?;
    if !head.split(' ').nth(1).is_some_and(|status| status.starts_with('2')) {
        bail!("{method} {path}: {}: {body}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}
