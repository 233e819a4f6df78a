//! A server that says who it is, whom it sees, and what it got.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use minicni::link::Netns;

/// How often a server looks whether it is to end.
const TURN: Duration = Duration::from_millis(20);

/// An answer: `<server> <address of the client as the server sees it>`, a newline, and the request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Answer {
    /// The name of the server.
    pub(super) server: String,
    /// The client, as the server sees it.
    pub(super) client: SocketAddr,
    /// What the server got.
    pub(super) request: Vec<u8>,
}

impl Answer {
    fn write(server: &str, client: SocketAddr, request: &[u8]) -> Vec<u8> {
        // An IPv4 client of a socket for both families.
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        [format!("{server} {client}\n").as_bytes(), request].concat()
    }

    /// Reads what a server wrote.
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n').context("an answer without its first line")?;
        let line = str::from_utf8(&bytes[..end])?;
        let Some((server, client)) = line.split_once(' ') else { bail!("an answer that begins with {line:?}") };
        Ok(Self { server: server.to_owned(), client: client.parse()?, request: bytes[end + 1..].to_vec() })
    }
}

/// Writes one message to a stream, after its length.
pub(super) fn send_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat())
}

/// Reads one such message; nothing where the stream has ended.
pub(super) fn receive_framed(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1])? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..])?;
    let mut message = vec![0; u32::from_be_bytes(length).min(1 << 20) as usize];
    stream.read_exact(&mut message)?;
    Ok(Some(message))
}

/// Answers on one port, over TCP and UDP, until it is dropped.
pub(super) struct Server {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts answering at an address inside a namespace.
    pub(super) fn start(netns: &Netns, name: &str, at: SocketAddr) -> Result<Self> {
        let bind = || io::Result::Ok((TcpListener::bind(at)?, UdpSocket::bind(at)?));
        let (tcp, udp) = netns.run(bind)?.with_context(|| format!("listen at {at} of {name}"))?;
        tcp.set_nonblocking(true)?;
        udp.set_read_timeout(Some(TURN))?;
        let end = Arc::new(AtomicBool::new(false));
        let threads = vec![
            thread::spawn({
                let (name, end) = (name.to_owned(), Arc::clone(&end));
                move || serve_tcp(&tcp, &name, &end)
            }),
            thread::spawn({
                let (name, end) = (name.to_owned(), Arc::clone(&end));
                move || serve_udp(&udp, &name, &end)
            }),
        ];
        Ok(Self { end, threads })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve_tcp(listener: &TcpListener, name: &str, end: &Arc<AtomicBool>) {
    while !end.load(Relaxed) {
        match listener.accept() {
            Ok((stream, client)) => {
                let (name, end) = (name.to_owned(), Arc::clone(end));
                thread::spawn(move || converse(stream, client, &name, &end));
            }
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn converse(mut stream: TcpStream, client: SocketAddr, name: &str, end: &AtomicBool) {
    if stream.set_nonblocking(false).and_then(|()| stream.set_nodelay(true)).is_err() {
        return;
    }
    while !end.load(Relaxed) {
        // Waits with the stream untouched, so that a message is never read in part.
        if stream.set_read_timeout(Some(TURN)).is_err() {
            return;
        }
        match stream.peek(&mut [0]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => return,
        }
        let answered = stream.set_read_timeout(Some(Duration::from_secs(5))).and_then(|()| receive_framed(&mut stream));
        let Ok(Some(request)) = answered else { return };
        if send_framed(&mut stream, &Answer::write(name, client, &request)).is_err() {
            return;
        }
    }
}

fn serve_udp(socket: &UdpSocket, name: &str, end: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !end.load(Relaxed) {
        if let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&Answer::write(name, client, &buffer[..length]), client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        let client = "[::ffff:10.0.0.1]:1000".parse().unwrap();
        let answer = Answer::read(&Answer::write("b", client, b"x\ny")).unwrap();
        let expected =
            Answer { server: "b".to_owned(), client: "10.0.0.1:1000".parse().unwrap(), request: b"x\ny".to_vec() };
        assert_eq!(answer, expected);
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for bytes in [&b""[..], b"b 10.0.0.1:1", b"b\n", b"b there\n"] {
            assert!(Answer::read(bytes).is_err(), "{bytes:?}");
        }
    }
}
