//! Carries out the rows, each on a host of its own.

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use minicni::link::Netns;
use nix::mount::{MsFlags, mount};

use super::{
    bench::{Bench, LAB, bpf_mount},
    outcome::Miss,
    plugin::Plugin,
    report::{Report, Reported, Verdict},
    rows::{self, Row},
};
use crate::lab;

/// Runs the rows whose rule begins with `prefix`.
pub(super) fn run(path: &Path, prefix: &str) -> Result<Report> {
    let _alone = alone()?;
    lab::clean(LAB)?;
    let bpf = bpf_mount();
    fs::create_dir_all(&bpf).with_context(|| format!("create {}", bpf.display()))?;
    fs::create_dir_all("/run/netns").context("create the directory of named namespaces")?;
    mount(Some("bpf"), &bpf, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mount a bpf file system on {}", bpf.display()))?;
    let done = run_rows(path, prefix);
    lab::clean(LAB).context("remove the suite's namespaces and files")?;
    done
}

/// Keeps a second run away, which would take the first one's namespaces for those of a run that was killed. The kernel
/// frees an abstract address with its process.
fn alone() -> Result<UnixListener> {
    let address = SocketAddr::from_abstract_name(LAB)?;
    UnixListener::bind_addr(&address).context("another run of the suite is at work; wait for its end")
}

fn run_rows(path: &Path, prefix: &str) -> Result<Report> {
    let start = Instant::now();
    let anywhere = Netns::create_named(format!("/run/netns/{LAB}-first"))?;
    let plugin = Plugin::new(path, &anywhere)?;
    let rows: Vec<_> = rows::all().into_iter().filter(|row| row.rule.starts_with(prefix)).collect();
    if rows.is_empty() {
        bail!("no rule begins with {prefix}");
    }
    let (count, mut reported) = (rows.len(), Vec::new());
    for (number, row) in rows.into_iter().enumerate() {
        let done = carry_out(&plugin, number, row);
        if matches!(done.verdict, Verdict::Failed { .. }) || (number + 1) % 25 == 0 {
            eprintln!("[{:>5.1} s] {} of {count}: {}", start.elapsed().as_secs_f64(), number + 1, done.line());
        }
        reported.push(done);
    }
    Ok(Report::new(&plugin, reported, start.elapsed()))
}

fn carry_out(plugin: &Plugin, number: usize, row: Row) -> Reported {
    let start = Instant::now();
    let checked = Bench::new(plugin, number).map_err(Miss::from).and_then(|mut bench| (row.check)(&mut bench));
    let verdict = match checked {
        Ok(()) => Verdict::Passed,
        Err(Miss::NotApplicable(reason)) => Verdict::NotApplicable { reason },
        Err(Miss::Wrong { expected, seen }) => Verdict::Failed { expected, seen },
        Err(Miss::Broken(error)) => {
            Verdict::Failed { expected: "that the row can be carried out".to_owned(), seen: format!("{error:#}") }
        }
    };
    let took: Duration = start.elapsed();
    Reported { rule: row.rule, command: row.command, promise: row.promise, verdict, milliseconds: took.as_millis() }
}
