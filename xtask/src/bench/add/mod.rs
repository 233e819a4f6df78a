//! ADD, DEL and the others by the clock, from exec to exit, beside `bridge` and `ptp` with `host-local`.

mod plan;
mod present;
mod report;
mod sequence;
mod table;

use std::time::Instant;

use anyhow::{Result, bail};

use self::plan::Plan;
pub(super) use self::{
    report::Report,
    table::{document, judge, svg},
};
use super::{
    all::All,
    environment::{Environment, load},
    output::Options,
    plugins::{Bed, controls::Controls, peers::minicni, prepare},
};

/// Arguments of `bench add`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Rounds of what is measured one pod after another, instead of 200
    #[arg(long)]
    rounds: Option<usize>,
    /// Repeats the order of an earlier run
    #[arg(long)]
    seed: Option<u64>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.options;
    let report = match options.kept()? {
        Some(report) => report,
        None => measure(&Plan::new(options.quick, arguments.rounds, arguments.seed))?,
    };
    options.show(&report, table::render, document, |report| All { add: Some(report), ..All::default() })
}

/// A run with nothing but its length chosen.
pub(super) fn measured(quick: bool) -> Result<Report> {
    measure(&Plan::new(quick, None, None))
}

fn measure(plan: &Plan) -> Result<Report> {
    let programs = prepare()?;
    let start = Instant::now();
    let load_before = load()?;
    let mut bed = Bed::new(2, programs.clone())?;
    bed.lab.start_daemons()?;
    let [node, crowded] = bed.lab.nodes.as_slice() else { bail!("the lab has not two nodes") };
    eprintln!("seed {}", plan.seed);
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let mut controls = Controls::default();
    // What is executed inherits the namespace of the thread.
    let (sequence, dual_stack) = node.netns.run(|| -> Result<_> {
        let sequence = sequence::run(plan, node, &programs.minicni, &mut rng, &mut controls)?;
        Ok((sequence, sequence::dual_stack(plan, node, &programs.minicni, &mut rng, &mut controls)?))
    })??;
    let pods = |node| minicni(node, &programs.minicni, "present");
    let present = present::run(plan, &[(node, pods(node)), (crowded, pods(crowded))], &mut rng, &mut controls)?;
    Ok(Report {
        environment: Environment::found(load_before, start.elapsed())?,
        plan: *plan,
        controls: controls.summary(),
        sequence,
        dual_stack,
        present,
    })
}
