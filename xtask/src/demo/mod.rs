//! `demo`: two nodes, two pods on each, and who reaches whom how.

mod matrix;
mod table;

use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::{
    build,
    debian::{self, Tool},
    lab::{self, Lab},
};

/// The name of the demo's lab.
const LAB: &str = "minicni-demo";

/// Arguments of `demo`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Leave nodes, pods and daemons there to look at
    #[arg(long)]
    keep: bool,
    /// Only remove what an earlier `demo --keep` left
    #[arg(long, conflicts_with_all = ["keep", "json"])]
    clean: bool,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

/// Builds, sets up, measures, shows, and removes everything again.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.clean {
        return lab::clean(LAB);
    }
    lab::need_root()?;
    let start = Instant::now();
    let step = |text: &str| eprintln!("[{:>5.1} s] {text}", start.elapsed().as_secs_f64());
    step("building minicni and minicnid");
    let programs = build::portable()?;
    // Without it everything else is shown, and the rows say what is missing.
    let nft = debian::need(&[Tool {
        program: "nft",
        package: "nftables",
        purpose: "the ClusterIP rows translate addresses with it",
    }]);

    step("making two nodes and a wire between them");
    let mut lab = Lab::new(LAB, 2, programs)?;
    step("starting a daemon on each");
    lab.start_daemons()?;
    step("adding two pods to each, by executing the plugin as a runtime does");
    let pods = matrix::add_pods(&lab)?;
    step("sending traffic");
    let rows = matrix::measure(&lab, &pods, nft.err().map(|error| error.to_string()).as_deref())?;
    step("done");

    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        println!("\n{}\n", table::render(&rows));
    }
    if arguments.keep {
        lab.keep();
        println!("{}", table::invitation(&lab, &pods)?);
    } else {
        // Removed before the verdict, so that an error on the way out is seen.
        drop(pods);
        drop(lab);
        lab::clean(LAB).context("remove the demo")?;
    }
    let failed = rows.iter().filter(|row| !row.as_promised()).count();
    if failed > 0 {
        bail!("{failed} of {} rows are not as promised", rows.len());
    }
    Ok(())
}
