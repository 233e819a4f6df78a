//! The command line of `minicnid`: the daemon itself, and what an operator asks a node.

mod daemon;
mod endpoints;
mod install;
mod ipam;
mod status;
mod uninstall;
mod uplinks;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use comfy_table::{Table, presets::NOTHING};

use crate::{
    datapath::Pins,
    node::{DEFAULT_BPF_DIR, DEFAULT_STATE_DIR, StateDir},
};

/// The node daemon of minicni, and the operator's view of a node.
#[derive(Debug, Parser)]
#[command(name = "minicnid", version, about, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node daemon: load the datapath, keep a route to every other node
    // By far the largest.
    Run(Box<daemon::Run>),
    /// Show the node: endpoints, routes, the share of the fast path, and what is wrong
    Status(status::Status),
    /// Look at the leases of pods, and release what was left behind
    Ipam(ipam::Ipam),
    /// Take minicni off this node: configuration, routes, programs, state, plugin
    Uninstall(uninstall::Uninstall),
}

/// Where a node keeps its state; the same in every subcommand and in the network configuration.
#[derive(Args, Clone, Debug)]
struct Directories {
    /// Directory of the leases and of node.json
    #[arg(long, env = "MINICNI_STATE_DIR", value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    state_dir: PathBuf,
    /// Directory of the pinned programs and maps, on a bpf file system
    #[arg(long, env = "MINICNI_BPF_DIR", value_name = "DIR", default_value = DEFAULT_BPF_DIR)]
    bpf_dir: PathBuf,
}

impl Directories {
    fn state(&self) -> StateDir {
        StateDir::new(&self.state_dir)
    }

    fn pins(&self) -> Pins {
        Pins::new(&self.bpf_dir)
    }
}

/// Does what the command line asks for.
pub fn run(arguments: Arguments) -> ExitCode {
    match arguments.command {
        Command::Run(run) => daemon::run(*run),
        Command::Status(status) => status::run(&status),
        Command::Ipam(ipam) => ipam::run(&ipam),
        Command::Uninstall(uninstall) => uninstall::run(&uninstall),
    }
}

/// Rows below a header, in columns.
fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().map(|word| word.to_uppercase())).add_rows(rows);
    table.lines().map(|line| format!("  {}", line.trim_end())).collect::<Vec<_>>().join("\n")
}
