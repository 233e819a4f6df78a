//! A connection for every request.

use std::{
    io::{Read as _, Write as _},
    time::Duration,
};

use anyhow::{Result, bail};

use super::{pace::steady_rate, path::Path, task::together};

/// What asks for an answer, and what ends the server.
const REQUEST: u8 = 1;
const END: u8 = 0;

/// Connections in a second, each with a request and its answer, and how many there were. The server closes first, so
/// that no port of the client has to wait before it is used again.
pub(in crate::bench) fn rate(path: &Path, cpus: [usize; 2], time: Duration) -> Result<(f64, f64)> {
    let listener = path.listen()?;
    let (rate, ()) = together(
        cpus,
        || {
            path.client.run(|| {
                let rate = steady_rate(time, || {
                    let mut stream = path.connect()?;
                    stream.write_all(&[REQUEST])?;
                    let mut answer = [0; 2];
                    if stream.read(&mut answer)? != 1 || stream.read(&mut answer)? != 0 {
                        bail!("the server did not answer with one byte and close");
                    }
                    Ok(())
                })?;
                path.connect()?.write_all(&[END])?;
                Ok(rate)
            })?
        },
        || {
            loop {
                let (mut stream, _) = listener.accept()?;
                let mut request = [0];
                stream.read_exact(&mut request)?;
                if request == [END] {
                    return Ok(());
                }
                stream.write_all(&request)?;
            }
        },
    )?;
    Ok(rate)
}
