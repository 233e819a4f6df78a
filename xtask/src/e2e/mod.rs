//! `e2e`: a real Kubernetes on this machine, with minicni as its network, and what users of a network rely on.

mod bed;
mod daemons;
mod install;
mod lent;
mod pods;
mod report;
mod requests;
mod rows;

use std::{
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use self::{bed::Bed, daemons::Daemons, report::Report, rows::ROWS};
pub(crate) use self::{install::image, lent::Lent};
use crate::{
    debian::{self, Tool},
    lab::{self, kubernetes::cluster},
};

/// The name of the cluster.
const CLUSTER: &str = "minicni-e2e";

/// Arguments of `e2e`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only the rows whose names have one of these words
    #[arg(long, value_name = "WORDS")]
    only: Option<String>,
    /// How many nodes there are
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=9))]
    nodes: u8,
    /// Leave the cluster there to look at, and print how
    #[arg(long)]
    keep: bool,
    /// Only remove what an earlier `e2e --keep` left
    #[arg(long, conflicts_with_all = ["keep", "json", "only", "nodes"])]
    clean: bool,
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

/// What is executed beside Kubernetes itself.
const TOOLS: [Tool; 9] = [
    Tool { program: "ip", package: "iproute2", purpose: "nodes are wired with it" },
    Tool { program: "ctr", package: "containerd", purpose: "it runs the pods" },
    Tool { program: "runc", package: "runc", purpose: "containerd starts containers with it" },
    Tool { program: "iptables", package: "iptables", purpose: "kube-proxy and portmap translate with it" },
    Tool { program: "conntrack", package: "conntrack", purpose: "kube-proxy ends flows with it" },
    Tool { program: "mount", package: "mount", purpose: "kubelet gives pods their volumes with it" },
    Tool { program: "busybox", package: "busybox-static", purpose: "the image of the pods is made of it" },
    Tool { program: "nsenter", package: "util-linux", purpose: "nodes are namespaces" },
    Tool {
        program: "/usr/lib/cni/portmap",
        package: "containernetworking-plugins",
        purpose: "it gives pods their host ports",
    },
];

/// Starts the cluster, looks at every row, shows what came of it, and fails if one did.
pub fn run(arguments: &Arguments) -> Result<()> {
    lab::need_root()?;
    if arguments.clean {
        return cluster::clean(CLUSTER);
    }
    debian::need(&TOOLS)?;
    let _alone = alone()?;
    let start = Instant::now();
    let step = |text: &str| eprintln!("[{:>5.1} s] {text}", start.elapsed().as_secs_f64());
    let words: Vec<_> = arguments.only.iter().flat_map(|only| only.split_whitespace()).collect();
    let rows: Vec<_> =
        ROWS.iter().filter(|row| words.is_empty() || words.iter().any(|word| row.name.contains(word))).collect();
    if rows.is_empty() {
        bail!("no row has a name with {}", words.join(" or "));
    }
    let (mut bed, ready) = Bed::start(CLUSTER, arguments.nodes, arguments.keep, step)?;
    let daemons = Daemons::watch(CLUSTER);
    let mut outcomes = vec![ready];
    for row in rows {
        step(row.title);
        let outcome = row.run(&mut bed);
        if let Err(error) = &outcome.result {
            step(&format!("{}: FAILED: {error}", row.name));
        }
        outcomes.push(outcome);
    }
    let costs = daemons.finish()?;
    if !arguments.keep {
        step("removing the cluster");
        outcomes.push(rows::end::run(bed));
    }
    let report = Report::new(outcomes, costs, start.elapsed());
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report::render(&report));
    }
    if report.failed > 0 {
        bail!("{} of {} rows failed", report.failed, report.rows.len());
    }
    Ok(())
}

/// Keeps a second run away, which would take the first one's cluster for that of a run that was killed. The kernel frees an
/// abstract address with its process.
fn alone() -> Result<UnixListener> {
    let address = SocketAddr::from_abstract_name(CLUSTER)?;
    UnixListener::bind_addr(&address).context("another run of e2e is at work; wait for its end")
}
