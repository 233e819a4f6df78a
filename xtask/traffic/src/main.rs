//! Client and server of `cargo xtask bench kind`, inside pods: the only file of their image.
//!
//! `traffic serve` answers until it is ended. `traffic stream|request|connect ADDRESS MILLISECONDS` measures for so long and
//! prints one JSON object, `{"rate": …}`: what there was in a second of bits, exchanges or connections.

use std::{
    env,
    error::Error,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

/// The ports of the server, which deploy/bench/bench.yaml names for its Services.
const STREAM: u16 = 7001;
const REQUEST: u16 = 7002;
const CONNECT: u16 = 7003;

/// What a stream sends at once.
const CHUNK: usize = 128 << 10;
/// How long a stream opens its windows before the clock starts.
const WARM_UP: Duration = Duration::from_millis(100);
/// Exchanges before the clock starts: far more than a flow cache needs to learn a flow.
const WARM_UP_EXCHANGES: u32 = 200;
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);

const USAGE: &str = "traffic serve, or traffic stream|request|connect ADDRESS MILLISECONDS";

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("traffic {}: {error}", arguments.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    if arguments == ["serve"] {
        return serve();
    }
    let [what, address, milliseconds] = arguments[..] else { return Err(USAGE.into()) };
    let address = address.parse()?;
    let time = Duration::from_millis(milliseconds.parse()?);
    let rate = match what {
        "stream" => stream(address, time)?,
        "request" => request(address, time)?,
        "connect" => connect(address, time)?,
        _ => return Err(USAGE.into()),
    };
    println!("{{\"rate\": {rate}}}");
    Ok(())
}

fn serve() -> Result<()> {
    let stream = listen(STREAM)?;
    let request = listen(REQUEST)?;
    let connect = listen(CONNECT)?;
    thread::spawn(move || for_each(&stream, true, take_stream));
    thread::spawn(move || for_each(&request, true, answer_requests));
    for_each(&connect, false, answer_once);
    Ok(())
}

/// Listens for both families; for IPv4 alone where the kernel has no IPv6.
fn listen(port: u16) -> io::Result<TcpListener> {
    let listen = |ip: IpAddr| TcpListener::bind((ip, port));
    listen(Ipv6Addr::UNSPECIFIED.into()).or_else(|_| listen(Ipv4Addr::UNSPECIFIED.into()))
}

fn for_each(listener: &TcpListener, lasting: bool, work: fn(TcpStream) -> io::Result<()>) {
    for stream in listener.incoming() {
        let handle = move || {
            let done = stream.and_then(|stream| {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                work(stream)
            });
            if let Err(error) = done {
                eprintln!("traffic serve: {error}");
            }
        };
        if lasting {
            thread::spawn(handle);
        } else {
            handle();
        }
    }
}

/// Reads until the end, and says how many bytes came after the warm-up, in how many nanoseconds: two u64, big endian.
fn take_stream(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 2 * CHUNK];
    let start = Instant::now();
    while start.elapsed() < WARM_UP {
        if stream.read(&mut buffer)? == 0 {
            return Ok(());
        }
    }
    let (start, mut bytes) = (Instant::now(), 0_u64);
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            stream.write_all(&bytes.to_be_bytes())?;
            return stream.write_all(&nanoseconds.to_be_bytes());
        }
        bytes += length as u64;
    }
}

fn answer_requests(mut stream: TcpStream) -> io::Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte)? != 0 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

/// Closes first, so that no port of the client has to wait before it is used again.
fn answer_once(mut stream: TcpStream) -> io::Result<()> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)
}

fn open(address: IpAddr, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&(address, port).into(), PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Bits in a second over one connection, as the server counts them.
fn stream(address: IpAddr, time: Duration) -> Result<f64> {
    let mut stream = open(address, STREAM)?;
    let (start, chunk) = (Instant::now(), vec![0; CHUNK]);
    while start.elapsed() < WARM_UP + time {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut number = || -> io::Result<u64> {
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes)?;
        Ok(u64::from_be_bytes(bytes))
    };
    let (bytes, nanoseconds) = (number()?, number()?);
    #[expect(clippy::cast_precision_loss, reason = "a rate of some digits")]
    let rate = bytes as f64 * 8.0 / Duration::from_nanos(nanoseconds).as_secs_f64();
    Ok(rate)
}

/// Exchanges of a byte in a second over one connection.
fn request(address: IpAddr, time: Duration) -> Result<f64> {
    let mut stream = open(address, REQUEST)?;
    let mut exchange = || {
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])
    };
    (0..WARM_UP_EXCHANGES).try_for_each(|_| exchange())?;
    rate(time, exchange)
}

/// Connections in a second, each with an exchange.
fn connect(address: IpAddr, time: Duration) -> Result<f64> {
    rate(time, || {
        let mut stream = open(address, CONNECT)?;
        stream.write_all(b"x")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        if answer == b"x" { Ok(()) } else { Err(io::Error::other(format!("the answer is {answer:?}"))) }
    })
}

/// How often something is done in a second.
fn rate(time: Duration, mut work: impl FnMut() -> io::Result<()>) -> Result<f64> {
    let (start, mut count) = (Instant::now(), 0.0);
    loop {
        work()?;
        count += 1.0;
        let elapsed = start.elapsed();
        if elapsed >= time {
            return Ok(count / elapsed.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_workload_is_answered_and_gives_a_rate() {
        thread::spawn(|| serve().unwrap());
        let (local, time) = (Ipv4Addr::LOCALHOST.into(), Duration::from_millis(50));
        let start = Instant::now();
        while open(local, CONNECT).is_err() {
            assert!(start.elapsed() < PATIENCE, "the server does not listen");
        }
        for work in [stream, request, connect] {
            let rate = work(local, time).unwrap();
            assert!(rate.is_finite() && rate > 1.0, "{rate}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error_with_the_usage() {
        for words in [&["stream"][..], &["fly", "127.0.0.1", "1"], &[]] {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(run(&words).unwrap_err().to_string(), USAGE);
        }
    }
}
