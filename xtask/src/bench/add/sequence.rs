//! One pod after another.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{
    controls::Controls,
    peers::{Peer, Pod, bridge, bridge_dual_stack, minicni, minicni_dual_stack, pods, ptp_dual_stack},
    plan::Plan,
};
use crate::{
    bench::statistics::{Compared, Summary},
    lab::Node,
};

/// Milliseconds of minicni and of bridge.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Sequence {
    pub(super) add: Compared,
    pub(super) check: Compared,
    pub(super) del: Compared,
    /// bridge has no STATUS.
    pub(super) status: Summary,
    /// The process starts, answers, and does nothing.
    pub(super) version: Summary,
}

/// Milliseconds of one plugin, by round.
#[derive(Debug, Default)]
pub(super) struct Times {
    pub(super) add: Vec<f64>,
    pub(super) check: Vec<f64>,
    pub(super) del: Vec<f64>,
}

impl Times {
    /// The life of a pod.
    pub(super) fn take(&mut self, peer: &Peer, pod: &mut Pod) -> Result<()> {
        self.add.push(peer.call("ADD", pod)?);
        self.check.push(peer.call("CHECK", pod)?);
        self.del.push(peer.call("DEL", pod)?);
        Ok(())
    }
}

/// What a round consists of, in any order.
#[derive(Clone, Copy)]
enum Step {
    Minicni,
    Bridge,
    Status,
    Version,
    Process,
    Veth,
}

/// Runs inside the node's namespace, which the plugins inherit.
pub(super) fn run(
    plan: &Plan,
    node: &Node,
    program: &Path,
    rng: &mut fastrand::Rng,
    controls: &mut Controls,
) -> Result<Sequence> {
    let (ours, theirs) = (minicni(node, program, "sequence"), bridge("sequence"));
    let mut pods = pods("sequence", 1)?;
    let pod = &mut pods[0];
    warm_up(&[&ours, &theirs], pod)?;
    let (mut minicni, mut bridge) = (Times::default(), Times::default());
    let (mut status, mut version) = (Vec::new(), Vec::new());
    let mut steps = [Step::Minicni, Step::Bridge, Step::Status, Step::Version, Step::Process, Step::Veth];
    for round in 1..=plan.rounds {
        rng.shuffle(&mut steps);
        for step in steps {
            match step {
                Step::Minicni => minicni.take(&ours, pod)?,
                Step::Bridge => bridge.take(&theirs, pod)?,
                Step::Status => status.push(ours.ask("STATUS")?),
                Step::Version => version.push(ours.ask("VERSION")?),
                Step::Process => controls.process()?,
                Step::Veth => controls.veth(&pod.path)?,
            }
        }
        progress("one pod after another", round, plan.rounds, 50);
    }
    Ok(Sequence {
        add: Compared::of(&minicni.add, &bridge.add),
        check: Compared::of(&minicni.check, &bridge.check),
        del: Compared::of(&minicni.del, &bridge.del),
        status: Summary::of(&status),
        version: Summary::of(&version),
    })
}

/// ADD of pods with an address of each family, in milliseconds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct DualStack {
    /// minicni beside bridge, which has no duplicate address detection since 1.1.0:
    /// <https://github.com/containernetworking/plugins/pull/695>
    pub(super) bridge: Compared,
    /// minicni beside ptp, which waits for it.
    pub(super) ptp: Compared,
}

/// As [`run`].
pub(super) fn dual_stack(
    plan: &Plan,
    node: &Node,
    program: &Path,
    rng: &mut fastrand::Rng,
    controls: &mut Controls,
) -> Result<DualStack> {
    let ours = minicni_dual_stack(node, program, "dual");
    let pod = &mut pods("dual", 1)?[0];
    let mut beside = |what, theirs, rounds| dual_stack_add(what, [&ours, &theirs], pod, rounds, rng, controls);
    Ok(DualStack {
        bridge: beside("dual stack, beside bridge", bridge_dual_stack("dual"), plan.rounds)?,
        ptp: beside("dual stack, beside ptp", ptp_dual_stack("routed"), plan.waiting_rounds)?,
    })
}

fn dual_stack_add(
    what: &str,
    peers: [&Peer; 2],
    pod: &mut Pod,
    rounds: usize,
    rng: &mut fastrand::Rng,
    controls: &mut Controls,
) -> Result<Compared> {
    warm_up(&peers, pod)?;
    let mut times = [Vec::new(), Vec::new()];
    let mut order = [0, 1];
    for round in 1..=rounds {
        rng.shuffle(&mut order);
        for index in order {
            times[index].push(peers[index].call("ADD", pod)?);
            peers[index].call("DEL", pod)?;
        }
        controls.process()?;
        progress(what, round, rounds, 50);
    }
    let [ours, theirs] = times;
    Ok(Compared::of(&ours, &theirs))
}

/// The first pod of a network makes what the others find.
pub(super) fn warm_up(peers: &[&Peer], pod: &mut Pod) -> Result<()> {
    for peer in peers {
        peer.call("ADD", pod)?;
        peer.call("DEL", pod)?;
    }
    Ok(())
}

/// Says now and then how far it is.
pub(super) fn progress(what: &str, round: usize, rounds: usize, every: usize) {
    if round.is_multiple_of(every) || round == rounds {
        eprintln!("{what}: {round} of {rounds} rounds");
    }
}
