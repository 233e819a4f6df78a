//! Many calls at the same time.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow};

use crate::bench::plugins::peers::{Peer, Pod, milliseconds};

/// The same for all of the pods at once, on a thread each: milliseconds from the first start to the last end, and what
/// each of them gave.
pub(super) fn at_once<R: Send>(pods: &mut [Pod], work: impl Fn(&mut Pod) -> Result<R> + Sync) -> Result<(f64, Vec<R>)> {
    let barrier = Barrier::new(pods.len() + 1);
    let (wall, results) = thread::scope(|scope| {
        // A thread inherits the namespace of the one that starts it.
        let call = |pod| {
            let (barrier, work) = (&barrier, &work);
            scope.spawn(move || {
                barrier.wait();
                work(pod)
            })
        };
        let threads: Vec<_> = pods.iter_mut().map(call).collect();
        // Before the others can start: afterwards they keep this thread from running.
        let start = Instant::now();
        barrier.wait();
        let results: Vec<_> = threads.into_iter().map(joined).collect();
        (milliseconds(start), results)
    });
    Ok((wall, results.into_iter().collect::<Result<_>>()?))
}

/// Deletes the old pods at once, and adds new ones one after another until the last is deleted; milliseconds of each ADD.
pub(super) fn while_deleted(peer: &Peer, old: &mut [Pod], new: &mut [Pod]) -> Result<Vec<f64>> {
    let barrier = Barrier::new(old.len() + 1);
    let left = AtomicUsize::new(old.len());
    let (adds, dels) = thread::scope(|scope| {
        let delete = |pod| {
            let (barrier, left) = (&barrier, &left);
            scope.spawn(move || {
                barrier.wait();
                let deleted = peer.call("DEL", pod);
                left.fetch_sub(1, Ordering::SeqCst);
                deleted
            })
        };
        let threads: Vec<_> = old.iter_mut().map(delete).collect();
        barrier.wait();
        let adds: Result<Vec<_>> = new
            .iter_mut()
            .enumerate()
            .take_while(|(number, _)| *number == 0 || left.load(Ordering::SeqCst) > 0)
            .map(|(_, pod)| peer.call("ADD", pod))
            .collect();
        (adds, threads.into_iter().map(joined).collect::<Result<Vec<_>>>())
    });
    dels.context("delete at once")?;
    adds
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|_| Err(anyhow!("a thread of the benchmark panicked")))
}
