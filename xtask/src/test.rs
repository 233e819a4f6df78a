//! `test`: everything but fmt and clippy.

use std::{process::Command, time::Instant};

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;

use crate::{
    command,
    debian::{self, Tool},
    kernels,
    lab::{
        Programs,
        kubernetes::{Component, binaries},
    },
    traps,
};

/// Arguments of `test`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Run only what needs no root: the unit and property tests without namespaces, packets or pods
    #[arg(long)]
    unprivileged: bool,
    /// Passed on to `cargo test`, such as the name of a test
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// What is a test of its own.
#[derive(clap::Subcommand)]
enum Part {
    /// The fast path beside kube-proxy's rules: every kind of service, traffic and event, as a table
    Traps(traps::Arguments),
    /// The eBPF programs and the trap table under Debian's other kernels, in qemu
    Kernels(kernels::Smoke),
}

/// Programs that tests execute.
const TOOLS: [Tool; 15] = [
    tool("ip", "iproute2", "tests break a pod's wiring with it"),
    tool("nft", "nftables", "tests translate and drop with it"),
    tool("iptables", "iptables", "a test drops with it what conntrack finds invalid"),
    tool("conntrack", "conntrack", "tests look at connection states with it"),
    tool("bpftool", "bpftool", "a test inspects pinned maps with it"),
    tool("ping", "iputils-ping", "a test sends ICMP with it"),
    tool("ethtool", "ethtool", "a test switches offloads of the uplink with it"),
    tool("strace", "strace", "a test holds the plugin up with it"),
    tool("sysctl", "procps", "a test changes a kernel setting with it"),
    tool("/usr/lib/cni/portmap", "containernetworking-plugins", "tests chain these plugins behind minicni"),
    tool("podman", "podman", "tests attach its containers"),
    tool("ctr", "containerd", "tests attach its containers"),
    tool("runc", "runc", "starts the containers of podman and containerd"),
    tool("busybox", "busybox-static", "runs in the containers of tests"),
    tool("unshare", "util-linux", "gives the runtimes of tests mounts and processes of their own"),
];

const fn tool(program: &'static str, package: &'static str, purpose: &'static str) -> Tool {
    Tool { program, package, purpose }
}

/// Test modules that need root, by the beginning of their names.
const PRIVILEGED: [&str; 3] = ["link::", "daemon::tests::", "daemon::firewall::table::"];

/// Builds and runs the tests.
pub fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let cargo = || {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(command::root());
        cargo
    };
    match &arguments.part {
        Some(Part::Traps(arguments)) => {
            let programs = if let Some(dir) = &arguments.programs {
                // They are executed in other directories.
                Programs::in_dir(&dir.canonicalize().with_context(|| format!("look at {}", dir.display()))?)
            } else {
                // Nothing but the table is to be on stdout.
                let stderr = std::process::Stdio::from(std::io::stderr());
                command::run(cargo().args(["build", "--workspace", "--bins"]).stdout(stderr))?;
                Programs::beside_us()?
            };
            return traps::run(arguments, &programs);
        }
        Some(Part::Kernels(arguments)) => {
            // Guests have the files of this machine, and no network by which to fetch others.
            debian::need(&TOOLS)?;
            traps::need_tools(true)?;
            return kernels::smoke(arguments);
        }
        None => {}
    }
    if arguments.unprivileged {
        eprintln!(
            "NOT RUN: the datapath under BPF_PROG_TEST_RUN, namespaces, the plugin and the daemon with real traffic; \
             they need root"
        );
        let skips = PRIVILEGED.iter().flat_map(|name| ["--skip", name]);
        return command::run(cargo().args(["test", "--workspace", "--lib", "--"]).args(skips).args(&arguments.rest));
    }
    if !geteuid().is_root() {
        bail!(
            "the tests make network namespaces and load eBPF programs, and so need root: sudo -E cargo xtask test\n\
             What runs without: cargo xtask test --unprivileged"
        );
    }
    debian::need(&TOOLS)?;
    // A test would build it silently.
    binaries::need(&Component::OF_API_SERVER)?;
    // The tests execute both programs.
    command::run(cargo().args(["build", "--workspace", "--bins"]))?;
    command::run(cargo().args(["test", "--workspace"]).args(&arguments.rest))?;
    eprintln!("all tests passed in {:.0?}", start.elapsed());
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        test: Arguments,
    }

    fn parse(line: &str) -> Arguments {
        CommandLine::parse_from(line.split(' ')).test
    }

    #[test]
    fn what_is_no_part_is_passed_on_to_cargo() {
        for line in ["test a_name", "test --package xtask --test fast_path", "test"] {
            let arguments = parse(line);
            assert!(arguments.part.is_none(), "{line}");
            assert_eq!(arguments.rest, line.split(' ').skip(1).collect::<Vec<_>>());
        }
        let arguments = parse("test --unprivileged a_name");
        assert!(arguments.unprivileged && arguments.rest == ["a_name"]);
    }

    #[test]
    fn traps_are_a_part() {
        assert!(matches!(parse("test traps --quick --only udp").part, Some(Part::Traps(_))));
    }
}
