//! What the datapath carries and costs, beside what people run and beside what the kernel can at best.

mod arrivals;
mod bpf;
pub(super) mod connections;
mod control;
mod cpu_time;
mod pace;
pub(super) mod path;
mod peers;
mod plan;
mod plot;
mod price;
mod program;
mod report;
pub(super) mod request_response;
mod rules;
pub(super) mod run;
pub(super) mod scene;
mod stream;
mod table;
mod target;
pub(super) mod task;
mod topology;
mod workload;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use self::{peers::BRIDGE, plan::Plan};
pub(super) use self::{
    plot::{others, svg},
    report::Report,
    table::{counted, document},
    target::judge_all,
};
use crate::{
    bench::{all::All, output::Options},
    build,
    debian::{self, Tool},
    kernels,
    lab::{self, Programs},
};

/// Arguments of `bench datapath`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Repeats the order of an earlier run
    #[arg(long)]
    seed: Option<u64>,
    /// Measure the programs in this directory instead of building them
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// Measure under this kernel of Debian's, in qemu, where an instruction takes a nanosecond; what takes two CPUs is left out
    #[arg(long, value_enum, conflicts_with = "programs")]
    kernel: Option<kernels::Release>,
}

/// Programs that make the peers.
const TOOLS: [Tool; 4] = [
    tool("ip", "iproute2", "peers of the benchmark are wired with it"),
    tool("iptables-restore", "iptables", "nodes of the benchmark have rules like kube-proxy's"),
    tool("nft", "nftables", "a node of the benchmark has a flowtable"),
    tool(BRIDGE, "containernetworking-plugins", "bridge is what minicni is measured against"),
];

const fn tool(program: &'static str, package: &'static str, purpose: &'static str) -> Tool {
    Tool { program, package, purpose }
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let options = &arguments.options;
    let report = match (options.kept()?, arguments.kernel) {
        (Some(report), _) => report,
        (None, Some(kernel)) => in_guest(kernel, options.quick)?,
        (None, None) => measured(options.quick, arguments.seed, arguments.programs.as_deref())?,
    };
    options.show(&report, table::render, document, |report| All { datapath: Some(report), ..All::default() })
}

/// A run in a guest, of what is built for it here.
fn in_guest(kernel: kernels::Release, quick: bool) -> Result<Report> {
    let programs = build::portable()?;
    debian::need(&TOOLS)?;
    let directory = programs.minicni.parent().context("the programs are in a directory")?;
    let mut words = vec![std::env::current_exe()?.into_os_string()];
    words.extend(["bench", "datapath", "--json", "--programs"].map(OsString::from));
    words.push(directory.into());
    words.extend(quick.then(|| "--quick".into()));
    eprintln!("measuring in a guest, which takes minutes");
    let output = kernels::counted(kernel, &words)?;
    // Progress comes before it.
    let report = output.find("\n{\n").map_or(&output[..], |start| &output[start..]);
    serde_json::from_str(report).with_context(|| format!("the guest printed no report: {output}"))
}

/// A run of these programs, or of what is built for it.
pub(super) fn measured(quick: bool, seed: Option<u64>, programs: Option<&Path>) -> Result<Report> {
    lab::need_root()?;
    let programs = programs.map_or_else(build::portable, |dir| Ok(Programs::in_dir(&dir.canonicalize()?)))?;
    debian::need(&TOOLS)?;
    run::measure(&Plan::new(quick, seed), &programs)
}
