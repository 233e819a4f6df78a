//! `test traps`: the fast path beside everything that translates addresses, with real traffic, as a table.
//!
//! docs/traps.md says what the table says.

mod bed;
mod closing;
mod conversation;
mod expect;
mod gauges;
mod icmp;
mod matrix;
mod outcome;
mod phases;
mod policy;
mod report;
mod server;
mod services;

use std::{
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use self::{
    matrix::{Rules, Setting},
    outcome::{Outcome, Verdict},
    report::Report,
};
use crate::{
    debian::{self, Tool},
    lab::{self, Programs},
};

/// Arguments of `test traps`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Every kind of service and every set of rules once, before and after promotion, closing, and beside a policy
    #[arg(long)]
    quick: bool,
    /// Only cells whose name contains each word of this, such as "nftables/ipv6 itself"; may be given more than once
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Print all cells as JSON
    #[arg(long)]
    json: bool,
    /// Test the programs in this directory instead of building them
    #[arg(long, value_name = "DIR")]
    pub(crate) programs: Option<PathBuf>,
}

const TOOLS: [Tool; 6] = [
    Tool { program: "ip", package: "iproute2", purpose: "the lab's network is made with it" },
    Tool { program: "iptables-legacy-restore", package: "iptables", purpose: "two sets of rules are loaded with it" },
    Tool { program: "iptables-nft-restore", package: "iptables", purpose: "two sets of rules are loaded with it" },
    Tool { program: "nft", package: "nftables", purpose: "one set of rules is loaded with it" },
    Tool { program: "conntrack", package: "conntrack", purpose: "it is asked what it knows of each flow" },
    Tool { program: "unshare", package: "util-linux", purpose: "it gives daemons read-only settings" },
];

/// What is needed only where the kernel has IPVS.
const IPVS_TOOLS: [Tool; 2] = [
    Tool { program: "ipvsadm", package: "ipvsadm", purpose: "virtual servers are made with it" },
    Tool { program: "ipset", package: "ipset", purpose: "one set of rules asks its sets" },
];

/// Installs what is missing of the programs that the table is made with.
pub(crate) fn need_tools(with_ipvs: bool) -> Result<()> {
    debian::need(&TOOLS)?;
    if with_ipvs {
        debian::need(&IPVS_TOOLS)?;
    }
    Ok(())
}

/// Looks at every cell, shows what came of it, and fails if one is not as promised.
pub(crate) fn run(arguments: &Arguments, programs: &Programs) -> Result<()> {
    lab::need_root()?;
    need_tools(missing(Rules::Ipvs).is_none())?;
    let _alone = alone()?;
    let start = Instant::now();
    let step = |text: &str| eprintln!("[{:>5.1} s] {text}", start.elapsed().as_secs_f64());
    let asked_for = |name: &str| {
        let mut patterns = arguments.only.iter();
        arguments.only.is_empty() || patterns.any(|only| only.split_whitespace().all(|word| name.contains(word)))
    };
    let mut left_out = 0;
    let mut outcomes: Vec<Outcome> = Vec::new();
    for setting in Setting::all(arguments.quick) {
        let mut cells = setting.cells(arguments.quick);
        let all = cells.len();
        cells.retain(|cell| asked_for(&cell.to_string()));
        left_out += all - cells.len();
        if cells.is_empty() {
            continue;
        }
        if let Some(reason) = missing(setting.rules) {
            step(&format!("{setting}: NOT RUN: {reason}"));
            let verdict = Verdict::NotRun { reason: reason.to_owned() };
            outcomes.extend(cells.into_iter().map(|cell| Outcome { cell, verdict: verdict.clone(), milliseconds: 0 }));
            continue;
        }
        let of_setting = phases::run(setting, &cells, programs, step);
        for failed in of_setting.iter().filter(|outcome| matches!(outcome.verdict, Verdict::Failed { .. })) {
            step(&format!("{}: FAILED", failed.cell));
        }
        outcomes.extend(of_setting);
    }
    lab::clean(bed::LAB).context("remove the lab")?;
    if outcomes.is_empty() {
        bail!("no cell has a name with {}", arguments.only.join(", nor with "));
    }
    let report = Report::new(outcomes, left_out, start.elapsed());
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", report::render(&report));
    }
    if report.summary.failed > 0 {
        bail!("{} of {} cells failed", report.summary.failed, report.cells.len());
    }
    Ok(())
}

/// Keeps a second run away, which would take the first one's lab for that of a run that was killed. The kernel frees an
/// abstract address with its process.
fn alone() -> Result<UnixListener> {
    let address = SocketAddr::from_abstract_name(bed::LAB)?;
    UnixListener::bind_addr(&address).context("another run of the traps is at work; wait for its end")
}

/// What the kernel has not, of what a set of rules needs.
fn missing(rules: Rules) -> Option<&'static str> {
    (rules == Rules::Ipvs && !Path::new("/proc/net/ip_vs").exists())
        .then_some("this kernel has no IPVS, or ip_vs is not loaded")
}
