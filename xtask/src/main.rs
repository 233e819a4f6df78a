//! The command line of [`xtask`]: `cargo xtask --help`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{bench, conformance, demo, e2e, ebpf, image, kernels, manifests, test};

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
    /// Runs the tests: units, packets through the programs, and real traffic between namespaces
    Test(test::Arguments),
    /// Measures minicni beside what people run today
    Bench(bench::Arguments),
    /// Judges a CNI plugin, minicni or any other, by the rules that runtimes rely on
    Conformance(conformance::Arguments),
    /// Runs a real Kubernetes on this machine with minicni as its network
    E2e(e2e::Arguments),
    /// Runs a command under another kernel, in qemu on this machine's files
    Kernel(kernels::Arguments),
    /// Builds the eBPF object that user space embeds, the same bytes wherever it is built
    BuildEbpf(ebpf::Arguments),
    /// Builds the container image, without a container runtime
    Image(image::Arguments),
    /// Writes deploy/minicni.yaml, which is made of deploy/base
    Manifests(manifests::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Conformance(arguments) => conformance::run(&arguments),
        Command::E2e(arguments) => e2e::run(&arguments),
        Command::Kernel(arguments) => kernels::run(&arguments),
        Command::BuildEbpf(arguments) => ebpf::run(&arguments),
        Command::Image(arguments) => image::run(&arguments),
        Command::Manifests(arguments) => manifests::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
