//! `bench kind`: pods of a cluster, on one node and on two, direct and through a Service.

mod cluster;
mod images;
mod measure;
mod report;
mod table;

use std::path::PathBuf;

use anyhow::{Result, bail};

use self::{cluster::Cluster, report::Report};
use super::output::{self, STDOUT};

/// Arguments of `bench kind`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// What the cluster's network is called in the table. Without --manifest, `ptp` is that of deploy/bench/ptp.yaml, with its
    /// image; another name is kind's own, or what the cluster has
    #[arg(long, value_name = "NAME", default_value = MINICNI)]
    cni: String,
    /// The manifests of another network, in the order in which they are applied
    #[arg(long, value_name = "PATH", num_args = 1.., requires = "cni")]
    manifest: Vec<PathBuf>,
    /// Archives of the images that the manifests name, for nodes without a registry
    #[arg(long, value_name = "FILE", num_args = 1..)]
    image: Vec<PathBuf>,
    /// Measure in this cluster, which has its network and minicni-bench's image
    #[arg(long, value_name = "FILE", conflicts_with_all = ["manifest", "image"])]
    kubeconfig: Option<PathBuf>,
    /// Few and short rounds: whether it all works and about how fast, not figures to quote
    #[arg(long)]
    quick: bool,
    /// Write JSON to a file, or print it
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = STDOUT, group = "format")]
    json: Option<PathBuf>,
    /// Print the document that is kept in docs/bench-kind.md
    #[arg(long, group = "format")]
    markdown: bool,
    /// Print a plot: what there is in a second, direct on one node = 1
    #[arg(long, group = "format")]
    svg: bool,
    /// Write the archive of the pods' image, for a cluster of your own, and measure nothing
    #[arg(long, value_name = "FILE", group = "format")]
    pods_image: Option<PathBuf>,
    /// Write the archive of the image that deploy/bench/ptp.yaml names, and measure nothing
    #[arg(long, value_name = "FILE", group = "format")]
    ptp_image: Option<PathBuf>,
    /// Show the JSON of an earlier run instead of measuring
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Show these earlier runs, of other networks, in the same table
    #[arg(long, value_name = "FILE", num_args = 1..)]
    with: Vec<PathBuf>,
}

/// The network that is ours.
const MINICNI: &str = "minicni";
/// The plain one to compare with.
const PTP: &str = "ptp";

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    if let Some(file) = &arguments.pods_image {
        return images::write(file);
    }
    if let Some(file) = &arguments.ptp_image {
        return images::write_ptp(file);
    }
    let report = match &arguments.from {
        Some(file) => output::read(file)?,
        None => measured(arguments)?,
    };
    if let Some(file) = &arguments.json {
        return output::json(&report, file);
    }
    let mut reports = vec![report];
    for file in &arguments.with {
        reports.push(output::read::<Report>(file)?);
    }
    if arguments.markdown {
        print!("{}", table::document(&reports));
    } else if arguments.svg {
        print!("{}", table::svg(&reports)?);
    } else {
        println!("{}", table::render(&reports));
    }
    Ok(())
}

fn measured(arguments: &Arguments) -> Result<Report> {
    if arguments.cni == MINICNI && !arguments.manifest.is_empty() {
        bail!("--manifest is of another network: give its name with --cni");
    }
    let cluster = Cluster::reach(arguments)?;
    measure::measure(&cluster, &arguments.cni, arguments.quick)
}
