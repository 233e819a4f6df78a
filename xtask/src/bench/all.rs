//! All benchmarks, one after another, and one table of verdicts.

use std::{path::PathBuf, time::Instant};

use anyhow::{Result, bail};
use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use serde::{Deserialize, Serialize};

use super::{
    add, brief, churn, datapath, documents,
    environment::Environment,
    judged::{self, Judged},
    output::{self, Options},
    part::Part,
    scale, services, sizes,
};

/// Arguments of `bench all`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Measure only this part; may be given more than once
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// Print the verdicts that README has, and no others
    #[arg(long)]
    brief: bool,
    /// Keep the figures in this directory, and make its documents and plots, and the table of the README beside it, from all
    /// that it keeps
    #[arg(long, value_name = "DIR")]
    docs: Option<PathBuf>,
    /// Write no document; fail if one is not what the kept figures make it
    #[arg(long, requires = "docs")]
    check: bool,
}

/// What all benchmarks found.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct All {
    pub(super) datapath: Option<datapath::Report>,
    pub(super) services: Option<services::Report>,
    pub(super) add: Option<add::Report>,
    pub(super) churn: Option<churn::Report>,
    pub(super) scale: Option<scale::Report>,
    pub(super) sizes: Option<sizes::Report>,
    /// The datapath under another kernel, with instructions for time; from kept figures alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) counted: Option<datapath::Report>,
    /// The parts that have no figures because something went wrong.
    #[serde(default)]
    pub(super) failed: Vec<Failed>,
}

/// A part that failed, and why.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Failed {
    pub(super) part: Part,
    pub(super) why: String,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { options, only, brief, docs, check } = arguments;
    let all = match &options.from {
        Some(path) if path.is_dir() => documents::kept(path)?,
        Some(file) => output::read(file)?,
        None => measured(options, only)?,
    };
    options.page(|| all.clone())?;
    if let Some(docs) = docs {
        if options.from.as_ref() != Some(docs) {
            documents::keep(&all, docs)?;
        }
        let all = documents::kept(docs)?;
        if *check { documents::check(&all, docs) } else { documents::write(&all, docs) }?;
    }
    if let Some(file) = &options.json {
        output::json(&all, file)?;
    } else if *brief {
        println!("{}", brief::table(&all));
    } else {
        let style = if options.markdown { ASCII_MARKDOWN } else { UTF8_FULL_CONDENSED };
        println!("{}", judged::table(&all.judged(), style));
    }
    if all.failed.is_empty() {
        return Ok(());
    }
    let failed = all.failed.iter().map(|failed| format!("{}: {}", failed.part.name(), failed.why));
    bail!("not all could be measured: {}", failed.collect::<Vec<_>>().join("; "))
}

/// Measures part by part. One that fails takes nothing from the others, and what is there is in the file of JSON from the
/// moment when a part is done.
fn measured(options: &Options, only: &[Part]) -> Result<All> {
    let (mut all, start) = (All::default(), Instant::now());
    let parts: Vec<_> = Part::ALL.into_iter().filter(|part| only.is_empty() || only.contains(part)).collect();
    for (&part, number) in parts.iter().zip(1..) {
        eprintln!(
            "== {number} of {}: {}; {:.0?} until now, and this takes {} minutes or less, without what is built ==",
            parts.len(),
            part.name(),
            start.elapsed(),
            part.minutes(options.quick),
        );
        // A panic in one part ends no other.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| part.measure(&mut all, options.quick)));
        if let Err(error) = done.unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked"))) {
            eprintln!("{} failed: {error:#}", part.name());
            all.failed.push(Failed { part, why: format!("{error:#}") });
        }
        if let Some(file) = options.json.as_ref().filter(|file| !output::is_stdout(file)) {
            output::json(&all, file)?;
        }
    }
    eprintln!("measured in {:.0?}", start.elapsed());
    Ok(all)
}

impl All {
    /// The verdicts of all, also of what was not measured.
    pub(super) fn judged(&self) -> Vec<Judged> {
        Part::SHOWN.into_iter().flat_map(|part| part.judge(self)).chain(tested_instead()).collect()
    }

    /// Why a part has no figures.
    pub(super) fn why_not(&self, part: Part) -> String {
        let failed = self.failed.iter().find(|failed| failed.part == part);
        failed.map_or_else(|| "no figures are kept".to_owned(), |failed| format!("it failed: {}", failed.why))
    }

    /// Where and when the parts were measured.
    pub(super) fn environments(&self) -> Vec<(Part, &Environment)> {
        let all = [
            (Part::Datapath, self.datapath.as_ref().map(|it| &it.environment)),
            (Part::Services, self.services.as_ref().map(|it| &it.environment)),
            (Part::Add, self.add.as_ref().map(|it| &it.environment)),
            (Part::Churn, self.churn.as_ref().map(|it| &it.environment)),
            (Part::Scale, self.scale.as_ref().map(|it| &it.environment)),
            (Part::Sizes, self.sizes.as_ref().map(|it| &it.environment)),
        ];
        all.into_iter().filter_map(|(part, environment)| Some((part, environment?))).collect()
    }
}

/// Targets that hold or do not, whatever the machine: tests say which.
fn tested_instead() -> [Judged; 2] {
    let test = |file, name| format!("tested, {name} in xtask/tests/{file}");
    [
        Judged::not_measured(
            "C7",
            "what 1,000 calls leave that were killed at random moments",
            test("plugin/churn.rs", "a_thousand_calls_killed_at_random_moments_leave_nothing"),
        ),
        Judged::not_measured(
            "S3",
            "packets lost while the daemon is killed, started again and replaces its programs",
            test("daemon.rs", "a_daemon_killed_and_started_again_replaces_the_programs_and_loses_no_packet"),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The targets of the project.
    const TARGETS: [&str; 30] = [
        "D1", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "D9", "D10", "D11", "F1", "X1", "X2", "X3", "C1", "C2", "C3",
        "C4", "C5", "C6", "C7", "C8", "M1", "M2", "M3", "S1", "S2", "S3", "S4",
    ];

    #[test]
    fn every_target_has_a_row_whatever_was_measured() {
        let kept = documents::kept(&crate::command::root().join("docs")).unwrap();
        for all in [All::default(), kept] {
            let rows = all.judged();
            for target in TARGETS {
                assert!(rows.iter().any(|row| row.id == target), "{target}");
            }
            assert!(rows.iter().all(|row| TARGETS.contains(&row.id)), "{rows:?}");
        }
    }

    #[test]
    fn the_row_of_what_failed_says_why() {
        let failed = vec![Failed { part: Part::Scale, why: "no API server".to_owned() }];
        let rows = All { failed, ..All::default() }.judged();
        let row = rows.iter().find(|row| row.id == "S1").unwrap();
        assert_eq!(row.verdict.to_string(), "not measured: it failed: no API server");
    }

    #[test]
    fn the_tests_that_stand_for_targets_are_there() {
        for row in tested_instead() {
            let verdict = row.verdict.to_string();
            let (name, file) = verdict.trim_start_matches("not measured: tested, ").split_once(" in ").unwrap();
            let text = std::fs::read_to_string(crate::command::root().join(file)).unwrap();
            assert!(text.contains(&format!("fn {name}()")), "{verdict}");
        }
    }
}
