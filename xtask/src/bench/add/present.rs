//! A node with many pods beside one with none.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{plan::Plan, sequence::Times};
use crate::{
    bench::{
        plugins::{
            controls::Controls,
            peers::{Peer, pods},
            progress, warm_up,
        },
        statistics::Compared,
    },
    lab::Node,
};

/// Milliseconds of minicni with many pods present, and with none.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Present {
    pub(super) add: Compared,
    pub(super) check: Compared,
    pub(super) del: Compared,
    pub(super) status: Compared,
}

/// The second of the nodes is the one with many.
pub(super) fn run(
    plan: &Plan,
    nodes: &[(&Node, Peer); 2],
    rng: &mut fastrand::Rng,
    controls: &mut Controls,
) -> Result<Present> {
    let mut crowd = pods("present", plan.present)?;
    let [_, (crowded, peer)] = nodes;
    crowded.netns.run(|| crowd.iter_mut().try_for_each(|pod| peer.call("ADD", pod).map(drop)))??;
    eprintln!("{} pods are present", plan.present);
    let mut pods = pods("beside", 1)?;
    let pod = &mut pods[0];
    for (node, peer) in nodes {
        node.netns.run(|| warm_up([peer], pod))??;
    }
    let mut times = [Times::default(), Times::default()];
    let mut status = [Vec::new(), Vec::new()];
    let mut order = [0, 1];
    for round in 1..=plan.rounds {
        rng.shuffle(&mut order);
        for index in order {
            let (node, peer) = &nodes[index];
            node.netns.run(|| -> Result<()> {
                times[index].take(peer, pod)?;
                status[index].push(peer.ask("STATUS")?);
                Ok(())
            })??;
        }
        controls.process()?;
        progress("with pods present", round, plan.rounds, 50);
    }
    let [none, many] = times;
    Ok(Present {
        add: Compared::of(&many.add, &none.add),
        check: Compared::of(&many.check, &none.check),
        del: Compared::of(&many.del, &none.del),
        status: Compared::of(&status[1], &status[0]),
    })
}
