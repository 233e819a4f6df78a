//! One pod after another.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::{
    bench::{
        plugins::{
            controls::Controls,
            peers::{Peer, Pod, beside, bridge_dual_stack, minicni, minicni_dual_stack, pods, ptp_dual_stack},
            progress, warm_up,
        },
        statistics::{Compared, Summary},
    },
    lab::Node,
};

/// Milliseconds of minicni and of others.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Sequence {
    /// At least one; the first is what targets are about.
    pub(super) beside: Vec<Beside>,
    /// ADD of minicni beside ADD of minicni: what the method makes of one thing.
    pub(super) again: Compared,
    /// The others have no STATUS.
    pub(super) status: Summary,
    /// The process starts, answers, and does nothing.
    pub(super) version: Summary,
}

/// Milliseconds of minicni and of another plugin.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Beside {
    pub(super) name: String,
    pub(super) add: Compared,
    pub(super) check: Compared,
    pub(super) del: Compared,
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
    /// The life of a pod of minicni or of another, by its place in the list.
    Pod(usize),
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
    // minicni twice: nothing but the machine makes the one differ from the other.
    let mut peers = vec![minicni(node, program, "sequence"), minicni(node, program, "sequence")];
    peers.extend(beside("sequence"));
    let mut pods = pods("sequence", 1)?;
    let pod = &mut pods[0];
    warm_up(&peers, pod)?;
    let mut times: Vec<_> = peers.iter().map(|_| Times::default()).collect();
    let (mut status, mut version) = (Vec::new(), Vec::new());
    let others = [Step::Status, Step::Version, Step::Process, Step::Veth];
    let mut steps: Vec<_> = (0..peers.len()).map(Step::Pod).chain(others).collect();
    for round in 1..=plan.rounds {
        rng.shuffle(&mut steps);
        for step in &steps {
            match *step {
                Step::Pod(number) => times[number].take(&peers[number], pod)?,
                Step::Status => status.push(peers[0].ask("STATUS")?),
                Step::Version => version.push(peers[0].ask("VERSION")?),
                Step::Process => controls.process()?,
                Step::Veth => controls.veth(&pod.path)?,
            }
        }
        progress("one pod after another", round, plan.rounds, 50);
    }
    let (ours, others) = times.split_at(2);
    let beside = |(peer, theirs): (&Peer, &Times)| Beside {
        name: peer.name.to_owned(),
        add: Compared::of(&ours[0].add, &theirs.add),
        check: Compared::of(&ours[0].check, &theirs.check),
        del: Compared::of(&ours[0].del, &theirs.del),
    };
    Ok(Sequence {
        beside: peers[2..].iter().zip(others).map(beside).collect(),
        again: Compared::of(&ours[1].add, &ours[0].add),
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
    warm_up(peers, pod)?;
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
