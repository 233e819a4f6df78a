//! The rounds.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::{
    at_once::{at_once, while_deleted},
    first_packet,
    plan::Plan,
    report::{Report, Series},
};
use crate::{
    bench::{
        environment::{Environment, load},
        plugins::{
            Bed,
            controls::Controls,
            peers::{Peer, Pod, beside, minicni, pods},
            prepare, progress, warm_up,
        },
        statistics::{Compared, Summary},
    },
    lab::Node,
};

/// One plugin's figures, by round.
#[derive(Debug, Default)]
struct Times {
    add_wall: Vec<f64>,
    add_p99: Vec<f64>,
    del_wall: Vec<f64>,
    del_p99: Vec<f64>,
    add_while_deleted: Vec<f64>,
}

/// A plugin on a node of its own, with pods that come and go, and those that stay.
struct Side<'a> {
    node: &'a Node,
    peer: Peer,
    many: Vec<Pod>,
    old: Vec<Pod>,
    new: Vec<Pod>,
    present: usize,
}

pub(super) fn measure(plan: &Plan) -> Result<Report> {
    let programs = prepare()?;
    let start = Instant::now();
    let load_before = load()?;
    let others = beside("churn");
    let bed = Bed::new(u8::try_from(1 + others.len())?, programs.clone())?;
    let Some((first, nodes)) = bed.lab.nodes.split_first() else { bail!("the lab has no node") };
    // The others' nodes have no daemon, as without minicni.
    first.start_daemon(&bed.lab.nodes_file())?;
    let mut sides = vec![Side::new(first, minicni(first, &programs.minicni, "churn"), plan)?];
    for (node, peer) in nodes.iter().zip(others) {
        sides.push(Side::new(node, peer, plan)?);
    }
    eprintln!("seed {}", plan.seed);
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut controls = Controls::default();
    let control_pod = pods("control", 1)?;
    let mut series = Vec::new();
    for &present in &plan.present {
        for side in &mut sides {
            side.fill(present)?;
        }
        let mut times: Vec<_> = sides.iter().map(|_| Times::default()).collect();
        let mut order: Vec<_> = (0..sides.len()).collect();
        for round in 1..=plan.rounds {
            rng.shuffle(&mut order);
            for &index in &order {
                sides[index].round(&mut times[index])?;
                first.netns.run(|| controls.veth(&control_pod[0].path))??;
            }
            (0..5).try_for_each(|_| controls.process())?;
            progress(&format!("{present} pods present"), round, plan.rounds, 1);
        }
        let Some((ours, others)) = times.split_first() else { bail!("nothing was measured") };
        series.extend(others.iter().zip(&sides[1..]).map(|(theirs, side)| Series {
            present,
            beside: side.peer.name.to_owned(),
            add_wall: Compared::of(&ours.add_wall, &theirs.add_wall),
            add_p99: Compared::of(&ours.add_p99, &theirs.add_p99),
            del_wall: Compared::of(&ours.del_wall, &theirs.del_wall),
            del_p99: Compared::of(&ours.del_p99, &theirs.del_p99),
            add_while_deleted: Compared::of(&ours.add_while_deleted, &theirs.add_while_deleted),
        }));
    }
    eprintln!("first packets");
    let first_packets = first.netns.run(|| first_packet::run(&sides[0].peer, plan.first_packets))??;
    Ok(Report {
        environment: Environment::found(load_before, start.elapsed())?,
        plan: plan.clone(),
        controls: controls.summary(),
        series,
        first_packets,
    })
}

impl<'a> Side<'a> {
    fn new(node: &'a Node, peer: Peer, plan: &Plan) -> Result<Self> {
        let pods = |name: &str, count| pods(&format!("{name}-{}", node.number), count);
        let (mut many, old) = (pods("many", plan.at_once)?, pods("old", plan.deleted)?);
        let new = pods("new", 2 * plan.deleted)?;
        node.netns.run(|| warm_up([&peer], &mut many[0]))??;
        Ok(Self { node, peer, many, old, new, present: 0 })
    }

    /// Adds pods that stay, until there are so many of them.
    fn fill(&mut self, present: usize) -> Result<()> {
        let mut more = pods(&format!("stays-{}-{present}", self.node.number), present - self.present)?;
        let Self { node, peer, .. } = self;
        node.netns.run(|| more.iter_mut().try_for_each(|pod| peer.call("ADD", pod).map(drop)))??;
        self.present = present;
        Ok(())
    }

    /// Everything once.
    fn round(&mut self, times: &mut Times) -> Result<()> {
        let Self { node, peer, many, old, new, .. } = self;
        let what = || format!("{} at once", peer.name);
        node.netns.run(|| -> Result<()> {
            let (wall, calls) = at_once(many, |pod| peer.call("ADD", pod)).with_context(what)?;
            times.add_wall.push(wall);
            times.add_p99.push(Summary::of(&calls).p99);
            let (wall, calls) = at_once(many, |pod| peer.call("DEL", pod)).with_context(what)?;
            times.del_wall.push(wall);
            times.del_p99.push(Summary::of(&calls).p99);
            old.iter_mut().try_for_each(|pod| peer.call("ADD", pod).map(drop))?;
            let adds = while_deleted(peer, old, new)?;
            times.add_while_deleted.push(Summary::of(&adds).p99);
            new.iter_mut().take(adds.len()).try_for_each(|pod| peer.call("DEL", pod).map(drop))
        })?
    }
}
