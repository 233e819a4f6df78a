//! ADD and DEL by the clock, from exec to exit, each plugin in turn.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use minicni::link::Netns;
use serde::Serialize;
use serde_json::{Value, json};

use super::statistics::Summary;
use crate::{
    build, debian,
    lab::{self, Lab, Node, directory},
};

const LAB: &str = "minicni-bench";
/// Where Debian's containernetworking-plugins are.
const PEERS: &str = "/usr/lib/cni";

/// Arguments of `bench add`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Pods per plugin
    #[arg(long, default_value_t = 200)]
    rounds: usize,
    /// Pods of each plugin that are there all the time
    #[arg(long, default_value_t = 0)]
    present: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A plugin and its configuration.
struct Peer {
    name: &'static str,
    program: PathBuf,
    config: Value,
}

/// Milliseconds from exec to exit.
#[derive(Debug, Serialize)]
struct Report {
    rounds: usize,
    present: usize,
    kernel: String,
    minicni_add: Summary,
    minicni_del: Summary,
    bridge_add: Summary,
    bridge_del: Summary,
    /// VERSION: the process starts, answers, and does nothing.
    minicni_start: Summary,
    add_ratio: Summary,
    del_ratio: Summary,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    lab::need_root()?;
    let programs = build::release()?;
    if !Path::new(PEERS).join("bridge").exists() {
        debian::install(
            &["containernetworking-plugins"],
            "bridge and host-local are what minicni is measured against",
        )?;
    }
    let mut lab = Lab::new(LAB, 1, programs.clone())?;
    lab.start_daemons()?;
    let node = &lab.nodes[0];
    let peers = [minicni(node, &programs.minicni), bridge()];
    let report = node.netns.run(|| measure(arguments, &peers))??;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}", render(&report));
    }
    Ok(())
}

fn minicni(node: &Node, program: &Path) -> Peer {
    let config = json!({
        "cniVersion": "1.0.0", "name": "bench", "type": "minicni", "subnet": "10.200.0.0/16",
        "stateDir": node.state_dir(), "bpfDir": node.bpf_dir(),
    });
    Peer { name: "minicni", program: program.to_owned(), config }
}

fn bridge() -> Peer {
    let config = json!({
        "cniVersion": "1.0.0", "name": "bench", "type": "bridge", "bridge": "cni0", "isGateway": true,
        "ipam": {
            "type": "host-local", "ranges": [[{"subnet": "10.201.0.0/16"}]], "dataDir": directory(LAB).join("host-local"),
        },
    });
    Peer { name: "bridge", program: Path::new(PEERS).join("bridge"), config }
}

/// Runs inside the node's namespace, which the plugins inherit.
fn measure(arguments: &Arguments, peers: &[Peer; 2]) -> Result<Report> {
    let sandbox = directory(LAB).join("sandboxes");
    fs::create_dir_all(&sandbox)?;
    for number in 0..arguments.present {
        for peer in peers {
            let id = format!("present-{}-{number}", peer.name);
            let netns = sandbox.join(&id);
            Netns::create_named(&netns)?;
            peer.call("ADD", &id, &netns)?;
        }
    }
    let (mut adds, mut dels, mut starts) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()], Vec::new());
    let netns = sandbox.join("round");
    Netns::create_named(&netns)?;
    for round in 0..arguments.rounds {
        // In turn, and who begins changes.
        for turn in 0..2 {
            let index = (round + turn) % 2;
            let (peer, id) = (&peers[index], format!("round-{round}"));
            adds[index].push(peer.call("ADD", &id, &netns)?);
            dels[index].push(peer.call("DEL", &id, &netns)?);
        }
        starts.push(peers[0].call("VERSION", "", &netns)?);
        if (round + 1) % 50 == 0 {
            eprintln!("{} of {} rounds", round + 1, arguments.rounds);
        }
    }
    for entry in fs::read_dir(&sandbox)? {
        Netns::delete_named(&entry?.path())?;
    }
    let ratios = |times: &[Vec<f64>; 2]| times[0].iter().zip(&times[1]).map(|(ours, theirs)| ours / theirs).collect();
    let (add_ratio, del_ratio) = (Summary::of(ratios(&adds)), Summary::of(ratios(&dels)));
    let [minicni_add, bridge_add] = adds.map(Summary::of);
    let [minicni_del, bridge_del] = dels.map(Summary::of);
    Ok(Report {
        rounds: arguments.rounds,
        present: arguments.present,
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        minicni_add,
        minicni_del,
        bridge_add,
        bridge_del,
        minicni_start: Summary::of(starts),
        add_ratio,
        del_ratio,
    })
}

impl Peer {
    /// Executes the plugin as a runtime does; milliseconds from exec to exit.
    fn call(&self, command: &str, id: &str, netns: &Path) -> Result<f64> {
        let start = Instant::now();
        let mut child = Command::new(&self.program)
            .current_dir("/")
            .env_clear()
            .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", id), ("CNI_IFNAME", "eth0"), ("CNI_PATH", PEERS)])
            .env("CNI_NETNS", netns)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("execute {}", self.program.display()))?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        stdin.write_all(self.config.to_string().as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        let time = start.elapsed();
        if !output.status.success() {
            bail!("{command} of {}: {}", self.name, String::from_utf8_lossy(&output.stdout));
        }
        Ok(milliseconds(time))
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn render(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["milliseconds", "median", "quartiles", "p99"]);
    let rows = [
        ("minicni ADD", &report.minicni_add),
        ("bridge + host-local ADD", &report.bridge_add),
        ("minicni DEL", &report.minicni_del),
        ("bridge + host-local DEL", &report.bridge_del),
        ("minicni VERSION (process start)", &report.minicni_start),
    ];
    for (name, summary) in rows {
        table.add_row([
            name.to_owned(),
            format!("{:.2}", summary.median),
            format!("{:.2} .. {:.2}", summary.lower_quartile, summary.upper_quartile),
            format!("{:.2}", summary.p99),
        ]);
    }
    let ratio = |name, summary: &Summary| {
        format!(
            "{name}: {:.3} of bridge's time (median of per-round ratios, quartiles {:.3} .. {:.3})",
            summary.median, summary.lower_quartile, summary.upper_quartile
        )
    };
    format!(
        "{table}\n{}\n{}\n{} rounds in turn, {} pods of each present, kernel {}",
        ratio("ADD", &report.add_ratio),
        ratio("DEL", &report.del_ratio),
        report.rounds,
        report.present,
        report.kernel
    )
}
