//! The thread that talks to the API server.
//!
//! In a large cluster the server tells of a heartbeat a hundred times a second, and being woken costs more than reading what
//! it says. So this thread, where it has nothing to do any more, sleeps before it listens again: what comes meanwhile waits,
//! and comes in one piece. The first event after a quiet time is seen at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use super::access::{ApiError, ApiOptions};
use super::api::Api;

/// How long the thread sleeps: the most by which this delays a route.
const REST: Duration = Duration::from_millis(40);

/// Whether the thread may sleep. Where answers are waited for, one after the other, it must not.
#[derive(Clone, Debug, Default)]
pub(super) struct Rest(Arc<AtomicBool>);

impl Rest {
    pub(super) fn allow(&self, allowed: bool) {
        self.0.store(allowed, Relaxed);
    }

    fn take(&self) {
        if self.0.load(Relaxed) {
            thread::sleep(REST);
        }
    }
}

/// Starts the thread, and lets `work` work there, which never ends.
pub(super) async fn start<W: Future<Output = ()> + Send>(
    options: ApiOptions,
    work: impl FnOnce(Api, Rest) -> W + Send + 'static,
) -> Result<Api, ApiError> {
    let rest = Rest::default();
    let runtime = runtime(rest.clone()).map_err(ApiError::Thread)?;
    let (opened, open) = oneshot::channel();
    let run = move || {
        runtime.block_on(async move {
            match Api::new(options).await {
                Ok(api) => {
                    // Nobody is there to hear it where the daemon ends already.
                    let _ = opened.send(Ok(api.clone()));
                    work(api, rest).await;
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            }
        });
    };
    thread::Builder::new().name("nodes".to_owned()).spawn(run).map_err(ApiError::Thread)?;
    open.await.unwrap_or_else(|_| Err(ApiError::Thread(io::Error::other("it ended at once"))))
}

/// A runtime of one thread, which rests, where it may, before it waits.
fn runtime(rest: Rest) -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().on_thread_park(move || rest.take()).build()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const WAITS: u32 = 10;

    /// How long so many short waits take, one after the other.
    fn waits(allowed: bool) -> Duration {
        let rest = Rest::default();
        rest.allow(allowed);
        let start = Instant::now();
        runtime(rest).unwrap().block_on(async {
            for _ in 0..WAITS {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        start.elapsed()
    }

    #[test]
    fn a_thread_that_may_rest_does_so_each_time_before_it_waits() {
        let took = waits(true);
        assert!(took >= REST * WAITS, "{took:?}");
    }

    #[test]
    fn a_thread_that_must_not_rest_goes_on_at_once() {
        let took = waits(false);
        assert!(took < REST * WAITS, "{took:?}");
    }
}
