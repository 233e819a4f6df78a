//! ADD, DEL and the others by the clock, from exec to exit, beside `bridge` with `host-local`.

mod controls;
mod memory;
mod parallel;
mod peers;
mod plan;
mod present;
mod report;
mod sequence;
mod table;

use std::{fs, path::PathBuf, time::Instant};

use anyhow::Result;

use self::{
    controls::Controls,
    memory::InMemory,
    peers::{PEERS, host_local_dir, minicni},
    plan::Plan,
};
use crate::{
    bench::{
        environment::{Environment, load},
        output::{self, STDOUT},
    },
    build, debian,
    lab::{self, Lab, directory},
};

/// The name of everything that a run makes.
const LAB: &str = "minicni-bench";

/// Arguments of `bench add`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Few rounds, in half a minute: whether it all works and about how fast, not figures to quote
    #[arg(long)]
    quick: bool,
    /// Rounds of what is measured one pod after another, instead of 200
    #[arg(long)]
    rounds: Option<usize>,
    /// Repeats the order of an earlier run
    #[arg(long)]
    seed: Option<u64>,
    /// Write JSON to a file, or print it
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = STDOUT, conflicts_with = "markdown")]
    json: Option<PathBuf>,
    /// Print the document that is kept in docs/bench-add.md
    #[arg(long)]
    markdown: bool,
    /// Show the JSON of an earlier run instead of measuring
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

pub(super) use self::{
    report::Report,
    table::{document, judge, svg},
};

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let report = match &arguments.from {
        Some(file) => output::read(file)?,
        None => measure(&Plan::new(arguments.quick, arguments.rounds, arguments.seed))?,
    };
    if let Some(file) = &arguments.json {
        output::json(&report, file)?;
    } else if arguments.markdown {
        print!("{}", document(&report));
    } else {
        println!("{}", table::render(&report));
    }
    Ok(())
}

/// A run with nothing but its length chosen.
pub(super) fn measured(quick: bool) -> Result<Report> {
    measure(&Plan::new(quick, None, None))
}

fn measure(plan: &Plan) -> Result<Report> {
    lab::need_root()?;
    let programs = build::release()?;
    if !PEERS.iter().all(|file| fs::exists(file).unwrap_or(false)) {
        debian::install(
            &["containernetworking-plugins"],
            "bridge and host-local are what minicni is measured against",
        )?;
    }
    let start = Instant::now();
    let load_before = load()?;
    let in_memory = ["node1/state", "node2/state"].map(|dir| directory(LAB).join(dir));
    let in_memory = [&in_memory[..], &[host_local_dir()]].concat();
    InMemory::remove_left(&in_memory);
    let mut lab = Lab::new(LAB, 2, programs.clone())?;
    let _in_memory = InMemory::new(&in_memory)?;
    lab.start_daemons()?;
    let [node, crowded] = lab.nodes.as_slice() else { anyhow::bail!("the lab has not two nodes") };
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
    let (parallel, churn) = node.netns.run(|| -> Result<_> {
        let parallel = parallel::run(plan, node, &programs.minicni, &mut rng, &mut controls)?;
        Ok((parallel, parallel::churn(plan, node, &programs.minicni, &mut rng, &mut controls)?))
    })??;
    Ok(Report {
        environment: Environment::found(load_before, start.elapsed())?,
        plan: *plan,
        controls: controls.summary(),
        sequence,
        dual_stack,
        present,
        parallel,
        churn,
        plugin_bytes: fs::metadata(&programs.minicni)?.len(),
    })
}
