//! `test kernels`: the programs and the trap table under other kernels.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use super::{
    guest::{Clock, Guest},
    kernel::{Kernel, Release},
};
use crate::command;

/// Arguments of `test kernels`.
#[derive(clap::Args)]
pub struct Smoke {
    /// Only this kernel; may be given more than once
    #[arg(long, value_enum)]
    kernel: Vec<Release>,
    /// Of the trap table only cells whose name contains each word of this
    #[arg(long, value_name = "PATTERN", default_value = "ipv4")]
    only: String,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// A program runs some twenty times as long in an emulated guest.
const TIMEOUT: Duration = Duration::from_mins(30);
/// Random packets for each property of the datapath.
const CASES: &str = "PROPTEST_CASES=8";

/// What is run in a guest.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Part {
    /// Packets through the programs by `BPF_PROG_TEST_RUN`.
    Packets,
    /// The trap table.
    Traps,
}

/// What came of a part.
#[derive(Clone, Debug, Serialize)]
struct Row {
    /// As `uname -r` says it.
    kernel: String,
    part: Part,
    passed: bool,
    /// The last line of the output that counts what passed.
    summary: String,
    seconds: u64,
    /// All of the output.
    log: PathBuf,
}

struct Built {
    xtask: PathBuf,
    programs: PathBuf,
    packets: PathBuf,
}

/// Boots each kernel twice, and shows what came of it.
pub(crate) fn run(arguments: &Smoke) -> Result<()> {
    let built = build()?;
    let logs = command::root().join("target/kernels");
    fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
    let kernels = if arguments.kernel.is_empty() { Release::value_variants() } else { &arguments.kernel };
    let mut rows = Vec::new();
    for release in kernels {
        let kernel = release.prepare()?;
        for part in [Part::Packets, Part::Traps] {
            let name = format!("{release}-{}.log", name(part));
            eprintln!("{}: {}, minutes; see target/kernels/{name}", kernel.version, name_of(part));
            rows.push(row(part, &kernel, &built, &arguments.only, logs.join(name))?);
        }
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        println!("{}", table(&rows));
    }
    match rows.iter().filter(|row| !row.passed).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} failed", rows.len()),
    }
}

fn name(part: Part) -> &'static str {
    match part {
        Part::Packets => "packets",
        Part::Traps => "traps",
    }
}

fn name_of(part: Part) -> &'static str {
    match part {
        Part::Packets => "packets through the programs",
        Part::Traps => "the trap table",
    }
}

fn row(part: Part, kernel: &Kernel, built: &Built, only: &str, log: PathBuf) -> Result<Row> {
    let start = Instant::now();
    let words: Vec<OsString> = match part {
        Part::Packets => [CASES.into(), built.packets.clone().into(), "--test-threads=1".into()].into(),
        Part::Traps => {
            let traps = ["test", "traps", "--quick", "--only", only, "--programs"].map(OsString::from);
            [&[OsString::from(&built.xtask)], &traps[..], &[OsString::from(&built.programs)]].concat()
        }
    };
    let guest = Guest { clock: Clock::Time, memory: 2048, timeout: TIMEOUT };
    let status = guest.run(kernel, "env".as_ref(), &words, Some(File::create(&log)?));
    let text = fs::read_to_string(&log).unwrap_or_default();
    let counts = text.lines().rev().find(|line| line.contains(" passed"));
    let (passed, summary) = match &status {
        Ok(status) => (status.success() && counts.is_some(), counts.unwrap_or("nothing was counted").to_owned()),
        Err(error) => (false, format!("{error:#}")),
    };
    Ok(Row { kernel: kernel.version.clone(), part, passed, summary, seconds: start.elapsed().as_secs(), log })
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["kernel", "what", "as promised", "result", "time"]);
    for row in rows {
        let passed = if row.passed { "yes" } else { "NO" };
        let time = format!("{} s", row.seconds);
        table.add_row([&row.kernel, name_of(row.part), passed, &row.summary, &time]);
    }
    table
}

/// Builds what runs in the guests, which have neither a compiler's time nor its memory.
fn build() -> Result<Built> {
    // Asked for before it is built anew: then it would be the path of a deleted file.
    let xtask = std::env::current_exe()?;
    let cargo = || {
        let mut cargo = Command::new("cargo");
        cargo.current_dir(command::root());
        cargo
    };
    command::run(
        cargo().args(["build", "--workspace", "--bins"]).stdout(std::process::Stdio::from(std::io::stderr())),
    )?;
    let messages = command::output(cargo().args([
        "test",
        "--no-run",
        "--package",
        "minicni-user",
        "--test",
        "datapath",
        "--message-format=json-render-diagnostics",
    ]))?;
    let executable = |line: &str| -> Option<PathBuf> {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "datapath").then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    let packets = messages.lines().filter_map(executable).next_back().context("cargo names no test program")?;
    let programs = xtask.parent().context("we are in a directory")?.to_owned();
    Ok(Built { xtask, programs, packets })
}
