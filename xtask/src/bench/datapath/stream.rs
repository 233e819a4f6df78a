//! As much as connections carry.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

use super::{path::Path, peers::INTERFACE, rules::ip, task::together};

/// What is sent at once.
const CHUNK: usize = 128 << 10;
/// The windows open before the clock starts.
const WARM_UP: Duration = Duration::from_millis(40);

/// Bits that arrive in a second over so many connections at once.
pub(super) fn rate(path: &Path, cpus: [usize; 2], connections: usize, time: Duration) -> Result<f64> {
    let (clients, servers): (Vec<_>, Vec<_>) = path.tcp(connections)?.into_iter().map(|[c, s]| (c, s)).unzip();
    // Further threads have the CPU and the priority of the one that starts them.
    let (_, rates) =
        together(cpus, move || each(clients, |client| send(client, time)), move || each(servers, receive))?;
    Ok(rates.into_iter().sum())
}

/// As [`rate`], with a packet for every segment: the client's device is to take no more at once.
pub(super) fn rate_without_gso(path: &Path, cpus: [usize; 2], connections: usize, time: Duration) -> Result<f64> {
    let at_once = |segments: u32| ip(&path.client, &format!("link set {INTERFACE} gso_max_segs {segments}\n"));
    at_once(1)?;
    let rate = rate(path, cpus, connections, time);
    at_once(u16::MAX.into())?;
    rate
}

/// Does the same on a thread for each connection.
fn each<R: Send>(streams: Vec<TcpStream>, work: impl Fn(TcpStream) -> Result<R> + Sync) -> Result<Vec<R>> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = streams.into_iter().map(|stream| scope.spawn(move || work(stream))).collect();
        threads
            .into_iter()
            .map(|it| it.join().unwrap_or_else(|_| Err(anyhow!("a connection's thread panicked"))))
            .collect()
    })
}

fn send(mut client: TcpStream, time: Duration) -> Result<()> {
    let (start, chunk) = (Instant::now(), vec![0; CHUNK]);
    while start.elapsed() < WARM_UP + time {
        client.write_all(&chunk)?;
    }
    client.shutdown(Shutdown::Write)?;
    // Until the server has read everything.
    let _ = client.read(&mut [0])?;
    Ok(())
}

fn receive(mut server: TcpStream) -> Result<f64> {
    let (start, mut buffer) = (Instant::now(), vec![0; 2 * CHUNK]);
    while start.elapsed() < WARM_UP {
        let _ = server.read(&mut buffer)?;
    }
    let (start, mut bytes) = (Instant::now(), 0.0);
    loop {
        let length = server.read(&mut buffer)?;
        if length == 0 {
            return Ok(8.0 * bytes / start.elapsed().as_secs_f64());
        }
        bytes += f64::from(u32::try_from(length)?);
    }
}
