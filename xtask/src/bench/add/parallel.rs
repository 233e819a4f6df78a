//! Many pods at once.

use std::{
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::{
    controls::Controls,
    peers::{Peer, Pod, bridge, milliseconds, minicni, pods},
    plan::Plan,
    sequence::{progress, warm_up},
};
use crate::{
    bench::statistics::{Compared, Summary},
    lab::Node,
};

/// Milliseconds of minicni and of bridge, each of them one figure per round.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Parallel {
    /// From the first exec to the last exit.
    pub(super) add_wall: Compared,
    /// The p99 of a round's calls.
    pub(super) add_p99: Compared,
    pub(super) del_wall: Compared,
    pub(super) del_p99: Compared,
}

/// One plugin's figures, by round.
#[derive(Debug, Default)]
struct Times {
    add_wall: Vec<f64>,
    add_p99: Vec<f64>,
    del_wall: Vec<f64>,
    del_p99: Vec<f64>,
}

/// Runs inside the node's namespace, which the plugins inherit.
pub(super) fn run(
    plan: &Plan,
    node: &Node,
    program: &Path,
    rng: &mut fastrand::Rng,
    controls: &mut Controls,
) -> Result<Parallel> {
    let peers = [minicni(node, program, "parallel"), bridge("parallel")];
    // Empty again after every round.
    let mut pods = pods("parallel", plan.parallel)?;
    warm_up(&[&peers[0], &peers[1]], &mut pods[0])?;
    let mut times = [Times::default(), Times::default()];
    let mut order = [0, 1];
    for round in 1..=plan.parallel_rounds {
        rng.shuffle(&mut order);
        for index in order {
            let (wall, p99) = at_once(&peers[index], "ADD", &mut pods)?;
            times[index].add_wall.push(wall);
            times[index].add_p99.push(p99);
            let (wall, p99) = at_once(&peers[index], "DEL", &mut pods)?;
            times[index].del_wall.push(wall);
            times[index].del_p99.push(p99);
        }
        (0..5).try_for_each(|_| controls.process())?;
        progress(&format!("{} pods at once", plan.parallel), round, plan.parallel_rounds, 1);
    }
    let [ours, theirs] = times;
    Ok(Parallel {
        add_wall: Compared::of(&ours.add_wall, &theirs.add_wall),
        add_p99: Compared::of(&ours.add_p99, &theirs.add_p99),
        del_wall: Compared::of(&ours.del_wall, &theirs.del_wall),
        del_p99: Compared::of(&ours.del_p99, &theirs.del_p99),
    })
}

/// The p99 of ADD, one pod after another, while others are deleted at once; milliseconds, as [`run`].
pub(super) fn churn(
    plan: &Plan,
    node: &Node,
    program: &Path,
    rng: &mut fastrand::Rng,
    controls: &mut Controls,
) -> Result<Compared> {
    let peers = [minicni(node, program, "churn"), bridge("churn")];
    let (mut old, mut new) = (pods("old", plan.churn)?, pods("new", 2 * plan.churn)?);
    warm_up(&[&peers[0], &peers[1]], &mut old[0])?;
    let mut times = [Vec::new(), Vec::new()];
    let mut order = [0, 1];
    for round in 1..=plan.parallel_rounds {
        rng.shuffle(&mut order);
        for index in order {
            let peer = &peers[index];
            old.iter_mut().try_for_each(|pod| peer.call("ADD", pod).map(drop))?;
            let adds = while_deleted(peer, &mut old, &mut new)?;
            times[index].push(Summary::of(&adds).p99);
            new.iter_mut().take(adds.len()).try_for_each(|pod| peer.call("DEL", pod).map(drop))?;
        }
        (0..5).try_for_each(|_| controls.process())?;
        progress(&format!("ADD during {} DELs", plan.churn), round, plan.parallel_rounds, 1);
    }
    let [ours, theirs] = times;
    Ok(Compared::of(&ours, &theirs))
}

/// The same command for all of the pods at once: milliseconds from the first exec to the last exit, and the p99.
fn at_once(peer: &Peer, command: &str, pods: &mut [Pod]) -> Result<(f64, f64)> {
    let barrier = Barrier::new(pods.len() + 1);
    let (wall, times) = thread::scope(|scope| {
        // A thread inherits the namespace of the one that starts it.
        let call = |pod| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                peer.call(command, pod)
            })
        };
        let threads: Vec<_> = pods.iter_mut().map(call).collect();
        // Before the others can start: afterwards they keep this thread from running.
        let start = Instant::now();
        barrier.wait();
        let times: Vec<_> = threads.into_iter().map(joined).collect();
        (milliseconds(start), times)
    });
    let times = times.into_iter().collect::<Result<Vec<_>>>()?;
    Ok((wall, Summary::of(&times).p99))
}

/// Deletes the old pods at once, and adds new ones one after another until the last is deleted; milliseconds of each ADD.
fn while_deleted(peer: &Peer, old: &mut [Pod], new: &mut [Pod]) -> Result<Vec<f64>> {
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
