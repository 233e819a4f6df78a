//! As much as one connection carries.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{path::Path, task::together};

/// What is sent at once.
const CHUNK: usize = 128 << 10;
/// The windows open before the clock starts.
const WARM_UP: Duration = Duration::from_millis(40);

/// Bits that arrive in a second.
pub(super) fn rate(path: &Path, cpus: [usize; 2], time: Duration) -> Result<f64> {
    let [mut client, mut server] = path.tcp()?;
    let ((), rate) = together(
        cpus,
        move || {
            let (start, chunk) = (Instant::now(), vec![0; CHUNK]);
            while start.elapsed() < WARM_UP + time {
                client.write_all(&chunk)?;
            }
            client.shutdown(Shutdown::Write)?;
            // Until the server has read everything.
            let _ = client.read(&mut [0])?;
            Ok(())
        },
        move || {
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
        },
    )?;
    Ok(rate)
}
