//! What a datagram costs the CPU, from the client's send to the server's receive.
//!
//! Client and server are on one CPU, and the kernel forwards a packet in the context of the thread that sends it, so
//! that the two threads' CPU time, with that of the CPU's `ksoftirqd`, is all there is.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use nix::time::ClockId;

use super::{
    path::Path,
    request_response::{WARM_UP, exchange_udp},
    task::{softirq_clock, spent, together},
};

/// Payload of a datagram.
const LENGTH: usize = 64;
/// Datagrams that are sent without a pause.
pub(super) const BURST: u32 = 20;
/// The pause, in which the server gets the CPU. It is never made up for, because the server's socket holds only so much.
pub(super) const PAUSE: Duration = Duration::from_micros(500);
/// Where fewer of a hundred arrive, the CPU was saturated and its time means something else.
const ENOUGH: f64 = 99.0;

/// Nanoseconds for each datagram that arrived, and how many did.
pub(super) fn per_datagram(path: &Path, cpu: usize, time: Duration) -> Result<(f64, f64)> {
    let [client, server] = path.udp()?;
    let softirq = softirq_clock(cpu);
    let thread = ClockId::CLOCK_THREAD_CPUTIME_ID;
    let ((sent, client_time), (received, server_time)) = together(
        [cpu, cpu],
        move || {
            // A flow is promoted when both directions were seen.
            (0..WARM_UP).try_for_each(|_| exchange_udp(&client))?;
            let clock = || -> Result<_> { Ok(spent(thread)? + softirq.map_or(Ok(Duration::ZERO), spent)?) };
            let (start, before) = (Instant::now(), clock()?);
            let mut bursts = 0;
            while start.elapsed() < time {
                for _ in 0..BURST {
                    client.send(&[0; LENGTH])?;
                }
                bursts += 1;
                sleep(PAUSE);
            }
            let used = clock()?.saturating_sub(before);
            client.send(&[])?;
            Ok((f64::from(bursts * BURST), used))
        },
        move || {
            let mut buffer = [0; 2 * LENGTH];
            let (mut count, mut before) = (0_u32, spent(thread)?);
            loop {
                match server.recv_from(&mut buffer)? {
                    (0, _) => return Ok((f64::from(count), spent(thread)?.saturating_sub(before))),
                    (LENGTH, _) => count += 1,
                    (length, client) => {
                        server.send_to(&buffer[..length], client)?;
                        before = spent(thread)?;
                    }
                }
            }
        },
    )?;
    if received < sent * ENOUGH / 100.0 {
        bail!("{received} of {sent} datagrams arrived: {BURST} in {PAUSE:?} are too many here");
    }
    Ok(((client_time + server_time).as_secs_f64() * 1e9 / received, received))
}
