//! A byte there, a byte back.

use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{pace::steady_rate, path::Path, task::together};

/// Exchanges before the clock starts: far more than a flow needs to be promoted.
pub(super) const WARM_UP: u32 = 200;

/// Exchanges over one TCP connection: how many in a second, and how many there were in all.
pub(in crate::bench) fn tcp(path: &Path, cpus: [usize; 2], time: Duration) -> Result<(f64, f64)> {
    let [mut client, mut server] = path.tcp(1)?.pop().context("no connection")?;
    let (rate, ()) = together(
        cpus,
        move || rate(time, || exchange_tcp(&mut client)),
        move || {
            let mut buffer = [0; 64];
            loop {
                match server.read(&mut buffer)? {
                    0 => return Ok(()),
                    length => server.write_all(&buffer[..length])?,
                }
            }
        },
    )?;
    Ok(rate)
}

/// As [`tcp`], over UDP.
pub(super) fn udp(path: &Path, cpus: [usize; 2], time: Duration) -> Result<(f64, f64)> {
    let [client, server] = path.udp()?;
    let (rate, ()) = together(
        cpus,
        move || {
            let rate = rate(time, || exchange_udp(&client));
            // Nothing: the end.
            client.send(&[])?;
            rate
        },
        move || {
            let mut buffer = [0; 64];
            loop {
                match server.recv_from(&mut buffer)? {
                    (0, _) => return Ok(()),
                    (length, client) => server.send_to(&buffer[..length], client)?,
                };
            }
        },
    )?;
    Ok(rate)
}

fn rate(time: Duration, mut exchange: impl FnMut() -> Result<()>) -> Result<(f64, f64)> {
    (0..WARM_UP).try_for_each(|_| exchange())?;
    let (rate, count) = steady_rate(time, exchange)?;
    Ok((rate, count + f64::from(WARM_UP)))
}

fn exchange_tcp(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"x")?;
    Ok(stream.read_exact(&mut [0])?)
}

/// One datagram there and one back.
pub(super) fn exchange_udp(socket: &UdpSocket) -> Result<()> {
    socket.send(b"x")?;
    match socket.recv(&mut [0; 8])? {
        1 => Ok(()),
        length => bail!("{length} bytes came back instead of 1"),
    }
}
