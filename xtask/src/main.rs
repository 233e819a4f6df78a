//! The command line of [`xtask`]: `cargo xtask --help`.

use clap::{Parser, Subcommand};
use xtask::{demo, ebpf};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, shows, tests and measures minicni")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the main job on two simulated nodes: pods get addresses and talk over the fast path
    Demo(demo::Arguments),
    /// Builds the eBPF object that user space embeds, the same bytes wherever it is built
    BuildEbpf(ebpf::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::BuildEbpf(arguments) => ebpf::run(&arguments),
    }
}
