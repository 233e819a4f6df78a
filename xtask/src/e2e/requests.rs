//! Requests to the pods' web servers, from inside a namespace.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use minicni::link::Netns;

use crate::lab::traffic::{Client, Protocol};

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between the requests of a stream.
const PAUSE: Duration = Duration::from_millis(20);

/// What a web server says: who it is, and who asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Answer {
    pub(super) pod: String,
    pub(super) client: IpAddr,
}

/// Asks the web server at an address, over a connection of its own.
pub(super) fn ask(from: &Netns, to: SocketAddr) -> Result<Answer> {
    from.run(|| ask_from_here(to))?.with_context(|| format!("ask {to}"))
}

fn ask_from_here(to: SocketAddr) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /cgi-bin/who HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let mut words = text.rsplit("\n\n").next().unwrap_or_default().split_whitespace();
    let (Some(pod), Some(client)) = (words.next(), words.next()) else { bail!("the answer is {text:?}") };
    let client: IpAddr = client.trim_matches(['[', ']']).parse().with_context(|| format!("the answer is {text:?}"))?;
    Ok(Answer { pod: pod.to_owned(), client: client.to_canonical() })
}

/// Asks again and again, until it is told to stop.
pub(super) struct Stream {
    end: Arc<AtomicBool>,
    thread: JoinHandle<Result<Counted>>,
}

/// What a stream of requests came to.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) answered: usize,
    /// What the failures said.
    pub(super) failed: Vec<String>,
}

impl Stream {
    /// Starts asking from inside a namespace, each time over a connection of its own.
    pub(super) fn start(from: Netns, to: SocketAddr) -> Self {
        Self::repeat(from, move || ask_from_here(to).map(drop))
    }

    /// Starts asking a server of [`crate::lab::traffic`], over one connection for all requests.
    pub(super) fn converse(from: Netns, to: SocketAddr) -> Result<Self> {
        let mut client = Client::connect(&from, Protocol::Tcp, to)?;
        Ok(Self::repeat(from, move || client.exchange(b"x")))
    }

    fn repeat(from: Netns, mut request: impl FnMut() -> Result<()> + Send + 'static) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let end = Arc::clone(&end);
            move || {
                Ok(from.run(|| {
                    let mut counted = Counted::default();
                    while !end.load(Relaxed) {
                        match request() {
                            Ok(()) => counted.answered += 1,
                            Err(error) => counted.failed.push(format!("{error:#}")),
                        }
                        thread::sleep(PAUSE);
                    }
                    counted
                })?)
            }
        });
        Self { end, thread }
    }

    /// Stops asking. That a request failed is an error.
    pub(super) fn finish(self) -> Result<usize> {
        self.end.store(true, Relaxed);
        let Ok(counted) = self.thread.join() else { bail!("the client panicked") };
        let Counted { answered, failed } = counted?;
        match failed.first() {
            Some(first) => bail!("{} of {} requests failed: {first}", failed.len(), answered + failed.len()),
            None => Ok(answered),
        }
    }
}
