//! As much as connections carry.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

use super::{arrivals::Arrivals, path::Path, peers::INTERFACE, rules::ip, task::together};

/// What is sent at once.
const CHUNK: usize = 128 << 10;
/// Of the time that everything is measured: windows and buffers swing slowly.
const TIMES: u32 = 5;
/// The windows open before the clock starts.
const WARM_UP: Duration = Duration::from_millis(40);

/// Bits that arrive in a second over so many connections at once, in the middle one of the parts of the time.
pub(super) fn rate(path: &Path, cpus: [usize; 2], connections: usize, time: Duration) -> Result<f64> {
    let (clients, servers): (Vec<_>, Vec<_>) = path.tcp(connections)?.into_iter().map(|[c, s]| (c, s)).unzip();
    let arrivals = &Arrivals::new(Instant::now() + WARM_UP, TIMES * time);
    // Further threads have the CPU and the priority of the one that starts them.
    together(
        cpus,
        move || each(clients, |client| send(client, arrivals)),
        move || each(servers, |server| receive(server, arrivals)),
    )?;
    Ok(arrivals.rate())
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

fn send(mut client: TcpStream, arrivals: &Arrivals) -> Result<()> {
    let chunk = vec![0; CHUNK];
    while !arrivals.is_over(Instant::now()) {
        client.write_all(&chunk)?;
    }
    client.shutdown(Shutdown::Write)?;
    // Until the server has read everything.
    let _ = client.read(&mut [0])?;
    Ok(())
}

fn receive(mut server: TcpStream, arrivals: &Arrivals) -> Result<()> {
    let mut buffer = vec![0; 2 * CHUNK];
    loop {
        let length = server.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        arrivals.add(Instant::now(), length);
    }
}
