//! What the eBPF programs log, passed on to the daemon's own log.

use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};
use tracing::warn;

use crate::datapath::Pins;

/// Starts to pass on the log of the pinned programs. Only one process may read it at a time.
pub(super) fn forward(pins: &Pins) {
    let logger = match pins.open_programs() {
        Ok(programs) => EbpfLogger::init_from_id(programs.ids().0),
        Err(error) => {
            warn!(%error, "no log of the eBPF programs");
            return;
        }
    };
    match logger {
        Ok(logger) => {
            tokio::spawn(read(logger));
        }
        Err(error) => warn!(%error, "no log of the eBPF programs"),
    }
}

async fn read(logger: EbpfLogger<&'static dyn tracing_log::log::Log>) {
    // SAFETY: the logger owns its descriptor, always returns the same, and is not exchanged while registered.
    let mut logger = match unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) } {
        Ok(logger) => logger,
        Err(error) => {
            warn!(error = %error, "no log of the eBPF programs");
            return;
        }
    };
    while let Ok(mut ready) = logger.readable_mut().await {
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}
