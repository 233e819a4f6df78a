//! `test kernels`: the programs, plugin and daemon, and the trap table under other kernels.

use std::{
    fs::{self, File},
    num::NonZeroUsize,
    path::PathBuf,
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use super::{
    guest::{Clock, Guest},
    kernel::{Kernel, Release},
    part::{Built, Part},
    wiring,
};
use crate::command;

/// Each language of rules once, IPVS among them, and both families.
const CELLS: [&str; 4] = ["iptables-legacy/ipv4", "iptables-nft/ipv6", "nftables/ipv4", "ipvs/ipv4"];

/// Arguments of `test kernels`.
#[derive(clap::Args)]
pub struct Smoke {
    /// Only this kernel; may be given more than once
    #[arg(long, value_enum)]
    kernel: Vec<Release>,
    /// Only this row of each kernel; may be given more than once
    #[arg(long, value_enum)]
    part: Vec<Part>,
    /// Of the trap table only cells whose name contains each word of this; may be given more than once
    #[arg(long, value_name = "PATTERN", default_values = CELLS)]
    only: Vec<String>,
    /// How many guests run at a time, 2 GiB of memory each; as many as there are CPUs if not given
    #[arg(long, value_name = "N")]
    guests: Option<NonZeroUsize>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

/// A program runs some twenty times as long in an emulated guest.
const TIMEOUT: Duration = Duration::from_mins(45);

/// What came of a part.
#[derive(Clone, Debug, Serialize)]
struct Row {
    /// As `uname -r` says it.
    kernel: String,
    part: Part,
    passed: bool,
    /// How much of it passed, or why nothing is known.
    summary: String,
    seconds: u64,
    /// All of the output.
    log: PathBuf,
}

/// Boots each kernel once for each part, and shows what came of it.
pub(crate) fn run(arguments: &Smoke) -> Result<()> {
    let built = build()?;
    let logs = command::root().join("target/kernels");
    fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
    let releases = if arguments.kernel.is_empty() { Release::value_variants() } else { &arguments.kernel };
    let parts = if arguments.part.is_empty() { Part::value_variants() } else { &arguments.part };
    let mut tasks = Vec::new();
    for &release in releases {
        let kernel = release.prepare()?;
        let possible = parts.iter().filter(|part| part.is_for(release));
        tasks.extend(possible.map(|part| (release, kernel.clone(), *part)));
    }
    if tasks.is_empty() {
        bail!("there is nothing to run: under kernel 5.10 --part wiring is all that can be");
    }
    let guests = arguments.guests.map_or_else(thread::available_parallelism, Ok)?.get();
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..guests {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    let Some((release, kernel, part)) = tasks.get(number) else { break };
                    let log = logs.join(format!("{release}-{}.log", part.name()));
                    eprintln!("{}: {}, minutes; see {}", kernel.version, part.title(), log.display());
                    let row = row(*part, *release, kernel, &built, &arguments.only, log);
                    rows.lock().unwrap_or_else(PoisonError::into_inner).push((number, row));
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|(number, _)| *number);
    let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
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

fn row(part: Part, release: Release, kernel: &Kernel, built: &Built, only: &[String], log: PathBuf) -> Row {
    let start = Instant::now();
    let guest = Guest { clock: Clock::Time, memory: 2048, timeout: TIMEOUT };
    let status = File::create(&log)
        .with_context(|| format!("create {}", log.display()))
        .and_then(|output| guest.run(kernel, "env".as_ref(), &part.words(release, built, only), Some(output)));
    let (passed, summary) = match status {
        Ok(status) => {
            let (passed, summary) = part.counted(release, &fs::read_to_string(&log).unwrap_or_default());
            (passed && status.success(), summary)
        }
        Err(error) => (false, format!("{error:#}")),
    };
    let seconds = start.elapsed().as_secs();
    eprintln!("{}: {}: {summary}, {seconds} s", kernel.version, part.title());
    Row { kernel: kernel.version.clone(), part, passed, summary, seconds, log }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(["kernel", "what", "as promised", "passed", "time"]);
    for row in rows {
        let passed = if row.passed { "yes" } else { "NO" };
        let time = format!("{} s", row.seconds);
        table.add_row([&row.kernel, row.part.title(), passed, &row.summary, &time]);
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
    let mut names = vec!["datapath"];
    names.extend(wiring::tests(Release::Sid).iter().map(|(name, _)| *name));
    let mut tests = cargo();
    tests.args(["test", "--no-run", "--workspace", "--message-format=json-render-diagnostics"]);
    tests.args(names.iter().flat_map(|name| ["--test", name]));
    let messages = command::output(&mut tests)?;
    let executable = |line: &str| -> Option<(String, PathBuf)> {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let name = names.iter().find(|name| message["target"]["name"] == **name)?;
        Some(((*name).to_owned(), message["executable"].as_str()?.into()))
    };
    let tests: Vec<_> = messages.lines().filter_map(executable).collect();
    if let Some(missing) = names.iter().find(|name| !tests.iter().any(|(there, _)| there == *name)) {
        bail!("cargo names no test program {missing}");
    }
    let programs = xtask.parent().context("we are in a directory")?.to_owned();
    Ok(Built { xtask, programs, tests })
}
