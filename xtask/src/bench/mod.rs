//! `bench`: minicni beside what people run today, measured interleaved in one run.

mod add;
mod all;
mod brief;
mod churn;
mod datapath;
mod documents;
mod environment;
mod html;
mod judged;
mod kind;
mod output;
mod part;
mod plot;
mod plugins;
mod scale;
mod services;
mod sizes;
mod statistics;

use anyhow::Result;

/// Arguments of `bench`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// The time that the plugin takes to add and delete a pod, beside `bridge` and `ptp` with `host-local`
    Add(add::Arguments),
    /// Many pods that come and go at once, with 0, 100 and 500 others present, beside the same
    Churn(churn::Arguments),
    /// Round trips, streams, connections and CPU time of the datapath, beside what people run and what the kernel can at best
    Datapath(datapath::Arguments),
    /// Round trips and connections on a node with up to 5,000 of kube-proxy's services
    Services(services::Arguments),
    /// The daemon beside an API server with 5,000 nodes: start, events, memory, CPU time, and the API server's absence
    Scale(scale::Arguments),
    /// Pods of a real cluster, kind's where it is there: on one node and on two, direct and by a Service, beside other networks
    Kind(kind::Arguments),
    /// All of it and the sizes of what is shipped, with one table of verdicts and a page to look at: an hour, or ten minutes
    /// with `--quick`
    All(all::Arguments),
}

/// Measures and shows.
pub fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.what {
        What::Add(arguments) => add::run(arguments),
        What::Churn(arguments) => churn::run(arguments),
        What::Datapath(arguments) => datapath::run(arguments),
        What::Services(arguments) => services::run(arguments),
        What::Scale(arguments) => scale::run(arguments),
        What::Kind(arguments) => kind::run(arguments),
        What::All(arguments) => all::run(arguments),
    }
}
