//! How large the programs and the image are that are shipped.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    environment::{Environment, load},
    judged::{Judged, Limits, Verdict},
};
use crate::{build, command};

/// Bytes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Report {
    pub(super) environment: Environment,
    /// The plugin, static and stripped.
    plugin: u64,
    /// The daemon, as well.
    daemon: u64,
    /// The compressed layers of the image.
    image: u64,
}

/// Builds the programs and the image, and looks.
pub(super) fn measured() -> Result<Report> {
    let (start, load_before) = (Instant::now(), load()?);
    let archive = command::root().join("target/minicni-image.tar");
    let programs = build::portable()?;
    let changed = |file: &Path| fs::metadata(file).and_then(|it| it.modified()).ok();
    // An image of these programs is not made again.
    if changed(&archive) < changed(&programs.minicni).max(changed(&programs.minicnid)) {
        let mut image = Command::new(std::env::current_exe().context("find this program")?);
        image.args(["image", "--output"]).arg(&archive).current_dir(command::root());
        command::run(image.stdout(std::process::Stdio::from(std::io::stderr())))?;
    }
    let size =
        |file: &Path| fs::metadata(file).map(|it| it.len()).with_context(|| format!("look at {}", file.display()));
    Ok(Report {
        plugin: size(&programs.minicni)?,
        daemon: size(&programs.minicnid)?,
        image: compressed(&archive).with_context(|| format!("read {}", archive.display()))?,
        environment: Environment::found(load_before, start.elapsed())?,
    })
}

/// What a registry stores of an image: the layers that the manifest of its OCI layout names.
fn compressed(archive: &Path) -> Result<u64> {
    let index = json(archive, "index.json")?;
    let digest = index["manifests"][0]["digest"].as_str().context("the index names no manifest")?;
    let manifest = json(archive, &format!("blobs/{}", digest.replace(':', "/")))?;
    let layers = manifest["layers"].as_array().context("the manifest has no layers")?;
    layers.iter().map(|layer| layer["size"].as_u64().context("a layer has no size")).sum()
}

fn json(archive: &Path, name: &str) -> Result<Value> {
    let mut archive = tar::Archive::new(File::open(archive)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()? == Path::new(name) {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            return Ok(serde_json::from_str(&text)?);
        }
    }
    anyhow::bail!("there is no {name}")
}

/// The verdicts of a run.
pub(super) fn judge(report: &Report) -> Vec<Judged> {
    let row = |what: &str, bytes, limits| {
        let megabytes = megabytes(bytes);
        Judged::figure("M3", what, format!("{megabytes:.2} MB"), Limits::at_most(limits), " MB", megabytes)
    };
    vec![
        row("size of the plugin", report.plugin, [4.0, 1.5]),
        row("size of the image, compressed", report.image, [10.0, 5.0]),
        Judged {
            target: String::new(),
            verdict: Verdict::NoTarget,
            ..row("size of the daemon", report.daemon, [0.0; 2])
        },
    ]
}

#[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
