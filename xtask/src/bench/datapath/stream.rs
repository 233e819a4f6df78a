//! As much as connections carry.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};

use super::{pace::PARTS, path::Path, peers::INTERFACE, rules::ip, task::together};
use crate::bench::statistics::Summary;

/// What is sent at once.
const CHUNK: usize = 128 << 10;
/// The windows open before the clock starts.
const WARM_UP: Duration = Duration::from_millis(40);

/// Bits that arrive in a second over so many connections at once.
pub(super) fn rate(path: &Path, cpus: [usize; 2], connections: usize, time: Duration) -> Result<f64> {
    let (clients, servers): (Vec<_>, Vec<_>) = path.tcp(connections)?.into_iter().map(|[c, s]| (c, s)).unzip();
    let arrivals = &Arrivals::new(Instant::now() + WARM_UP, time);
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

/// Bytes that arrive in each part of the time, over all connections.
struct Arrivals {
    start: Instant,
    part: Duration,
    bytes: [AtomicU64; PARTS as usize],
}

impl Arrivals {
    fn new(start: Instant, time: Duration) -> Self {
        Self { start, part: time / PARTS, bytes: Default::default() }
    }

    /// Counts what arrives at a moment. What is early or late is of no part.
    fn count(&self, bytes: usize, now: Instant) {
        let Some(since) = now.checked_duration_since(self.start) else { return };
        let part = usize::try_from(since.as_nanos() / self.part.as_nanos().max(1)).ok();
        if let Some(part) = part.and_then(|part| self.bytes.get(part)) {
            part.fetch_add(bytes as u64, Relaxed);
        }
    }

    fn are_over(&self, now: Instant) -> bool {
        now > self.start + self.part * PARTS
    }

    /// Bits in a second, in the middle one of the parts. A receiver that is held up finds more in its next part than a path carries.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 bytes")]
    fn rate(&self) -> f64 {
        let rates = self.bytes.each_ref().map(|bytes| 8.0 * bytes.load(Relaxed) as f64 / self.part.as_secs_f64());
        Summary::of(&rates).median
    }
}

/// Does the same on a thread for each connection.
fn each(streams: Vec<TcpStream>, work: impl Fn(TcpStream) -> Result<()> + Sync) -> Result<()> {
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = streams.into_iter().map(|stream| scope.spawn(move || work(stream))).collect();
        threads
            .into_iter()
            .try_for_each(|it| it.join().unwrap_or_else(|_| Err(anyhow!("a connection's thread panicked"))))
    })
}

fn send(mut client: TcpStream, arrivals: &Arrivals) -> Result<()> {
    let chunk = vec![0; CHUNK];
    while !arrivals.are_over(Instant::now()) {
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
        arrivals.count(length, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_most_of_the_time_whatever_piled_up_in_a_part_of_it() {
        let (start, part) = (Instant::now(), Duration::from_millis(10));
        let arrivals = Arrivals::new(start, part * PARTS);
        for number in 0..PARTS {
            arrivals.count(if number == 4 { 1_000_000_000 } else { 1_000 }, start + part * number);
        }
        arrivals.count(usize::MAX, start.checked_sub(part).unwrap());
        arrivals.count(usize::MAX, start + part * PARTS);
        assert!((arrivals.rate() - 800_000.0).abs() < 1.0, "{} bits in a second", arrivals.rate());
        assert!(arrivals.are_over(start + part * PARTS + part));
        assert!(!arrivals.are_over(start + part));
    }
}
