//! A small client and server: requests of one byte, answered each, over TCP or UDP.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use minicni::link::Netns;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a server looks whether it is to end.
const TURN: Duration = Duration::from_millis(50);

/// TCP or UDP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// One connection.
    Tcp,
    /// One socket, connected.
    Udp,
}

/// Answers on one port, over both protocols and address families, until it is dropped.
#[derive(Debug)]
pub struct Server {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts answering inside a namespace.
    pub fn start(netns: &Netns, port: u16) -> Result<Self> {
        // A socket stays in the namespace in which it was made.
        let (tcp, udp) = netns.run(|| bind(port))??;
        tcp.set_nonblocking(true)?;
        udp.set_read_timeout(Some(TURN))?;
        let end = Arc::new(AtomicBool::new(false));
        let threads = vec![
            thread::spawn({
                let end = Arc::clone(&end);
                move || serve_tcp(&tcp, &end)
            }),
            thread::spawn({
                let end = Arc::clone(&end);
                move || serve_udp(&udp, &end)
            }),
        ];
        Ok(Self { end, threads })
    }
}

/// Sockets for both families, as they are where `net.ipv6.bindv6only` has its default; IPv4 alone where the kernel has
/// no IPv6.
fn bind(port: u16) -> io::Result<(TcpListener, UdpSocket)> {
    let bind = |ip: IpAddr| io::Result::Ok((TcpListener::bind((ip, port))?, UdpSocket::bind((ip, port))?));
    match bind(Ipv6Addr::UNSPECIFIED.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => bind(Ipv4Addr::UNSPECIFIED.into()),
        bound => bound,
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

/// Tells threads that look at the flag to end when it is dropped, also by a panic: a scope waits for them before it says anything.
#[derive(Debug)]
pub struct Ending<'a>(pub &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn serve_tcp(listener: &TcpListener, end: &Arc<AtomicBool>) {
    while !end.load(Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let end = Arc::clone(end);
                thread::spawn(move || answer(stream, &end));
            }
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn answer(mut stream: TcpStream, end: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    let ready = stream.set_nonblocking(false).and_then(|()| stream.set_nodelay(true));
    if ready.and_then(|()| stream.set_read_timeout(Some(TURN))).is_err() {
        return;
    }
    while !end.load(Relaxed) {
        match uninterrupted(|| stream.read(&mut buffer)) {
            Ok(0) => return,
            Ok(length) => {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

fn serve_udp(socket: &UdpSocket, end: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !end.load(Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
}

/// Makes a system call again that was interrupted. One on a socket with a time limit is not repeated by the kernel, and is
/// interrupted also where a process is stopped and goes on: `signal(7)`.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// A client's end of a conversation.
#[derive(Debug)]
pub enum Client {
    /// A TCP connection.
    Tcp(TcpStream),
    /// A connected UDP socket.
    Udp(UdpSocket),
}

impl Client {
    /// Connects from inside a namespace.
    pub fn connect(netns: &Netns, protocol: Protocol, to: SocketAddr) -> Result<Self> {
        let client = netns.run(|| -> Result<Self> {
            match protocol {
                Protocol::Tcp => {
                    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    Ok(Self::Tcp(stream))
                }
                Protocol::Udp => {
                    let any: IpAddr =
                        if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
                    let socket = UdpSocket::bind((any, 0))?;
                    socket.connect(to)?;
                    socket.set_read_timeout(Some(PATIENCE))?;
                    Ok(Self::Udp(socket))
                }
            }
        })?;
        client.with_context(|| format!("connect to {to} over {protocol:?}"))
    }

    /// Sends bytes and waits until as many are back.
    pub fn exchange(&mut self, bytes: &[u8]) -> Result<()> {
        let mut buffer = vec![0; bytes.len()];
        match self {
            Self::Tcp(stream) => {
                stream.write_all(bytes)?;
                stream.read_exact(&mut buffer)?;
            }
            Self::Udp(socket) => {
                socket.send(bytes)?;
                let length = uninterrupted(|| socket.recv(&mut buffer))?;
                buffer.truncate(length);
            }
        }
        if buffer != bytes {
            bail!("the answer differs from the request");
        }
        Ok(())
    }

    /// Closes our direction and waits until the server closes its own.
    pub fn close(mut self) -> Result<()> {
        if let Self::Tcp(stream) = &mut self {
            stream.shutdown(std::net::Shutdown::Write)?;
            let length = uninterrupted(|| stream.read(&mut [0; 1])).context("waiting for the server's FIN")?;
            if length != 0 {
                bail!("the server sent data instead of closing");
            }
        }
        Ok(())
    }

    /// The median of so many round trips of one byte.
    pub fn measure(&mut self, rounds: usize) -> Result<Duration> {
        let mut times = (0..rounds)
            .map(|_| {
                let start = Instant::now();
                self.exchange(b"x")?;
                Ok(start.elapsed())
            })
            .collect::<Result<Vec<_>>>()?;
        times.sort();
        times.get(rounds / 2).copied().context("no rounds")
    }
}
